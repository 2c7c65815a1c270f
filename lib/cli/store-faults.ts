// Store faults: what is wrong with a store, by the object that is at fault, with the files that can't be had for it; and how it is shown.
// Control plane.

import { type Digest, showDigest } from "../base/digest.ts";
import { explain } from "../base/error.ts";
import { showName } from "../base/name.ts";
import { entriesOf } from "../layer/entries.ts";
import type { Backend } from "../store/store.ts";
import { readIndex } from "./read-index.ts";

/** Names that a line shows; --json has all. */
const NAMES_SHOWN = 3;

export interface FaultyFile {
  readonly digest: string;
  /** Below the root of one of the layers or snapshots that have it; undefined where none could be read. */
  readonly path?: string;
}

export interface Fault {
  /** Path of an object, or a file's digest. */
  readonly what: string;
  readonly why: string;
  /** Of a pack: files that can't be had for it. */
  readonly files?: readonly FaultyFile[];
}

/** Faults as they are found, the first of each object. */
export class Faults {
  readonly #found = new Map<string, { readonly why: string; readonly files?: readonly Digest[] }>();

  get size(): number {
    return this.#found.size;
  }

  has(what: string): boolean {
    return this.#found.has(what);
  }

  keys(): Iterable<string> {
    return this.#found.keys();
  }

  add(what: string, error: unknown, files?: readonly Digest[]): void {
    if (this.#found.has(what)) return;
    this.#found.set(what, { why: explain(error), ...(files === undefined ? {} : { files }) });
  }

  /** All, in order, with the names of files as `indexes` have them. */
  async list(reader: Backend, indexes: readonly Digest[]): Promise<Fault[]> {
    const files = new Set([...this.#found.values()].flatMap(({ files: some = [] }) => some));
    const names = await namesOf(reader, indexes, files);
    const show = (digest: Digest): FaultyFile => {
      const path = names.get(digest);
      return { digest: showDigest(digest), ...(path === undefined ? {} : { path }) };
    };
    return [...this.#found]
      .map(([what, { why, files: some }]) => ({
        what,
        why,
        ...(some ? { files: some.map(show) } : {}),
      }))
      .sort((a, b) => (a.what < b.what ? -1 : 1));
  }
}

/** A name for each file, as far as indexes that can be read have one. */
async function namesOf(
  reader: Backend,
  indexes: readonly Digest[],
  files: ReadonlySet<Digest>,
): Promise<Map<Digest, string>> {
  const names = new Map<Digest, string>();
  for (const digest of indexes) {
    if (names.size === files.size) break;
    try {
      for (const entry of entriesOf(await readIndex(reader, digest)))
        if (entry.type === "file" && files.has(entry.blob.digest))
          names.set(entry.blob.digest, showName(entry.path));
    } catch {
      // It is among the faults itself.
    }
  }
  return names;
}

/** A fault in a line. */
export function showFault({ what, why, files = [] }: Fault): string {
  const names = files.flatMap(({ path }) => path ?? []).slice(0, NAMES_SHOWN);
  const rest = files.length > names.length ? ", …" : "";
  return `${what}: ${why}${names.length === 0 ? "" : `: ${names.join(", ")}${rest}`}`;
}
