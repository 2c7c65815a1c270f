// A behaviour of the tree suite: one row of its tables, and what it says of results. Control plane.

import type { Test } from "tap";
import { errnoName } from "../../lib/base/errno.ts";
import type { Tree, WritableTree } from "../../lib/tree/tree.ts";

export type { Test };

/** What an implementation can do. */
export interface TreeCan {
  /** It is a WritableTree and isReadOnly is false. */
  readonly write?: boolean;
  /** Names of one inode are one Ino, with nlink counting them. */
  readonly hardLinks?: boolean;
  /** Takes and gives user.* xattrs. */
  readonly xattr?: boolean;
  /** The process may give files to other owners. */
  readonly chown?: boolean;
}

export interface Behaviour {
  readonly name: string;
  readonly needs?: readonly (keyof TreeCan)[];
  /** `writable` is the tree again when it is one. */
  run(t: Test, tree: Tree, writable: WritableTree): void;
}

/** Asserts that a result is -errno. */
export function refused(t: Test, result: number, errno: number, what: string): void {
  t.equal(result < 0 ? errnoName(result) : `${result}`, errnoName(errno), what);
}
