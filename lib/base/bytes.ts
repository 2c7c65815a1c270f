// 64-bit integers as JavaScript numbers: two u32 halves (7.6 ns; BigInt 18.5). Any plane.
// A value past 2^53-1 can't be held: readers return -1 for it and the caller answers EINVAL.
// A high half of 0 is passed by: multiplied, it would make a heap number of the result and of all that is computed from it,
// which code that isn't optimized yet pays for at every step (docs/design/0003-server-start.md).

const TWO_32 = 0x1_0000_0000;
/** Largest high half of a u64 that is still a safe integer. */
const MAX_HIGH = 0x1f_ffff;

/** A u64 at offset, or -1 when it is past 2^53-1. */
export function getU64(view: DataView, offset: number): number {
  const low = view.getUint32(offset, true);
  const high = view.getUint32(offset + 4, true);
  if (high === 0) return low;
  return high > MAX_HIGH ? -1 : high * TWO_32 + low;
}

/** A signed 64-bit integer at offset, exact within ±2^53; saturates outside it. */
export function getI64(view: DataView, offset: number): number {
  const low = view.getUint32(offset, true);
  const high = view.getInt32(offset + 4, true);
  if (high === 0) return low;
  if (high > MAX_HIGH) return Number.MAX_SAFE_INTEGER;
  if (high < -MAX_HIGH - 1) return -Number.MAX_SAFE_INTEGER;
  return high * TWO_32 + low;
}

/** Writes a safe integer >= 0 as u64. */
export function setU64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value >>> 0, true);
  view.setUint32(offset + 4, value >= 0 && value < TWO_32 ? 0 : Math.floor(value / TWO_32), true);
}

/** Writes a safe integer of either sign as i64. */
export function setI64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value >>> 0, true);
  view.setInt32(offset + 4, Math.floor(value / TWO_32), true);
}

/** A DataView over exactly the bytes of a Uint8Array or Buffer. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The smallest multiple of `step` (a power of two) that is >= value. */
export function roundUp(value: number, step: number): number {
  return Math.ceil(value / step) * step;
}

interface Latin1Buffer {
  latin1Slice(start: number, end: number): string;
}

/** Bytes start to end of a Buffer as latin1: Buffer.toString without its option handling. */
export function latin1At(buffer: Buffer, start: number, end: number): string {
  return (buffer as unknown as Latin1Buffer).latin1Slice(start, end);
}
