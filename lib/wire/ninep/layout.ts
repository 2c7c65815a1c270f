// The fields of every request of 9P2000.L in their order on the wire, one table for both directions. diod, protocol.md. Pure;
// data-plane rules.

import { Type } from "./type.ts";

/** How a field is sent. A name is u16 length and bytes; data is u32 length and bytes; names are u16 count and names. */
export const Kind = { u8: 0, u16: 1, u32: 2, u64: 3, i64: 4, text: 5, names: 6, data: 7 } as const;

export type NumberField =
  | "fid"
  | "otherFid"
  | "flags"
  | "mode"
  | "uid"
  | "gid"
  | "major"
  | "minor"
  | "mask"
  | "offset"
  | "length"
  | "count"
  | "atimeSec"
  | "atimeNs"
  | "mtimeSec"
  | "mtimeNs"
  | "lockType"
  | "process"
  | "otherTag";
export type TextField = "name" | "otherName";

export type Field =
  | { readonly kind: 0 | 1 | 2 | 3 | 4; readonly at: NumberField }
  | { readonly kind: 5; readonly at: TextField }
  | { readonly kind: 6 }
  | { readonly kind: 7 };

const u8 = (at: NumberField): Field => ({ kind: Kind.u8, at });
const u16 = (at: NumberField): Field => ({ kind: Kind.u16, at });
const u32 = (at: NumberField): Field => ({ kind: Kind.u32, at });
const u64 = (at: NumberField): Field => ({ kind: Kind.u64, at });
const i64 = (at: NumberField): Field => ({ kind: Kind.i64, at });
const text = (at: TextField): Field => ({ kind: Kind.text, at });
const FID = u32("fid");
const OTHER = u32("otherFid");
const NAME = text("name");
const GID = u32("gid");

/** By type; nothing for what is no request. */
export const LAYOUTS: (readonly Field[] | undefined)[] = new Array(256).fill(undefined);
LAYOUTS[Type.statfs] = [FID];
LAYOUTS[Type.lopen] = [FID, u32("flags")];
LAYOUTS[Type.lcreate] = [FID, NAME, u32("flags"), u32("mode"), GID];
LAYOUTS[Type.symlink] = [FID, NAME, text("otherName"), GID];
LAYOUTS[Type.mknod] = [FID, NAME, u32("mode"), u32("major"), u32("minor"), GID];
LAYOUTS[Type.rename] = [FID, OTHER, NAME];
LAYOUTS[Type.readlink] = [FID];
LAYOUTS[Type.getattr] = [FID, u64("mask")];
LAYOUTS[Type.setattr] = [
  FID,
  u32("mask"),
  u32("mode"),
  u32("uid"),
  GID,
  u64("length"),
  // A time before 1970 has its sign: Linux sends its time64_t. fs/9p/vfs_inode_dotl.c
  i64("atimeSec"),
  u64("atimeNs"),
  i64("mtimeSec"),
  u64("mtimeNs"),
];
LAYOUTS[Type.xattrwalk] = [FID, OTHER, NAME];
LAYOUTS[Type.xattrcreate] = [FID, NAME, u64("length"), u32("flags")];
LAYOUTS[Type.readdir] = [FID, u64("offset"), u32("count")];
LAYOUTS[Type.fsync] = [FID, u32("flags")];
const RANGE = [u8("lockType"), u64("offset"), u64("length"), u32("process"), NAME];
LAYOUTS[Type.lock] = [FID, RANGE[0]!, u32("flags"), ...RANGE.slice(1)];
LAYOUTS[Type.getlock] = [FID, ...RANGE];
LAYOUTS[Type.link] = [FID, OTHER, NAME];
LAYOUTS[Type.mkdir] = [FID, NAME, u32("mode"), GID];
LAYOUTS[Type.renameat] = [FID, NAME, OTHER, text("otherName")];
LAYOUTS[Type.unlinkat] = [FID, NAME, u32("flags")];
LAYOUTS[Type.version] = [u32("count"), NAME];
LAYOUTS[Type.auth] = [FID, NAME, text("otherName"), u32("uid")];
LAYOUTS[Type.attach] = [FID, OTHER, NAME, text("otherName"), u32("uid")];
LAYOUTS[Type.flush] = [u16("otherTag")];
LAYOUTS[Type.walk] = [FID, OTHER, { kind: Kind.names }];
LAYOUTS[Type.read] = [FID, u64("offset"), u32("count")];
LAYOUTS[Type.write] = [FID, u64("offset"), { kind: Kind.data }];
LAYOUTS[Type.clunk] = [FID];
LAYOUTS[Type.remove] = [FID];
