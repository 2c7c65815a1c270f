// Cursor: one reader and writer over a buffer with a sticky overrun, checked once at the end. Positions are of our
// own making, bytes may be a hostile client's: each is read once. Data plane.

import { getI64, getU64, latin1At, setI64, setU64, viewOf } from "../base/bytes.ts";

export class Cursor {
  buffer: Buffer;
  view: DataView;
  offset = 0;
  end = 0;
  /** Something did not fit: what was read is 0 or "", what was written is incomplete. */
  hasOverrun = false;

  constructor(bytes: Uint8Array) {
    this.buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.view = viewOf(bytes);
    this.end = bytes.byteLength;
  }

  /** Continues at `offset` of the same buffer, up to `end`. */
  seek(offset: number, end: number): this {
    this.offset = offset;
    this.end = end;
    this.hasOverrun = false;
    return this;
  }

  #overrun(): number {
    this.hasOverrun = true;
    return 0;
  }

  /** Takes n bytes: their offset, or -1 past the end. */
  #take(n: number): number {
    const at = this.offset;
    if (at + n > this.end) {
      this.hasOverrun = true;
      return -1;
    }
    this.offset = at + n;
    return at;
  }

  skip(n: number): void {
    this.#take(n);
  }

  u8(): number {
    const at = this.#take(1);
    return at < 0 ? 0 : this.view.getUint8(at);
  }

  // What every request has is read without #take: a call less in code that isn't optimized yet.

  u16(): number {
    const at = this.offset;
    if (at + 2 > this.end) return this.#overrun();
    this.offset = at + 2;
    return this.view.getUint16(at, true);
  }

  u32(): number {
    const at = this.offset;
    if (at + 4 > this.end) return this.#overrun();
    this.offset = at + 4;
    return this.view.getUint32(at, true);
  }

  i32(): number {
    const at = this.#take(4);
    return at < 0 ? 0 : this.view.getInt32(at, true);
  }

  /** A u64, or -1 when it is past 2^53-1: no FDID, offset or size of ours. */
  u64(): number {
    const at = this.offset;
    if (at + 8 > this.end) return this.#overrun();
    this.offset = at + 8;
    return getU64(this.view, at);
  }

  i64(): number {
    const at = this.#take(8);
    return at < 0 ? 0 : getI64(this.view, at);
  }

  /** n bytes as latin1. */
  text(n: number): string {
    const at = this.#take(n);
    return at < 0 ? "" : latin1At(this.buffer, at, at + n);
  }

  /** LISAFS SizedString: u16 length, bytes. */
  sizedText(): string {
    const start = this.offset + 2;
    const end = start > this.end ? start : start + this.view.getUint16(start - 2, true);
    if (end > this.end) {
      this.hasOverrun = true;
      return "";
    }
    this.offset = end;
    return latin1At(this.buffer, start, end);
  }

  putU8(value: number): void {
    const at = this.#take(1);
    if (at >= 0) this.view.setUint8(at, value);
  }

  putU16(value: number): void {
    const at = this.#take(2);
    if (at >= 0) this.view.setUint16(at, value, true);
  }

  putU32(value: number): void {
    const at = this.#take(4);
    if (at >= 0) this.view.setUint32(at, value, true);
  }

  putU64(value: number): void {
    const at = this.offset;
    if (at + 8 > this.end) {
      this.hasOverrun = true;
      return;
    }
    this.offset = at + 8;
    setU64(this.view, at, value);
  }

  putI64(value: number): void {
    const at = this.#take(8);
    if (at >= 0) setI64(this.view, at, value);
  }

  putText(text: string): void {
    const at = this.#take(text.length);
    if (at >= 0) this.buffer.write(text, at, "latin1");
  }

  putSizedText(text: string): void {
    this.putU16(text.length);
    this.putText(text);
  }

  putBytes(bytes: Uint8Array): void {
    const at = this.offset;
    if (at + bytes.length > this.end) {
      this.hasOverrun = true;
      return;
    }
    this.offset = at + bytes.length;
    this.buffer.set(bytes, at);
  }
}
