// The caller of a rehearsal: a thread that asks what a sandbox asks while Python imports packages. Control plane.

import { isMainThread, workerData } from "node:worker_threads";
import { assert } from "../base/assert.ts";
import { CHANNEL_WINDOW_BYTES } from "../base/limits.ts";
import { native } from "../sys/native.ts";
import { Cursor } from "../wire/cursor.ts";
import { encodeRequest } from "../wire/lisafs/encode.ts";
import { Request } from "../wire/lisafs/message.ts";
import { Mid } from "../wire/lisafs/mid.ts";
import type { Part } from "./rehearsal.ts";

/** What the import system asks for before it finds a module. */
const SUFFIXES = [".cpython-311-x86_64-linux-gnu.so", ".abi3.so", ".so", ".py"];

/** lisafs-wire section 2: {u32 length, u16 MID, u16 FDs} on a socket; a window's header and {u16 MID, u8 FDs, u8} on a channel. */
const SOCKET_HEADER_BYTES = 8;
const WINDOW_HEADER_BYTES = 16;
const CHANNEL_HEADER_BYTES = 4;
/** Walk's reply before its first inode: u8 status, u16 count. */
const WALK_HEADER_BYTES = 3;
const MESSAGE_BYTES = 64 * 1024;
const FDS_MAX = 2;
const O_RDONLY = 0;

type Fields = Partial<Request>;

/** One mount's connection: Mount and Channel over its socket, all else over the channel. */
class Connection {
  count = 0;
  readonly root: number;
  readonly #socket: number;
  readonly #window: Uint8Array;
  readonly #fdSocket: number;
  readonly #cursor: Cursor;
  readonly #fds = new Int32Array(1 + FDS_MAX);

  constructor(socket: number) {
    this.#socket = socket;
    this.root = this.#overSocket(Mid.Mount).getUint32(0, true);
    const offset = Number(this.#overSocket(Mid.Channel).getBigUint64(0, true));
    const [memory, fdSocket] = [this.#fds[1]!, this.#fds[2]!];
    const mapped = native.map(memory, offset, CHANNEL_WINDOW_BYTES, true);
    assert(typeof mapped !== "number" && this.#fds[0] === FDS_MAX, "the channel is given");
    native.closeFd(memory);
    this.#window = new Uint8Array(mapped);
    this.#fdSocket = fdSocket;
    this.#cursor = new Cursor(this.#window);
    this.#window.set(Buffer.from("{}\n"), WINDOW_HEADER_BYTES);
    native.channelCall(this.#window, 3, -1);
  }

  /** A message without payload over the socket: its reply's payload, which came in one piece; its FDs in #fds. */
  #overSocket(mid: number): DataView {
    const header = Buffer.alloc(SOCKET_HEADER_BYTES);
    header.writeUInt16LE(mid, 4);
    native.sendMessage(this.#socket, header, this.#fds, 0);
    const reply = Buffer.alloc(MESSAGE_BYTES);
    for (
      let got = 0;
      got < SOCKET_HEADER_BYTES || got < SOCKET_HEADER_BYTES + reply.readUInt32LE(0);
    ) {
      const fds = got === 0 ? this.#fds : new Int32Array(1);
      const more = native.receiveMessage(this.#socket, reply.subarray(got), fds, 0);
      assert(more > 0, "the socket is answered");
      got += more;
    }
    return new DataView(reply.buffer, reply.byteOffset + SOCKET_HEADER_BYTES);
  }

  /** Over the channel: the u64 at `skip` in the reply. */
  call(mid: number, fields: Fields, skip = 0): number {
    const start = WINDOW_HEADER_BYTES + CHANNEL_HEADER_BYTES;
    const cursor = this.#cursor.seek(start, this.#window.length);
    encodeRequest(mid, Object.assign(new Request(), fields), cursor);
    const bytes = CHANNEL_HEADER_BYTES + cursor.offset - start;
    cursor.seek(WINDOW_HEADER_BYTES, start).putU16(mid);
    cursor.putU16(0);
    const got = native.channelCall(this.#window, bytes, -1);
    this.count++;
    for (let fds = this.#window[WINDOW_HEADER_BYTES + 2]!; got > 0 && fds > 0; fds--) {
      native.receiveMessage(this.#fdSocket, new Uint8Array(1), this.#fds, 0);
      native.closeFd(this.#fds[1]!);
    }
    return cursor.seek(start + skip, this.#window.length).u64();
  }

  walk(fd: number, name: string): number {
    return this.call(Mid.Walk, { fd, names: [name], nameCount: 1 }, WALK_HEADER_BYTES);
  }

  /** A path as a sandbox looks at one that it doesn't know: its attributes at once, without FDs. */
  stat(names: readonly string[]): void {
    this.call(Mid.WalkStat, { fd: this.root, names: ["", ...names], nameCount: 1 + names.length });
  }

  open(fd: number): number {
    const opened = this.call(Mid.OpenAt, { fd, flags: O_RDONLY });
    const isOpen = this.#cursor.seek(WINDOW_HEADER_BYTES, this.#window.length).u16() === Mid.OpenAt;
    assert(isOpen, "what the rehearsal needs is there");
    return opened;
  }

  close(...fds: number[]): void {
    this.call(Mid.Close, { fds, fdCount: fds.length });
  }

  /** The socket is the part's. */
  end(): void {
    native.closeFd(this.#fdSocket);
    native.unmap(this.#window.buffer);
  }
}

/** Imports a package: its folder, each module by every name that it could have, its bytes. */
function importPackage(view: Connection, directory: number, number: number, modules: number): void {
  const folder = view.walk(directory, `package${number}`);
  view.call(Mid.FStat, { fd: folder });
  const listed = view.open(folder);
  view.call(Mid.Getdents64, { fd: listed, count: -4096 });
  for (let m = 0; m < modules; m++) {
    let file = 0;
    for (const suffix of SUFFIXES) file = view.walk(folder, `module${m}${suffix}`);
    view.close(view.open(file), file);
  }
  const link = view.walk(folder, "link");
  view.call(Mid.ReadLinkAt, { fd: link });
  view.close(link, listed, folder);
}

/** What is asked now and then: of other kinds of files, and what is refused. */
function askOther(view: Connection, root: number, prefix: readonly string[]): void {
  const names = [...prefix, "package0", "empty"];
  view.call(Mid.Walk, { fd: root, names, nameCount: names.length });
  const empty = names.reduce((fd, name) => view.walk(fd, name), root);
  const opened = view.open(empty);
  view.call(Mid.PRead, { fd: opened, offset: 0, count: 16 });
  view.call(Mid.FGetXattr, { fd: empty, name: "security.capability", count: 64 });
  view.call(Mid.FListXattr, { fd: empty, count: 0 });
  view.call(Mid.FStatFS, { fd: root });
  view.call(Mid.FSync, { fds: [opened], fdCount: 1 });
  view.call(Mid.ReadLinkAt, { fd: empty });
  view.walk(root, "..");
  const beyond = [...prefix, "package0", "link", "beyond"];
  view.call(Mid.Walk, { fd: root, names: beyond, nameCount: beyond.length });
  const library = [...prefix, "library.so"].reduce((fd, name) => view.walk(fd, name), root);
  const mapped = view.open(library);
  view.close(opened, empty, mapped, library);
}

function play({ sockets, requests, prefix, packages, modules }: Part): void {
  const [view, upper] = sockets.map((socket) => new Connection(socket)) as [Connection, Connection];
  for (let n = 0; view.count < requests; n++) {
    const path = [view.root];
    for (const name of prefix) path.push(view.walk(path.at(-1)!, name));
    for (const fd of path) view.call(Mid.FStat, { fd });
    view.stat(prefix);
    view.stat(["usr", "lib", "nothing"]);
    importPackage(view, path.at(-1)!, n % packages, modules);
    askOther(view, view.root, prefix);
    view.close(...path.slice(1));
    upper.stat([`temporary${n}`]);
    upper.walk(upper.root, `temporary${n}`);
    upper.call(Mid.FStat, { fd: upper.root });
  }
  view.end();
  upper.end();
}

if (!isMainThread) {
  const part = workerData as Part;
  try {
    play(part);
  } finally {
    for (const socket of part.sockets) native.closeFd(socket); // the server waits for it
  }
}
