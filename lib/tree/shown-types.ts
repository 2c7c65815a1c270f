// Types of files as an upper shows what the host has. Pure; any plane.

import { S_IFBLK, S_IFCHR, S_IFIFO, S_IFSOCK } from "../base/file-types.ts";

/** Of no inode of Linux: a whiteout of an upper, as BSD calls it. */
export const S_IFWHT = 0o160000;
/** The same of a dentry. <dirent.h> IFTODT */
export const DT_WHT = S_IFWHT >>> 12;

/** How an upper's inode of the host's type is shown: host-devices.ts says why. */
export function shownType(type: number): number {
  if (type === S_IFIFO) return S_IFCHR;
  if (type === S_IFSOCK) return S_IFBLK;
  return type === S_IFCHR ? S_IFWHT : type;
}
