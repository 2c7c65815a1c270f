// Requests of 9P2000.L, decoded: fields into one reused Request. Nothing is looked at twice, nothing is trusted to be in range but
// what is said here. docs/protocol/9p2000l.md. Data plane.

import type { Cursor } from "../cursor.ts";
import { type Field, Kind, LAYOUTS } from "./layout.ts";
import { WALK_NAMES_MAX } from "./type.ts";

/**
 * Fields of all requests, each with those of its layout filled. Of u64 fields -1 is a value past 2^53-1. Tversion has msize in
 * count and its version in name; Tattach has uname in name and aname in otherName.
 */
export class Request {
  fid = 0;
  /** newfid, dfid, afid or newdirfid. */
  otherFid = 0;
  flags = 0;
  mode = 0;
  uid = 0;
  gid = 0;
  major = 0;
  minor = 0;
  /** valid of Tsetattr, request_mask of Tgetattr. */
  mask = 0;
  offset = 0;
  /** size of Tsetattr, attr_size of Txattrcreate, length of a lock. */
  length = 0;
  count = 0;
  atimeSec = 0;
  atimeNs = 0;
  mtimeSec = 0;
  mtimeNs = 0;
  lockType = 0;
  process = 0;
  otherTag = 0;
  name = "";
  otherName = "";
  /** Of Twalk; the first nameCount are its. */
  readonly names: string[] = new Array(WALK_NAMES_MAX).fill("");
  nameCount = 0;
  /** Where Twrite's bytes stand in the cursor's buffer. */
  dataStart = 0;
  dataLength = 0;
}

/** What decoding comes to: a request, one that is malformed, or a type that is none. */
export const Decoded = { request: 0, malformed: 1, unknown: 2 } as const;
export type Decoded = (typeof Decoded)[keyof typeof Decoded];

/**
 * Reads the body of a request of this type, from the cursor to its end, which must be the body's end as well. More than 16 names
 * are counted and not kept.
 */
export function decodeRequest(type: number, from: Cursor, to: Request): Decoded {
  const layout = LAYOUTS[type];
  if (layout === undefined) return Decoded.unknown;
  for (let i = 0; i < layout.length; i++) readField(layout[i]!, from, to);
  return from.hasOverrun || from.offset !== from.end ? Decoded.malformed : Decoded.request;
}

function readField(field: Field, from: Cursor, to: Request): void {
  switch (field.kind) {
    case Kind.u8:
      to[field.at] = from.u8();
      break;
    case Kind.u16:
      to[field.at] = from.u16();
      break;
    case Kind.u32:
      to[field.at] = from.u32();
      break;
    case Kind.u64:
      to[field.at] = from.u64();
      break;
    case Kind.i64:
      to[field.at] = from.i64();
      break;
    case Kind.text:
      to[field.at] = from.sizedText();
      break;
    case Kind.names:
      to.nameCount = from.u16();
      for (let i = 0; i < to.nameCount && !from.hasOverrun; i++) {
        const name = from.sizedText();
        if (i < WALK_NAMES_MAX) to.names[i] = name;
      }
      break;
    default:
      to.dataLength = from.u32();
      to.dataStart = from.offset;
      from.skip(to.dataLength);
  }
}
