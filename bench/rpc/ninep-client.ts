// As little of a 9P2000.L client as benches need: blocking, one request at a time, of any server behind a stream socket. It shares no code
// with ours, so that both servers are asked alike.
// 9P2000.L: diod protocol.md; sizes and numbers are little-endian, a message begins with its length, type and tag.

import { native } from "../../lib/sys/native.ts";

const T = {
  lopen: 12,
  lcreate: 14,
  getattr: 24,
  readdir: 40,
  version: 100,
  attach: 104,
  walk: 110,
  read: 116,
  write: 118,
  clunk: 120,
  remove: 122,
} as const;
const RLERROR = 7;
const NO_FID = 0xffff_ffff;
const NO_TAG = 0xffff;
const HEADER_BYTES = 7;
/** What a server may want to have left of a message beside data. Linux: fs/9p, P9_IOHDRSZ. */
const IO_HEADER_BYTES = 24;
const DIRENT_BYTES = 24;
const ROOT = 0;
const GETATTR_BASIC = 0x7ffn;
export const O_WRONLY = 1;

export class BenchClient {
  readonly #fd: number;
  readonly #out: Buffer;
  readonly #in: Buffer;
  /** Bytes of a message at most, as the server granted. */
  readonly msize: number;

  /** Attaches to `aname` over a socket that blocks; it is the client's. */
  constructor(fd: number, aname: string, msize: number) {
    this.#fd = fd;
    this.#out = Buffer.alloc(msize);
    this.#in = Buffer.alloc(msize);
    this.#call(T.version, u32(msize), text("9P2000.L"));
    this.msize = this.#in.readUInt32LE(HEADER_BYTES);
    this.#call(T.attach, u32(ROOT), u32(NO_FID), text("root"), text(aname), u32(0));
  }

  /** Bytes of data that one message brings at most. */
  get dataMax(): number {
    return this.msize - IO_HEADER_BYTES;
  }

  /** From the root to a fid of the caller's. */
  walk(fid: number, ...names: string[]): void {
    this.#call(T.walk, u32(ROOT), u32(fid), u16(names.length), ...names.map(text));
  }

  open(fid: number, flags = 0): void {
    this.#call(T.lopen, u32(fid), u32(flags));
  }

  /** A new file in the directory of the fid, which becomes the file's. */
  create(fid: number, name: string): void {
    this.#call(T.lcreate, u32(fid), text(name), u32(O_WRONLY), u32(0o644), u32(0));
  }

  /** Removes the file of a fid, and the fid. diod 1.0.24 has no Tunlinkat. */
  remove(fid: number): void {
    this.#call(T.remove, u32(fid));
  }

  /** Bytes of a file, as its attributes say. */
  size(fid: number): number {
    this.#call(T.getattr, u32(fid), u64(GETATTR_BASIC));
    return Number(this.#in.readBigUInt64LE(HEADER_BYTES + 49));
  }

  /** Reads `count` bytes of a file, no more than dataMax. */
  read(fid: number, offset: number, count: number): void {
    this.#call(T.read, u32(fid), u64(BigInt(offset)), u32(count));
    const got = this.#in.readUInt32LE(HEADER_BYTES);
    if (got !== count) throw new Error(`${got} bytes came, not ${count}`);
  }

  /** Writes as much as one message takes at most. */
  write(fid: number, offset: number, bytes: Uint8Array): void {
    this.#call(T.write, u32(fid), u64(BigInt(offset)), u32(bytes.length), bytes);
    const wrote = this.#in.readUInt32LE(HEADER_BYTES);
    if (wrote !== bytes.length) throw new Error(`${wrote} bytes were taken, not ${bytes.length}`);
  }

  /** How many names an open directory has, "." and ".." among them. */
  list(fid: number): number {
    let count = 0;
    for (let offset = 0n; ; ) {
      this.#call(T.readdir, u32(fid), u64(offset), u32(this.dataMax));
      const end = HEADER_BYTES + 4 + this.#in.readUInt32LE(HEADER_BYTES);
      let at = HEADER_BYTES + 4;
      if (at === end) return count;
      for (; at < end; at += DIRENT_BYTES + this.#in.readUInt16LE(at + 22)) {
        offset = this.#in.readBigUInt64LE(at + 13);
        count++;
      }
    }
  }

  clunk(fid: number): void {
    this.#call(T.clunk, u32(fid));
  }

  close(): void {
    native.closeFd(this.#fd);
  }

  #call(type: number, ...fields: readonly Uint8Array[]): void {
    let end = HEADER_BYTES;
    for (const field of fields) {
      this.#out.set(field, end);
      end += field.length;
    }
    this.#out.writeUInt32LE(end, 0);
    this.#out.writeUInt8(type, 4);
    this.#out.writeUInt16LE(type === T.version ? NO_TAG : 1, 5);
    for (let sent = 0; sent < end; ) {
      const wrote = native.writeFd(this.#fd, this.#out.subarray(sent, end));
      if (wrote <= 0) throw new Error(`the server hung up: ${wrote}`);
      sent += wrote;
    }
    let have = 0;
    for (let want = HEADER_BYTES; have < want; ) {
      const got = native.readFd(this.#fd, this.#in.subarray(have));
      if (got <= 0) throw new Error(`the server hung up: ${got}`);
      have += got;
      if (have >= HEADER_BYTES) want = this.#in.readUInt32LE(0);
    }
    const answer = this.#in.readUInt8(4);
    if (answer === RLERROR) throw new Error(`errno ${this.#in.readUInt32LE(HEADER_BYTES)}`);
    if (answer !== type + 1) throw new Error(`${answer} is no answer to ${type}`);
  }
}

function u16(value: number): Buffer {
  const out = Buffer.alloc(2);
  out.writeUInt16LE(value);
  return out;
}

function u32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32LE(value);
  return out;
}

function u64(value: bigint): Buffer {
  const out = Buffer.alloc(8);
  out.writeBigUInt64LE(value);
  return out;
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([u16(bytes.length), bytes]);
}
