// ViewCache: a cache directory made by hand, with a snapshot in it and the blobs that a test wants there, and a mount.json of a
// view over it. No daemon, no store. Tests and benches only.

import { createHash } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Digest } from "../../lib/base/digest.ts";
import { BLOCK_DIGESTS_OVER_BYTES } from "../../lib/base/limits.ts";
import { CACHE_FOLDERS } from "../../lib/cache/layout.ts";
import { putSealed } from "../../lib/cache/seal.ts";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { blockDigests } from "../../lib/store/blocks.ts";
import { writeMount } from "./gofer-process.ts";

/** Path to content, or to a target after "-> ", or "/" for a directory. */
export type Files = Readonly<Record<string, string | Uint8Array>>;

const common = { uid: 0, gid: 0, mtimeSec: 1_700_000_000, mtimeNs: 5 };

function digestOf(bytes: Uint8Array): Digest {
  return createHash("sha256").update(bytes).digest("hex") as Digest;
}

/** Puts the blob of a file into the cache below DIRECTORY, as a daemon that has fetched it does. */
export function putBlob(directory: string, content: string | Uint8Array): void {
  putSealed(join(directory, "cache"), "blobs", Buffer.from(content));
}

function entryOf(path: string, content: string | Uint8Array): LayerEntry {
  const text = typeof content === "string" ? content : "";
  if (text === "/") return { ...common, path, mode: 0o755, type: "directory" };
  if (text.startsWith("-> ")) {
    return { ...common, path, mode: 0o777, type: "symlink", target: text.slice(3) };
  }
  const bytes = Buffer.from(content);
  const blocks = bytes.length > BLOCK_DIGESTS_OVER_BYTES ? blockDigests(bytes) : [];
  const blob = { digest: digestOf(bytes), size: bytes.length, blocks };
  return { ...common, path, mode: 0o644, type: "file", blob };
}

/**
 * Makes DIRECTORY/cache with the snapshot of `files` and the blobs of those not in `missing`, and DIRECTORY/mounts/view: the
 * mount's source, when DIRECTORY is BURROW_STATE.
 */
export function makeView(directory: string, files: Files, missing: readonly string[] = []): string {
  const cache = join(directory, "cache");
  for (const folder of CACHE_FOLDERS) mkdirSync(join(cache, folder), { recursive: true });
  const done = new Set<string | Uint8Array>();
  const entries = Object.entries(files).map(([path, content]) => entryOf(path, content));
  for (const [i, [path, content]] of Object.entries(files).entries()) {
    if (entries[i]!.type !== "file" || missing.includes(path) || done.has(content)) continue;
    done.add(content);
    putSealed(cache, "blobs", Buffer.from(content));
  }
  const snapshot = putSealed(cache, "indexes", writeIndex(IndexKind.snapshot, entries));
  const base = { snapshot, origin: join(directory, "store") };
  return writeMount(directory, "view", { kind: "view", cache, base, grafts: [] });
}
