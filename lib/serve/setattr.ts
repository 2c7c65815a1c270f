// What 9P and FUSE call the parts of a setattr, in the tree's words. Data plane.

import { SetAttr } from "../tree/tree.ts";

/** A protocol's own bits. ctime alone changes nothing: the tree keeps it. */
export interface SetattrBits {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly atime: number;
  readonly mtime: number;
}

const PARTS = ["mode", "uid", "gid", "size", "atime", "mtime"] as const;

/** The bits of SetAttr that a protocol's mask asks for. */
export function setAttrMask(mask: number, bits: SetattrBits): number {
  let own = 0;
  for (const part of PARTS) if ((mask & bits[part]) !== 0) own |= SetAttr[part];
  return own;
}
