// NinepClient: a 9P client of our own over one end of a socket: requests by their fields, replies by tag, raw bytes where a test wants
// them. It never blocks: `pump` gives the server its turn while a reply is awaited. Tests and benches only.

import { setTimeout as sleep } from "node:timers/promises";
import { Errno } from "../../lib/base/errno.ts";
import { native } from "../../lib/sys/native.ts";
import { Cursor } from "../../lib/wire/cursor.ts";
import { encodeMessage } from "../../lib/wire/ninep/encode.ts";
import { Request } from "../../lib/wire/ninep/message.ts";
import { HEADER_BYTES, NOFID, NOTAG, RLERROR, Type, VERSION } from "../../lib/wire/ninep/type.ts";

export interface Reply {
  readonly type: number;
  readonly tag: number;
  /** Positive; 0 when it is no Rlerror. */
  readonly errno: number;
  /** Behind the header. */
  readonly body: Buffer;
}

export type Fields = Partial<Omit<Request, "names">> & {
  readonly names?: readonly string[];
  /** Of Twrite. */
  readonly data?: Uint8Array;
};

export interface Dirent {
  readonly path: bigint;
  readonly offset: number;
  readonly type: number;
  readonly name: string;
}

export class NinepClient {
  /** Gives the server its turn; without one it is another process, and time passes. */
  pump: (() => void) | undefined;
  readonly fd: number;
  msize = 8192;
  /** Rversion came: later tags count up from 1. */
  #tag = 0;
  #fid = 100;
  #in = Buffer.alloc(0);
  readonly #out = Buffer.alloc(2 << 20);
  readonly #chunk = Buffer.alloc(2 << 20);
  readonly #replies = new Map<number, Reply[]>();
  isClosed = false;

  /** Takes a connected socket. */
  constructor(fd: number, pump?: () => void) {
    native.setNonblock(fd);
    this.fd = fd;
    this.pump = pump;
  }

  nextTag(): number {
    this.#tag = this.#tag >= 0xfff0 ? 1 : this.#tag + 1;
    return this.#tag;
  }

  nextFid(): number {
    return ++this.#fid;
  }

  /** A whole message. */
  encode(type: number, tag: number, fields: Fields = {}): Buffer {
    const request = new Request();
    const { names, data, ...rest } = fields;
    Object.assign(request, rest);
    if (names !== undefined) {
      request.nameCount = names.length;
      for (const [i, name] of names.entries()) request.names[i] = name;
    }
    const bytes = encodeMessage(type, tag, request, new Cursor(this.#out), data);
    return Buffer.from(this.#out.subarray(0, bytes));
  }

  /** Sends bytes as they are: false when the server takes no more now. */
  sendRaw(bytes: Uint8Array): boolean {
    for (let done = 0; done < bytes.length; ) {
      const sent = native.sendMessage(this.fd, bytes.subarray(done), new Int32Array(1), 0);
      if (sent > 0) done += sent;
      else if (sent !== -Errno.EAGAIN) return false;
      else if (this.pump === undefined) return false;
      else this.pump();
    }
    return true;
  }

  /** Sends a request and doesn't wait: its tag. */
  send(
    type: number,
    fields: Fields = {},
    tag = type === Type.version ? NOTAG : this.nextTag(),
  ): number {
    this.sendRaw(this.encode(type, tag, fields));
    return tag;
  }

  /** Takes what has come; false when the server has hung up. */
  receive(): boolean {
    for (;;) {
      const got = native.readFd(this.fd, this.#chunk);
      if (got === -Errno.EAGAIN) break;
      if (got <= 0) {
        this.isClosed = true;
        break;
      }
      this.#in = Buffer.concat([this.#in, this.#chunk.subarray(0, got)]);
    }
    while (this.#in.length >= HEADER_BYTES) {
      const bytes = this.#in.readUInt32LE(0);
      if (this.#in.length < bytes) break;
      const type = this.#in[4]!;
      const tag = this.#in.readUInt16LE(5);
      const body = Buffer.from(this.#in.subarray(HEADER_BYTES, bytes));
      const errno = type === RLERROR ? body.readUInt32LE(0) : 0;
      const others = this.#replies.get(tag) ?? [];
      others.push({ type, tag, errno, body });
      this.#replies.set(tag, others);
      this.#in = Buffer.from(this.#in.subarray(bytes));
    }
    return !this.isClosed;
  }

  /** The reply of a tag if it is here. */
  take(tag: number): Reply | undefined {
    this.receive();
    const replies = this.#replies.get(tag);
    const reply = replies?.shift();
    if (replies?.length === 0) this.#replies.delete(tag);
    return reply;
  }

  /** Whether the reply of a tag is here. */
  has(tag: number): boolean {
    this.receive();
    return this.#replies.has(tag);
  }

  /** Replies that were not taken. */
  get untaken(): number {
    return [...this.#replies.values()].reduce((sum, all) => sum + all.length, 0);
  }

  /** Waits for the reply of a tag, with the server in this process. Throws when it hangs up or says nothing. */
  await(tag: number): Reply {
    for (let i = 0; i < 10_000; i++) {
      const reply = this.take(tag);
      if (reply !== undefined) return reply;
      if (this.isClosed) throw new Error(`the server hung up before it answered tag ${tag}`);
      this.pump!();
    }
    throw new Error(`no answer to tag ${tag}`);
  }

  /** As await, of a server that is another process. */
  async later(tag: number): Promise<Reply> {
    for (const end = performance.now() + 20_000; performance.now() < end; await sleep(1)) {
      const reply = this.take(tag);
      if (reply !== undefined) return reply;
      if (this.isClosed) throw new Error(`the server hung up before it answered tag ${tag}`);
    }
    throw new Error(`no answer to tag ${tag}`);
  }

  call(type: number, fields: Fields = {}): Reply {
    return this.await(this.send(type, fields));
  }

  /** Negotiates: Rversion's version. */
  version(msize = 65_536, version: string = VERSION): string {
    const { body, errno } = this.call(Type.version, { count: msize, name: version });
    if (errno !== 0) return `errno ${errno}`;
    this.msize = body.readUInt32LE(0);
    return body.toString("latin1", 6);
  }

  attach(aname = "", uid = 0, fid = this.nextFid()): number {
    const fields = { fid, otherFid: NOFID, name: "root", otherName: aname, uid };
    const { errno } = this.call(Type.attach, fields);
    return errno === 0 ? fid : -errno;
  }

  /** A new fid at a path, or -errno; -ENOENT, too, when the walk stopped on its way. */
  walk(from: number, path: string): number {
    const names = path.split("/").filter((name) => name !== "");
    const fid = this.nextFid();
    const { errno, body } = this.call(Type.walk, { fid: from, otherFid: fid, names });
    if (errno !== 0) return -errno;
    return body.readUInt16LE(0) === names.length ? fid : -Errno.ENOENT;
  }

  /** A new fid, open; -errno. */
  open(from: number, path: string, flags = 0): number {
    const fid = this.walk(from, path);
    if (fid < 0) return fid;
    const { errno } = this.call(Type.lopen, { fid, flags });
    if (errno === 0) return fid;
    this.clunk(fid);
    return -errno;
  }

  /** Up to the end of an open file, from `offset` on. */
  read(fid: number, count = this.msize - 24, offset = 0): Buffer {
    const { errno, body } = this.call(Type.read, { fid, offset, count });
    if (errno !== 0) throw new Error(`read: errno ${errno}`);
    return body.subarray(4, 4 + body.readUInt32LE(0));
  }

  readAll(fid: number): Buffer {
    const parts: Buffer[] = [];
    for (let offset = 0; ; offset += parts.at(-1)!.length) {
      parts.push(this.read(fid, this.msize - 24, offset));
      if (parts.at(-1)!.length === 0) return Buffer.concat(parts);
    }
  }

  write(fid: number, data: Uint8Array, offset = 0): number {
    const { errno, body } = this.call(Type.write, { fid, offset, data });
    return errno === 0 ? body.readUInt32LE(0) : -errno;
  }

  readdir(fid: number, offset: number, count = this.msize - 24): Dirent[] | number {
    const { errno, body } = this.call(Type.readdir, { fid, offset, count });
    return errno === 0 ? direntsOf(body) : -errno;
  }

  /** All names of an open directory, in order. */
  list(fid: number, count?: number): string[] {
    const names: string[] = [];
    for (let offset = 0; ; ) {
      const some = this.readdir(fid, offset, count);
      if (typeof some === "number") throw new Error(`readdir: ${some}`);
      if (some.length === 0) return names;
      names.push(...some.map(({ name }) => name));
      offset = some.at(-1)!.offset;
    }
  }

  getattr(fid: number): Attributes {
    const { errno, body } = this.call(Type.getattr, { fid, mask: 0x7ff });
    if (errno !== 0) throw new Error(`getattr: errno ${errno}`);
    return attributesOf(body);
  }

  clunk(fid: number): number {
    return -this.call(Type.clunk, { fid }).errno;
  }

  close(): void {
    if (!this.isClosed) native.closeFd(this.fd);
    this.isClosed = true;
  }
}

export interface Attributes {
  readonly valid: bigint;
  readonly qid: { readonly type: number; readonly version: number; readonly path: bigint };
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly nlink: number;
  readonly size: number;
  readonly mtimeSec: number;
  readonly mtimeNs: number;
}

/** Rgetattr's body. */
export function attributesOf(body: Buffer): Attributes {
  const long = (at: number) => Number(body.readBigUInt64LE(at));
  return {
    valid: body.readBigUInt64LE(0),
    qid: qidAt(body, 8),
    mode: body.readUInt32LE(21),
    uid: body.readUInt32LE(25),
    gid: body.readUInt32LE(29),
    nlink: long(33),
    size: long(49),
    mtimeSec: Number(body.readBigInt64LE(89)),
    mtimeNs: long(97),
  };
}

export function qidAt(body: Buffer, at: number) {
  return {
    type: body[at]!,
    version: body.readUInt32LE(at + 1),
    path: body.readBigUInt64LE(at + 5),
  };
}

function direntsOf(body: Buffer): Dirent[] {
  const end = 4 + body.readUInt32LE(0);
  const found: Dirent[] = [];
  for (let at = 4; at < end; ) {
    const length = body.readUInt16LE(at + 22);
    found.push({
      path: qidAt(body, at).path,
      offset: Number(body.readBigUInt64LE(at + 13)),
      type: body[at + 21]!,
      name: body.toString("latin1", at + 24, at + 24 + length),
    });
    at += 24 + length;
  }
  return found;
}
