// Explanation: extended attributes that say of a file in a view where it comes from: made up when they are asked for, listed only where
// a view is explained. docs/design/0021-explained-views.md. Data plane.

import { Errno } from "../base/errno.ts";
import type { Ino } from "./tree.ts";

const PACKAGE = "user.burrow.package";
const LAYER = "user.burrow.layer";
const DIGEST = "user.burrow.digest";
const BYTES = "user.burrow.bytes";
const NAMES: readonly string[] = [PACKAGE, LAYER, DIGEST, BYTES];

/** Whether an attribute is one of these: what is copied of a file must not take them along. */
export function isMadeUp(name: string): boolean {
  return NAMES.includes(name);
}

/** Who put the files of one snapshot there. */
export interface FileOwners {
  readonly owners: readonly { readonly title: string; readonly layer: string }[];
  /** By the inode's number in the snapshot: 1 + the number of its owner, or 0. */
  readonly byIno: Uint16Array;
}

/** What an explanation asks of the tree that a file is in. */
export interface ExplainedTree {
  /** Number of the inode in its snapshot. */
  numberOf(ino: Ino): number;
  /** Digest of a regular file's content, hex; undefined of anything else. */
  digestOf(ino: Ino): string | undefined;
  /** Whether all bytes of a regular file are on this node. */
  isHere(ino: Ino): boolean;
}

export class Explanation {
  readonly #owners: ReadonlyMap<ExplainedTree, FileOwners>;

  /** `owners`: of the snapshots that are known to be made of layers. */
  constructor(owners: ReadonlyMap<ExplainedTree, FileOwners>) {
    this.#owners = owners;
  }

  /** Value of an attribute; undefined where a file has none of that name. */
  #valueOf(tree: ExplainedTree, ino: Ino, name: string): string | undefined {
    if (!NAMES.includes(name)) return undefined;
    const digest = tree.digestOf(ino);
    if (digest === undefined) return undefined;
    if (name === DIGEST) return `sha256:${digest}`;
    if (name === BYTES) return tree.isHere(ino) ? "here" : "away";
    const known = this.#owners.get(tree);
    const owner = known?.owners[(known.byIno[tree.numberOf(ino)] ?? 0) - 1];
    return name === PACKAGE ? owner?.title : owner?.layer;
  }

  /** Copies an attribute's value: its bytes, -ENODATA, -ERANGE. */
  get(tree: ExplainedTree, ino: Ino, name: string, out: Uint8Array): number {
    const value = this.#valueOf(tree, ino, name);
    return value === undefined ? -Errno.ENODATA : copy(value, out, 0);
  }

  /** Adds names, each with a NUL, behind those of the `length` bytes in `out` that a file may have of its own: the new length, -ERANGE. */
  list(tree: ExplainedTree, ino: Ino, length: number, out: Uint8Array): number {
    let end = dropMadeUp(out, length);
    for (const name of NAMES) {
      if (this.#valueOf(tree, ino, name) === undefined) continue;
      const copied = copy(`${name}\0`, out, end);
      if (copied < 0) return copied;
      end += copied;
    }
    return end;
  }
}

/** Takes these names out of a list that a file has of its own: the new length. */
function dropMadeUp(list: Uint8Array, length: number): number {
  const text = Buffer.from(list.buffer, list.byteOffset, length).toString("latin1");
  if (!NAMES.some((name) => text.includes(`${name}\0`))) return length;
  const names = text.split("\0").filter((name) => name !== "" && !isMadeUp(name));
  return Buffer.from(list.buffer, list.byteOffset, length).write(
    names.map((name) => `${name}\0`).join(""),
    "latin1",
  );
}

/** UTF-8. */
function copy(text: string, out: Uint8Array, at: number): number {
  const bytes = Buffer.from(text);
  if (at + bytes.length > out.length) return -Errno.ERANGE;
  out.set(bytes, at);
  return bytes.length;
}
