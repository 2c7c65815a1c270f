// Requests of 9P2000.L, encoded: the client's direction, for tests and benches. The mirror of decodeRequest in message.ts. Any plane.

import type { Cursor } from "../cursor.ts";
import { type Field, Kind, LAYOUTS } from "./layout.ts";
import type { Request } from "./message.ts";
import { HEADER_BYTES } from "./type.ts";

const NO_BYTES = new Uint8Array(0);

/**
 * Writes a whole message, header and all, at the cursor: its bytes, or -1 when it did not fit or `type` is no request. A u64 field
 * of -1 goes out as 2^64-1, which decodes to -1 again. `data` is what Twrite writes.
 */
export function encodeMessage(
  type: number,
  tag: number,
  from: Request,
  to: Cursor,
  data: Uint8Array = NO_BYTES,
): number {
  const layout = LAYOUTS[type];
  if (layout === undefined) return -1;
  const start = to.offset;
  to.skip(HEADER_BYTES);
  for (const field of layout) writeField(field, from, to, data);
  if (to.hasOverrun) return -1;
  const bytes = to.offset - start;
  to.view.setUint32(start, bytes, true);
  to.view.setUint8(start + 4, type);
  to.view.setUint16(start + 5, tag, true);
  return bytes;
}

function writeField(field: Field, from: Request, to: Cursor, data: Uint8Array): void {
  switch (field.kind) {
    case Kind.u8:
      to.putU8(from[field.at]);
      break;
    case Kind.u16:
      to.putU16(from[field.at]);
      break;
    case Kind.u32:
      to.putU32(from[field.at]);
      break;
    case Kind.u64:
      to.putU64(from[field.at]);
      break;
    case Kind.i64:
      to.putI64(from[field.at]);
      break;
    case Kind.text:
      to.putSizedText(from[field.at]);
      break;
    case Kind.names:
      to.putU16(from.nameCount);
      for (let i = 0; i < from.nameCount; i++) to.putSizedText(from.names[i]!);
      break;
    default:
      to.putU32(data.length);
      to.putBytes(data);
  }
}
