// Qids, and the attributes of Rgetattr. diod, protocol.md, getattr; 9P2000's intro(5). Pure; data-plane rules.

import type { Attr } from "../../base/attr.ts";
import { DT_DIR, DT_LNK, S_IFDIR, S_IFLNK, S_IFMT } from "../../base/file-types.ts";
import type { Cursor } from "../cursor.ts";
import { encodeDevice } from "../device.ts";
import { GETATTR_BASIC, QidType } from "./type.ts";

const TWO_32 = 2 ** 32;
/** Upper bits of an inode number, and of a device number above them: 53 and 11. */
const HIGH_BITS = 21;
const DEVICES = 2 ** 11;

/**
 * The qid of a file. Its path is the inode number, with the number of its device in the bits that no inode number has, so that
 * files of different grafts differ. Its version is never 0: Linux 6.4 and later keep nothing in their cache of such a file
 * (fs/9p/fid.h, v9fs_fid_add_modes).
 */
export function putQid(to: Cursor, attr: Attr): void {
  const type = attr.mode & S_IFMT;
  const kind = type === S_IFDIR ? QidType.directory : type === S_IFLNK ? QidType.symlink : 0;
  to.putU8(kind);
  to.putU32(versionOf(attr));
  putPath(to, attr.ino, attr.devMinor);
}

/** The qid of a dentry: its version isn't known. `type` is DT_*. */
export function putDirentQid(to: Cursor, ino: number, devMinor: number, type: number): void {
  to.putU8(type === DT_DIR ? QidType.directory : type === DT_LNK ? QidType.symlink : 0);
  to.putU32(0);
  putPath(to, ino, devMinor);
}

function putPath(to: Cursor, ino: number, devMinor: number): void {
  to.putU32(ino >>> 0);
  to.putU32((Math.floor(ino / TWO_32) + (devMinor % DEVICES) * 2 ** HIGH_BITS) >>> 0);
}

/** Differs when the content does: what changes a file changes its mtime or its size. */
function versionOf(attr: Attr): number {
  const mixed = Math.imul(attr.mtimeSec | 0, 31) ^ attr.mtimeNs ^ Math.imul(attr.size | 0, 17);
  return mixed === 0 ? 1 : mixed >>> 0;
}

/** The body of Rgetattr: all that is asked for and more, times of birth, generation and data version never. */
export function putAttr(to: Cursor, attr: Attr): void {
  to.putU64(GETATTR_BASIC);
  putQid(to, attr);
  to.putU32(attr.mode);
  to.putU32(attr.uid);
  to.putU32(attr.gid);
  to.putU64(attr.nlink);
  to.putU64(encodeDevice(attr.rdevMajor, attr.rdevMinor));
  to.putU64(attr.size);
  to.putU64(attr.blockSize);
  to.putU64(attr.blocks);
  to.putI64(attr.atimeSec);
  to.putU64(attr.atimeNs);
  to.putI64(attr.mtimeSec);
  to.putU64(attr.mtimeNs);
  to.putI64(attr.ctimeSec);
  to.putU64(attr.ctimeNs);
  for (let i = 0; i < 4; i++) to.putU64(0);
}
