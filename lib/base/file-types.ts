// Types and bits of files as mode words have them. man inode(7). Pure; any plane.

export const S_IFMT = 0o170000;
export const S_IFREG = 0o100000;
export const S_IFDIR = 0o040000;
export const S_IFLNK = 0o120000;
export const S_IFCHR = 0o020000;
export const S_IFBLK = 0o060000;
export const S_IFIFO = 0o010000;
export const S_IFSOCK = 0o140000;
/** What is made in such a directory has its group. */
export const S_ISGID = 0o2000;

// The same types as dentries have them. <dirent.h>

export const DT_DIR = 4;
export const DT_REG = 8;
export const DT_LNK = 10;
