// Wrapper: an object whose name is the sha256 of its bytes is checked against it when it is read whole. Ranges
// pass unchecked: the fetcher checks each chunk in them against the index. Control plane.

import { BurrowError } from "../base/error.ts";
import { digestOf } from "./hash.ts";
import { digestOfPath, isNamedByContent } from "./layout.ts";
import type { Backend, GetOptions } from "./store.ts";

/** `inner` with packs and indexes verified. A mismatch is transient: a bad mirror or line may do better next. */
export function verified(inner: Backend): Backend {
  return {
    origin: inner.origin,
    async get(path: string, options: GetOptions = {}): Promise<Buffer> {
      const bytes = await inner.get(path, options);
      if (options.range === undefined && isNamedByContent(path)) check(path, bytes, inner.origin);
      return bytes;
    },
    has: (path, signal) => inner.has(path, signal),
    close: () => inner.close(),
  };
}

function check(path: string, bytes: Buffer, origin: string): void {
  const actual = digestOf(bytes);
  if (actual === digestOfPath(path)) return;
  throw new BurrowError("BURROW_DIGEST_MISMATCH", "an object is not what its name says", {
    class: "transient",
    context: { path, actual: `sha256:${actual}`, origin },
  });
}
