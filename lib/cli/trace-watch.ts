// TraceWatch: hears from the daemon what it does for a view while a sandbox starts (docs/protocol/mailbox.md, TRACE). A daemon of an
// earlier build, or another user's, doesn't say: then a trace is without. Control plane.

import net from "node:net";
import {
  encodeBare,
  encodeHello,
  FRAME_BYTES,
  Frame,
  frameBytes,
  frameType,
  REQUEST_MAX_BYTES,
} from "../cache/mailbox-wire.ts";
import { openSocketName } from "../cache/socket-name.ts";
import type { TraceEvent } from "../daemon/tracing.ts";

/** How long the daemon may take to begin, and to tell what is left. */
const REPLY_MS = 5_000;

interface Told {
  readonly origins?: readonly string[];
  readonly events?: readonly TraceEvent[];
  readonly dropped?: number;
}

export class TraceWatch {
  readonly events: TraceEvent[] = [];
  origins: readonly string[] = [];
  /** Events that the daemon did not tell; undefined until it has told the rest. */
  dropped: number | undefined;
  readonly #socket: net.Socket;
  #in: Buffer = Buffer.alloc(0);
  #heard: () => void = () => undefined;

  private constructor(socket: net.Socket) {
    this.#socket = socket;
    socket.on("data", (bytes) => this.#receive(bytes));
    socket.on("error", () => socket.destroy());
    socket.on("close", () => this.#heard());
  }

  /** Begins to hear of a mount; without a daemon that says, of nothing. */
  static async open(cache: string, mountId: string): Promise<TraceWatch> {
    const { name, close } = openSocketName(cache);
    const socket = net.connect(name).once("connect", close).once("close", close);
    const watch = new TraceWatch(socket);
    const hello = Buffer.alloc(REQUEST_MAX_BYTES);
    socket.write(hello.subarray(0, encodeHello(hello, 0, mountId)));
    await watch.#ask(() => watch.origins.length > 0);
    return watch;
  }

  /** Whether the daemon tells. */
  get isHeard(): boolean {
    return this.origins.length > 0;
  }

  /** Has all that was done heard of. */
  async end(): Promise<void> {
    if (this.isHeard) await this.#ask(() => this.dropped !== undefined);
    this.#socket.destroy();
  }

  close(): void {
    this.#socket.destroy();
  }

  /** Asks to begin or to end, and waits until that was said, the connection ends, or it takes too long. */
  #ask(isSaid: () => boolean): Promise<void> {
    const frame = Buffer.alloc(FRAME_BYTES);
    this.#socket.write(frame.subarray(0, encodeBare(frame, Frame.trace, 1)));
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, REPLY_MS);
      this.#heard = () => {
        if (!isSaid() && !this.#socket.destroyed) return;
        clearTimeout(timer);
        resolve();
      };
      this.#heard();
    });
  }

  #receive(bytes: Buffer): void {
    this.#in = Buffer.concat([this.#in, bytes]);
    for (;;) {
      const length = frameBytes(this.#in, 0, this.#in.length);
      if (length === 0) return;
      if (length < 0) {
        this.#socket.destroy();
        return;
      }
      if (frameType(this.#in, 0) === Frame.traced) this.#take(FRAME_BYTES, length);
      this.#in = this.#in.subarray(length);
    }
  }

  #take(start: number, end: number): void {
    const told = JSON.parse(this.#in.toString("utf8", start, end)) as Told;
    this.origins = told.origins ?? this.origins;
    this.events.push(...(told.events ?? []));
    this.dropped = told.dropped ?? this.dropped;
    this.#heard();
  }
}
