// Requests of LISAFS, decoded into one reused record and encoded from it. No state, no errno policy. Each byte of the
// client's is read once. lisafs-wire section 4 has every layout; offsets there are cumulative here. Data plane.

import type { Cursor } from "../cursor.ts";
import { Mid } from "./mid.ts";

/** The fields of every request; which are set depends on the message. FDIDs past 2^53-1 are -1. */
export class Request {
  /** The FDID that the message is about: FD, DirFD or OldDir. */
  fd = 0;
  /** Second FDID: LinkAt's TargetFD, RenameAt's NewDir. */
  otherFd = 0;
  /** OpenAt, OpenCreateAt: O_*; UnlinkAt: AT_REMOVEDIR; FSetXattr: XATTR_*; RenameAt2: RENAME_*. */
  flags = 0;
  mode = 0;
  uid = 0;
  gid = 0;
  mask = 0;
  /** PRead, PWrite, FAllocate: byte offset; -1 when past 2^53-1. */
  offset = 0;
  /** SetStat, FAllocate: size or length; -1 when past 2^53-1. */
  length = 0;
  /** PRead: bytes; Getdents64: signed budget; xattrs: buffer size; Listen: backlog. */
  count = 0;
  atimeSec = 0;
  atimeNs = 0;
  mtimeSec = 0;
  mtimeNs = 0;
  minor = 0;
  major = 0;
  sockType = 0;
  /** latin1; unchecked. */
  name = "";
  otherName = "";
  /** Walk, WalkStat: components; Close, FSync: FDIDs. Only the first `nameCount` and `fdCount` hold. */
  readonly names: string[] = [];
  nameCount = 0;
  readonly fds: number[] = [];
  fdCount = 0;
  /** PWrite: where the bytes stand in the cursor's buffer. */
  dataStart = 0;
  dataLength = 0;
}

/** Decodes the payload of a message that is not in `Mid` as nothing: the caller refuses it. False when too short. */
export function decodeRequest(mid: number, from: Cursor, out: Request): boolean {
  // The commonest first: a switch asks one case after the other.
  switch (mid) {
    case Mid.Walk:
    case Mid.WalkStat:
      out.fd = from.u64();
      decodeNames(from, out);
      break;
    case Mid.OpenAt:
      out.fd = from.u64();
      out.flags = from.u32();
      from.skip(4);
      break;
    case Mid.Mount:
    case Mid.Channel:
      break;
    case Mid.FStat:
    case Mid.FStatFS:
    case Mid.ReadLinkAt:
    case Mid.Flush:
    case Mid.Accept:
      out.fd = from.u64();
      break;
    case Mid.SetStat:
      decodeSetStat(from, out);
      break;
    case Mid.Close:
    case Mid.FSync:
      decodeFds(from, out);
      break;
    case Mid.PWrite:
      out.offset = from.u64();
      out.fd = from.u64();
      out.dataLength = from.u32();
      out.dataStart = from.offset;
      from.skip(out.dataLength);
      break;
    case Mid.PRead:
      out.offset = from.u64();
      out.fd = from.u64();
      out.count = from.u32();
      from.skip(4);
      break;
    case Mid.FAllocate:
      out.fd = from.u64();
      out.mode = from.u64();
      out.offset = from.u64();
      out.length = from.u64();
      break;
    case Mid.Getdents64:
    case Mid.Listen:
      out.fd = from.u64();
      out.count = from.i32();
      from.skip(4);
      break;
    case Mid.Connect:
    case Mid.ConnectWithCreds:
      out.fd = from.u64();
      out.sockType = from.u32();
      from.skip(4);
      if (mid === Mid.ConnectWithCreds) decodeOwner(from, out);
      break;
    default:
      decodeNamed(mid, from, out);
  }
  return !from.hasOverrun;
}

function decodeNamed(mid: number, from: Cursor, out: Request): void {
  switch (mid) {
    case Mid.OpenCreateAt:
      decodeCreate(from, out);
      out.flags = from.u32();
      out.name = from.sizedText();
      break;
    case Mid.MkdirAt:
      decodeCreate(from, out);
      out.name = from.sizedText();
      break;
    case Mid.MknodAt:
      decodeCreate(from, out);
      out.minor = from.u32();
      out.major = from.u32();
      out.name = from.sizedText();
      break;
    case Mid.BindAt:
      decodeCreate(from, out);
      out.sockType = from.u32();
      out.name = from.sizedText();
      break;
    case Mid.SymlinkAt:
      out.fd = from.u64();
      decodeOwner(from, out);
      out.name = from.sizedText();
      out.otherName = from.sizedText();
      break;
    case Mid.LinkAt:
      out.fd = from.u64();
      out.otherFd = from.u64();
      out.name = from.sizedText();
      break;
    case Mid.UnlinkAt:
      out.fd = from.u64();
      out.flags = from.u32();
      out.name = from.sizedText();
      break;
    case Mid.RenameAt:
    case Mid.RenameAt2:
      out.fd = from.u64();
      out.otherFd = from.u64();
      out.name = from.sizedText();
      out.otherName = from.sizedText();
      out.flags = mid === Mid.RenameAt2 ? from.u32() : 0;
      break;
    case Mid.FGetXattr:
      out.fd = from.u64();
      out.count = from.u32();
      out.name = from.sizedText();
      break;
    case Mid.FSetXattr:
      out.fd = from.u64();
      out.flags = from.u32();
      out.name = from.sizedText();
      out.otherName = from.sizedText();
      break;
    case Mid.FListXattr:
      out.fd = from.u64();
      out.count = from.u64();
      break;
    case Mid.FRemoveXattr:
      out.fd = from.u64();
      out.name = from.sizedText();
      break;
  }
}

function decodeOwner(from: Cursor, out: Request): void {
  out.uid = from.u32();
  out.gid = from.u32();
}

/** createCommon, 24 bytes: u64 DirFD, u32 UID, u32 GID, u16 Mode, 6 bytes of padding. */
function decodeCreate(from: Cursor, out: Request): void {
  out.fd = from.u64();
  decodeOwner(from, out);
  out.mode = from.u16();
  from.skip(6);
}

function decodeSetStat(from: Cursor, out: Request): void {
  out.fd = from.u64();
  out.mask = from.u32();
  out.mode = from.u32();
  decodeOwner(from, out);
  out.length = from.u64();
  out.atimeSec = from.i64();
  out.atimeNs = from.i64();
  out.mtimeSec = from.i64();
  out.mtimeNs = from.i64();
}

function decodeNames(from: Cursor, out: Request): void {
  const count = from.u16();
  out.nameCount = 0;
  for (let i = 0; i < count && !from.hasOverrun; i++) out.names[out.nameCount++] = from.sizedText();
}

function decodeFds(from: Cursor, out: Request): void {
  const count = from.u16();
  out.fdCount = 0;
  for (let i = 0; i < count && !from.hasOverrun; i++) out.fds[out.fdCount++] = from.u64();
}
