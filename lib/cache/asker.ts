// Asker: has the daemon of a cache bring blobs of a mount's snapshots to this node, as a gofer's asks do, but async and many at a
// time: for what is wanted before anyone reads it. docs/protocol/mailbox.md. Control plane.

import net from "node:net";
import { Errno, errnoName } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { PARKED_MAX } from "../base/limits.ts";
import {
  type AnswerFields,
  decodeAnswer,
  encodeAskBlob,
  encodeAskBlocks,
  encodeHello,
  FRAME_BYTES,
  Frame,
  frameBytes,
  frameId,
  frameType,
  REQUEST_MAX_BYTES,
  welcomeErrno,
} from "./mailbox-wire.ts";
import { openSocketName } from "./socket-name.ts";

interface Open {
  readonly resolve: (errno: number) => void;
}

/** One connection. Its asks are bounded by the caller: PARKED_MAX at most. */
export class Asker {
  readonly #cache: string;
  readonly #socket: net.Socket;
  readonly #open = new Map<number, Open>();
  readonly #answer: AnswerFields = { errno: 0, state: 0, name: "" };
  #in: Buffer = Buffer.alloc(0);
  #nextId = 1;
  #end: BurrowError | undefined;
  #welcome: ((errno: number) => void) | undefined;

  private constructor(cache: string, socket: net.Socket) {
    this.#cache = cache;
    this.#socket = socket;
    socket.on("data", (bytes) => this.#receive(bytes));
    socket.on("error", (error) => this.#fail("was lost", error));
    socket.on("close", () => this.#fail("closed the connection"));
  }

  /** Connects to the daemon, which must run, and names a mount. A process that has nothing else to do ends unless `isAwaited`. BURROW_DAEMON. */
  static async open(cache: string, mountId: string, isAwaited = true): Promise<Asker> {
    const address = openSocketName(cache);
    const socket = net.connect(address.name);
    if (!isAwaited) socket.unref();
    const asker = new Asker(cache, socket);
    try {
      const errno = await new Promise<number>((resolve) => {
        asker.#welcome = resolve;
        asker.#send((out) => encodeHello(out, 0, mountId));
      });
      if (errno !== 0) asker.#fail(`refused the mount ${mountId}: ${errnoName(errno)}`);
      if (asker.#end !== undefined) throw asker.#end;
      return asker;
    } catch (error) {
      asker.close();
      throw error;
    } finally {
      address.close();
    }
  }

  /** Tells the daemon that a mount's start is near: what it knows of such starts is on its way from then on. Waits for nothing, fails unheard. */
  static announce(cache: string, mountId: string): void {
    const asking = Asker.open(cache, mountId, false);
    asking.then(
      (asker) => asker.close(),
      () => undefined,
    );
  }

  /** Has a blob whole on this node: 0 or an errno. Rejects when the daemon is gone. */
  blob(snapshot: number, row: number): Promise<number> {
    return this.#ask((out, id) => encodeAskBlob(out, id, snapshot, row));
  }

  /** Has some blocks of a large blob on this node: 0 or an errno. */
  blocks(snapshot: number, row: number, first: number, count: number): Promise<number> {
    return this.#ask((out, id) => encodeAskBlocks(out, id, { snapshot, row, first, count }));
  }

  close(): void {
    this.#socket.destroy();
  }

  #ask(encode: (out: Buffer, id: number) => number): Promise<number> {
    return new Promise((resolve, reject) => {
      if (this.#end !== undefined) return reject(this.#end);
      if (this.#open.size >= PARKED_MAX) return resolve(Errno.ENOBUFS);
      const id = this.#nextId++;
      this.#open.set(id, {
        resolve: (errno) => (errno < 0 ? reject(this.#end) : resolve(errno)),
      });
      this.#send((out) => encode(out, id));
    });
  }

  #send(encode: (out: Buffer) => number): void {
    const out = Buffer.alloc(REQUEST_MAX_BYTES);
    this.#socket.write(out.subarray(0, encode(out)));
  }

  #receive(bytes: Buffer): void {
    this.#in = Buffer.concat([this.#in, bytes]);
    let start = 0;
    for (;;) {
      const length = frameBytes(this.#in, start, this.#in.length);
      if (length === 0) break;
      if (length < 0 || !this.#take(start, length)) {
        this.#fail("sent a frame that can't be");
        return;
      }
      start += length;
    }
    this.#in = this.#in.subarray(start);
  }

  #take(start: number, length: number): boolean {
    const type = frameType(this.#in, start);
    if (type === Frame.welcome && length >= FRAME_BYTES + 4) {
      // Its length is that of the frame; welcomeErrno wants it whole.
      this.#welcome?.(welcomeErrno(this.#in, start, length));
      this.#welcome = undefined;
      return true;
    }
    if (type !== Frame.answer) return false;
    if (decodeAnswer(this.#in, start, length, this.#answer) < 0) return false;
    const id = frameId(this.#in, start);
    const open = this.#open.get(id);
    this.#open.delete(id);
    open?.resolve(this.#answer.errno);
    return open !== undefined;
  }

  #fail(what: string, cause?: unknown): void {
    this.#end ??= new BurrowError("BURROW_DAEMON", `the daemon ${what}`, {
      cause,
      class: "transient",
      context: { cache: this.#cache },
    });
    this.#socket.destroy();
    this.#welcome?.(0);
    this.#welcome = undefined;
    for (const open of this.#open.values()) open.resolve(-1);
    this.#open.clear();
  }
}
