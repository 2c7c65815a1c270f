// Requests of LISAFS, encoded: the client's direction, for tests, benches and doors of our own. The mirror of
// decodeRequest in message.ts; lisafs-wire section 4. Pads are sent as 0. No state, no errno policy. Any plane.

import type { Cursor } from "../cursor.ts";
import type { Request } from "./message.ts";
import { Mid } from "./mid.ts";

const NO_BYTES = new Uint8Array(0);

/**
 * Writes the payload of a request at the cursor: false when it did not fit or `mid` is no request. A u64 field of -1 goes out
 * as 2^64-1, which decodes to -1 again. `data` is what PWrite writes; dataStart is the decoder's alone.
 */
export function encodeRequest(
  mid: number,
  from: Request,
  to: Cursor,
  data: Uint8Array = NO_BYTES,
): boolean {
  switch (mid) {
    case Mid.Mount:
    case Mid.Channel:
      break;
    case Mid.FStat:
    case Mid.FStatFS:
    case Mid.ReadLinkAt:
    case Mid.Flush:
    case Mid.Accept:
      to.putU64(from.fd);
      break;
    case Mid.SetStat:
      encodeSetStat(from, to);
      break;
    case Mid.Walk:
    case Mid.WalkStat:
      to.putU64(from.fd);
      to.putU16(from.nameCount);
      for (let i = 0; i < from.nameCount; i++) to.putSizedText(from.names[i]!);
      break;
    case Mid.Close:
    case Mid.FSync:
      to.putU16(from.fdCount);
      for (let i = 0; i < from.fdCount; i++) to.putU64(from.fds[i]!);
      break;
    case Mid.PWrite:
      to.putU64(from.offset);
      to.putU64(from.fd);
      to.putU32(data.length);
      to.putBytes(data);
      break;
    case Mid.PRead:
      to.putU64(from.offset);
      to.putU64(from.fd);
      to.putU32(from.count);
      to.putU32(0);
      break;
    case Mid.FAllocate:
      to.putU64(from.fd);
      to.putU64(from.mode);
      to.putU64(from.offset);
      to.putU64(from.length);
      break;
    default:
      if (!encodeWords(mid, from, to) && !encodeNamed(mid, from, to)) return false;
  }
  return !to.hasOverrun;
}

/** Messages of an FDID, one u32 and 4 bytes of padding or, of ConnectWithCreds, 4 more. */
function encodeWords(mid: number, from: Request, to: Cursor): boolean {
  switch (mid) {
    case Mid.OpenAt:
      to.putU64(from.fd);
      to.putU32(from.flags);
      to.putU32(0);
      return true;
    case Mid.Getdents64:
    case Mid.Listen:
      to.putU64(from.fd);
      to.putU32(from.count >>> 0);
      to.putU32(0);
      return true;
    case Mid.Connect:
    case Mid.ConnectWithCreds:
      to.putU64(from.fd);
      to.putU32(from.sockType);
      to.putU32(0);
      if (mid === Mid.ConnectWithCreds) encodeOwner(from, to);
      return true;
    default:
      return false;
  }
}

function encodeNamed(mid: number, from: Request, to: Cursor): boolean {
  switch (mid) {
    case Mid.OpenCreateAt:
    case Mid.MkdirAt:
    case Mid.MknodAt:
    case Mid.BindAt:
      encodeCreate(from, to);
      if (mid === Mid.OpenCreateAt) to.putU32(from.flags);
      if (mid === Mid.MknodAt) {
        to.putU32(from.minor);
        to.putU32(from.major);
      }
      if (mid === Mid.BindAt) to.putU32(from.sockType);
      to.putSizedText(from.name);
      return true;
    case Mid.SymlinkAt:
      to.putU64(from.fd);
      encodeOwner(from, to);
      to.putSizedText(from.name);
      to.putSizedText(from.otherName);
      return true;
    case Mid.LinkAt:
    case Mid.RenameAt:
    case Mid.RenameAt2:
      to.putU64(from.fd);
      to.putU64(from.otherFd);
      to.putSizedText(from.name);
      if (mid !== Mid.LinkAt) to.putSizedText(from.otherName);
      if (mid === Mid.RenameAt2) to.putU32(from.flags);
      return true;
    case Mid.UnlinkAt:
    case Mid.FSetXattr:
      to.putU64(from.fd);
      to.putU32(from.flags);
      to.putSizedText(from.name);
      if (mid === Mid.FSetXattr) to.putSizedText(from.otherName);
      return true;
    case Mid.FGetXattr:
      to.putU64(from.fd);
      to.putU32(from.count);
      to.putSizedText(from.name);
      return true;
    case Mid.FListXattr:
      to.putU64(from.fd);
      to.putU64(from.count);
      return true;
    case Mid.FRemoveXattr:
      to.putU64(from.fd);
      to.putSizedText(from.name);
      return true;
    default:
      return false;
  }
}

function encodeOwner(from: Request, to: Cursor): void {
  to.putU32(from.uid);
  to.putU32(from.gid);
}

function encodeCreate(from: Request, to: Cursor): void {
  to.putU64(from.fd);
  encodeOwner(from, to);
  to.putU16(from.mode);
  to.putU16(0);
  to.putU32(0);
}

function encodeSetStat(from: Request, to: Cursor): void {
  to.putU64(from.fd);
  to.putU32(from.mask);
  to.putU32(from.mode);
  encodeOwner(from, to);
  to.putU64(from.length);
  to.putI64(from.atimeSec);
  to.putI64(from.atimeNs);
  to.putI64(from.mtimeSec);
  to.putI64(from.mtimeNs);
}
