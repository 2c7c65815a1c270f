// Message types and constants of 9P2000.L. Sources: diod, protocol.md and src/libnpfs/9p.h; Linux, include/net/9p/9p.h; 9P2000's
// intro(5). docs/protocol/9p2000l.md. Any plane.

/** Requests; the reply to each is one more. */
export const Type = {
  statfs: 8,
  lopen: 12,
  lcreate: 14,
  symlink: 16,
  mknod: 18,
  rename: 20,
  readlink: 22,
  getattr: 24,
  setattr: 26,
  xattrwalk: 30,
  xattrcreate: 32,
  readdir: 40,
  fsync: 50,
  lock: 52,
  getlock: 54,
  link: 70,
  mkdir: 72,
  renameat: 74,
  unlinkat: 76,
  version: 100,
  auth: 102,
  attach: 104,
  flush: 108,
  walk: 110,
  read: 116,
  write: 118,
  clunk: 120,
  remove: 122,
} as const;

/** The reply of whatever failed. Its request, 6, is never sent. */
export const RLERROR = 7;

const NAMES = new Map<number, string>(Object.entries(Type).map(([name, type]) => [type, name]));

/** The protocol's own name of a request, or "type n". */
export function typeName(type: number): string {
  const name = NAMES.get(type);
  return name === undefined ? `type ${type}` : `T${name}`;
}

export const VERSION = "9P2000.L";
/** What a server says to a version that it doesn't know. 9P2000 version(5). */
export const UNKNOWN_VERSION = "unknown";
/** The tag of Tversion, and of nothing else. */
export const NOTAG = 0xffff;
/** No fid: what Tattach has for afid when nobody authenticated. */
export const NOFID = 0xffff_ffff;
/** n_uname of a user who is told by uname alone. */
export const NONUNAME = 0xffff_ffff;

/** size[4] type[1] tag[2] */
export const HEADER_BYTES = 7;
/** What stands before the bytes of Rread and Rreaddir: header and count[4]. */
export const READ_HEADER_BYTES = 11;
/** Names of one Twalk. 9P2000 walk(5), MAXWELEM. */
export const WALK_NAMES_MAX = 16;

/** Type of a qid. Linux, include/net/9p/9p.h p9_qid_t. */
export const QidType = { file: 0, symlink: 0x02, directory: 0x80 } as const;
export const QID_BYTES = 13;

/** What Rgetattr's fields up to blocks stand for: P9_GETATTR_BASIC. diod, protocol.md, getattr. */
export const GETATTR_BASIC = 0x7ff;

/** What Tsetattr changes. diod, protocol.md, setattr. */
export const SetattrBit = {
  mode: 0x1,
  uid: 0x2,
  gid: 0x4,
  size: 0x8,
  atime: 0x10,
  mtime: 0x20,
  ctime: 0x40,
  atimeSet: 0x80,
  mtimeSet: 0x100,
} as const;
export const SETATTR_ALL = 0x1ff;

/** Of Tlock and Tgetlock. diod, protocol.md, lock. */
export const LockType = { read: 0, write: 1, unlock: 2 } as const;
export const LockStatus = { success: 0, blocked: 1, error: 2 } as const;

export const AT_REMOVEDIR = 0x200;
/** type[4] of Rstatfs: V9FS_MAGIC. Linux, include/uapi/linux/magic.h. */
export const V9FS_MAGIC = 0x0102_1997;
