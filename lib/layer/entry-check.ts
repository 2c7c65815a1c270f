// What one entry must be before it goes into an index: every field within what its row can hold. Control plane.

import type { BlobRef } from "../base/blob.ts";
import { parseDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { BLOCK_BYTES, BLOCK_DIGESTS_OVER_BYTES, SYMLINK_MAX_BYTES } from "../base/limits.ts";
import { showName } from "../base/name.ts";
import type { LayerEntry } from "./entry.ts";
import { IndexKind } from "./format.ts";

const U32_MAX = 0xffff_ffff;
const NS_MAX = 999_999_999;
/** man xattr(7): XATTR_NAME_MAX, XATTR_SIZE_MAX and XATTR_LIST_MAX (names, each with its NUL). */
const XATTR_NAME_MAX_BYTES = 255;
export const XATTR_VALUE_MAX_BYTES = 65_536;
export const XATTR_LIST_MAX_BYTES = 65_536;

/** Throws BURROW_BAD_INDEX for a path, which people see. */
export function refuse(path: string, why: string): never {
  throw new BurrowError("BURROW_BAD_INDEX", `${why}: ${showName(path) || "/"}`);
}

/** Throws BURROW_BAD_INDEX unless the entry may stand in an index of this kind. Of its path, that it is bytes:
 * its names are the writer's to check. */
export function checkEntry(entry: LayerEntry, kind: IndexKind): void {
  const { path, mode, uid, gid, mtimeSec, mtimeNs } = entry;
  if (kind === IndexKind.snapshot) {
    const isOpaque = entry.type === "directory" && entry.opaque === true;
    if (entry.type === "whiteout" || isOpaque) refuse(path, "a whiteout in a snapshot");
  }
  if (!isLatin1(path)) refuse(path, "a name that is no string of bytes");
  if (!isWhole(mode, 0o7777)) refuse(path, `a mode of ${mode}`);
  if (!isWhole(uid, U32_MAX) || !isWhole(gid, U32_MAX)) refuse(path, `an owner of ${uid}:${gid}`);
  if (!Number.isSafeInteger(mtimeSec) || !isWhole(mtimeNs, NS_MAX)) {
    refuse(path, `a time of ${mtimeSec} s and ${mtimeNs} ns`);
  }
  if (entry.xattrs !== undefined) checkXattrs(path, entry.xattrs);
  if (entry.type === "symlink") {
    const { length } = entry.target;
    if (length === 0 || length > SYMLINK_MAX_BYTES)
      refuse(path, `a symlink target of ${length} bytes`);
    if (!isLatin1(entry.target) || entry.target.includes("\0")) {
      refuse(path, "a symlink target that is not allowed");
    }
  } else if (entry.type === "file") {
    if (entry.blob.isPinned === true && kind !== IndexKind.snapshot)
      refuse(path, "a pinned object in a layer");
    checkBlob(path, entry.blob);
  }
}

/** Throws BURROW_BAD_INDEX unless an inode may have these extended attributes. */
export function checkXattrs(path: string, xattrs: ReadonlyMap<string, string>): void {
  let listBytes = 0;
  for (const [name, value] of xattrs) {
    listBytes += name.length + 1;
    if (listBytes > XATTR_LIST_MAX_BYTES) refuse(path, "too many extended attributes");
    const isName = name.length > 0 && name.length <= XATTR_NAME_MAX_BYTES && !name.includes("\0");
    const isValue = value.length <= XATTR_VALUE_MAX_BYTES;
    if (!isName || !isValue || !isLatin1(name) || !isLatin1(value)) {
      refuse(path, `an extended attribute that is not allowed (${showName(name)})`);
    }
  }
}

/** The block digests of a blob decide what of it a reader can trust piece by piece, so their count is no detail. */
function checkBlob(path: string, { digest, size, blocks, isPinned }: BlobRef): void {
  if (!isWhole(size, Number.MAX_SAFE_INTEGER)) refuse(path, `a file of ${size} bytes`);
  const isCut = size > BLOCK_DIGESTS_OVER_BYTES && isPinned !== true;
  const count = isCut ? Math.ceil(size / BLOCK_BYTES) : 0;
  if (blocks.length !== count) {
    refuse(path, `${blocks.length} block digests for ${size} bytes, not ${count}`);
  }
  for (const each of [digest, ...blocks]) {
    if (parseDigest(each) !== each) refuse(path, `"${each}" for a digest`);
  }
}

function isWhole(value: number, max: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= max;
}

function isLatin1(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 0xff) return false;
  return true;
}
