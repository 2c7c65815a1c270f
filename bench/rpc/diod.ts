// A peer of the pread bench: diod, which serves a directory by 9P2000.L on a unix stream socket, and as little of a client as it takes to read a
// file of it: blocking, one request at a time, as ours is.
// 9P2000.L: diod protocol.md; sizes and numbers are little-endian, a message begins with its length, type and tag.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { native } from "../../lib/sys/native.ts";
import type { Ends } from "./ends.ts";

const T = { version: 100, attach: 104, walk: 110, lopen: 12, read: 116 } as const;
const SOCK_STREAM = 1;
const RLERROR = 7;
const NO_FID = 0xffff_ffff;
const HEADER_BYTES = 7;
/** What a server may want to have left of a message beside data. Linux: fs/9p, P9_IOHDRSZ. */
const IO_HEADER_BYTES = 24;
const MSIZE = 1024 * 1024 + IO_HEADER_BYTES;

/** Where fixtures/diod.sh puts it, with the libraries that it needs. */
function diodOf(fixtures: string | undefined): { program: string; libraries: string } | undefined {
  const root = `${fixtures ?? ""}/diod/root`;
  const program = `${root}/usr/sbin/diod`;
  if (fixtures === undefined || !existsSync(program)) return undefined;
  const folders = [`${root}/usr/lib/x86_64-linux-gnu`, `${root}/lib/x86_64-linux-gnu`];
  return { program, libraries: folders.join(":") };
}

export class NinepClient {
  readonly #fd: number;
  readonly #out = Buffer.alloc(4096);
  readonly #in = Buffer.alloc(MSIZE);
  /** Bytes of a message at most, as the server granted. */
  msize = 0;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Opens `name` of the directory that is exported as `root`, as fid 1, over a socket that blocks; it is the client's. */
  static open(fd: number, root: string, name: string): NinepClient {
    const client = new NinepClient(fd);
    client.#call(T.version, u32(MSIZE), text("9P2000.L"));
    client.msize = client.#in.readUInt32LE(HEADER_BYTES);
    client.#call(T.attach, u32(0), u32(NO_FID), text(""), text(root), u32(0));
    client.#call(T.walk, u32(0), u32(1), u16(1), text(name));
    client.#call(T.lopen, u32(1), u32(0));
    return client;
  }

  /** Bytes that one read brings at most. */
  get readMax(): number {
    return this.msize - IO_HEADER_BYTES;
  }

  /** Reads `count` bytes of the file, no more than readMax. */
  read(offset: number, count: number): void {
    const at = Buffer.alloc(8);
    at.writeBigUInt64LE(BigInt(offset));
    this.#call(T.read, u32(1), at, u32(count));
    const got = this.#in.readUInt32LE(HEADER_BYTES);
    if (got !== count) throw new Error(`diod sent ${got} bytes, not ${count}`);
  }

  close(): void {
    native.closeFd(this.#fd);
  }

  #call(type: number, ...fields: readonly Buffer[]): void {
    let end = HEADER_BYTES;
    for (const field of fields) end += field.copy(this.#out, end);
    this.#out.writeUInt32LE(end, 0);
    this.#out.writeUInt8(type, 4);
    // A version has no tag. man: NOTAG.
    this.#out.writeUInt16LE(type === T.version ? 0xffff : 1, 5);
    if (native.writeFd(this.#fd, this.#out.subarray(0, end)) !== end) throw new Error("no write");
    let have = 0;
    for (let want = HEADER_BYTES; have < want; ) {
      const got = native.readFd(this.#fd, this.#in.subarray(have));
      if (got <= 0) throw new Error(`diod hung up: ${got}`);
      have += got;
      if (have >= HEADER_BYTES) want = this.#in.readUInt32LE(0);
    }
    const answer = this.#in.readUInt8(4);
    if (answer === RLERROR) throw new Error(`diod: errno ${this.#in.readUInt32LE(HEADER_BYTES)}`);
    if (answer !== type + 1) throw new Error(`diod answered ${answer} to ${type}`);
  }
}

/** A client of a diod that serves `root`; or why there is none. */
export function startDiod(ends: Ends, root: string, name: string): NinepClient | string {
  const found = diodOf(process.env["BURROW_FIXTURES"]);
  if (found === undefined) return "fixtures/diod.sh DIR gets diod; BURROW_FIXTURES=DIR";
  const pair = new Int32Array(2);
  if (native.socketPair(SOCK_STREAM, pair) < 0) return "no socket";
  const [mine, theirs] = pair as unknown as [number, number];
  const words = ["-f", "-n", "-N", "-c", "/dev/null", "-e", root];
  const child = spawn(found.program, [...words, "-r", "3", "-w", "3"], {
    env: { ...process.env, LD_LIBRARY_PATH: found.libraries },
    stdio: ["ignore", "ignore", "ignore", theirs],
  });
  ends.teardown(() => void child.kill("SIGKILL"));
  native.closeFd(theirs);
  const client = NinepClient.open(mine, root, name);
  ends.teardown(() => client.close());
  return client;
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

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([u16(bytes.length), bytes]);
}
