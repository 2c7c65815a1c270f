// Types of files as mode words have them, and as an upper shows what the host has. man inode(7). Pure; any plane.

export const S_IFMT = 0o170000;
export const S_IFREG = 0o100000;
export const S_IFDIR = 0o040000;
export const S_IFLNK = 0o120000;
export const S_IFCHR = 0o020000;
export const S_IFBLK = 0o060000;
export const S_IFIFO = 0o010000;
export const S_IFSOCK = 0o140000;
/** Of no inode of Linux: a whiteout of an upper, as BSD calls it. */
export const S_IFWHT = 0o160000;

/** How an upper's inode of the host's type is shown: host-devices.ts says why. */
export function shownType(type: number): number {
  if (type === S_IFIFO) return S_IFCHR;
  if (type === S_IFSOCK) return S_IFBLK;
  return type === S_IFCHR ? S_IFWHT : type;
}
