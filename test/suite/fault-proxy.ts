// A proxy on loopback between a client and a web server that spoils answers as bytes of TCP, as networks, proxies and broken servers
// do: what is done to each answer comes from a seeded generator, so that a run can be made again. Test support.

import type { Socket } from "node:net";
import { Relay } from "./relay.ts";

export const KINDS = [
  "none",
  "latency", // the answer comes later
  "cut", // the connection ends in the middle
  "rst", // the same with a RST
  "stall", // in the middle nothing more comes
  "flip", // one bit of the body
  "wrong-range", // Content-Range of other bytes
  "200-for-206",
  "503", // in place of the answer
  "loris", // the body byte by byte
  "refuse", // the connection ends before the answer
] as const;
export type Kind = (typeof KINDS)[number];

/** Numbers in [0, 1) that are the same for one seed. mulberry32. */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export class FaultProxy {
  /** What was done, by kind. */
  readonly counts: Record<string, number> = {};
  /** Part of the answers that something is done to. */
  rate = 0;
  /** A storm: all that is asked for meanwhile is answered 503. */
  isStorm = false;
  readonly #relay: Relay;
  readonly #random: () => number;
  readonly #deck: Kind[] = [];

  private constructor(relay: Relay, random: () => number) {
    this.#relay = relay;
    this.#random = random;
    relay.serve((client, server) => this.#spoil(client, server));
  }

  /** Stands before the server at `url`. */
  static async start(url: string, seed: number): Promise<FaultProxy> {
    return new FaultProxy(await Relay.start(url), generator(seed));
  }

  get url(): string {
    return this.#relay.url;
  }

  async close(): Promise<void> {
    await this.#relay.close();
  }

  #spoil(client: Socket, server: Socket): void {
    client.once("close", () => server.destroy());
    server.once("close", () => client.destroy());
    // One answer at a time: a client of HTTP/1.1 asks again when it has the one before.
    let answer = new Answer("none", client, this.#random);
    client.on("data", (bytes) => {
      answer.end();
      answer = new Answer(this.#choose(), client, this.#random);
      if (!answer.refuses()) server.write(bytes);
    });
    server.on("data", (bytes) => answer.pass(bytes));
  }

  #choose(): Kind {
    const isSpoilt = this.#random() < this.rate;
    const kind = this.isStorm ? "503" : isSpoilt ? this.#deal() : "none";
    this.counts[kind] = (this.counts[kind] ?? 0) + 1;
    return kind;
  }

  /** Each kind once, in random order, then all again. */
  #deal(): Kind {
    if (this.#deck.length === 0) this.#deck.push(...KINDS.slice(1));
    return this.#deck.splice(Math.floor(this.#random() * this.#deck.length), 1)[0]!;
  }
}

const LATENCY_MS = 60;
const LORIS_MS = 100;
const BUSY = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";

/** One answer on its way to the client. */
class Answer {
  readonly #kind: Kind;
  readonly #client: Socket;
  readonly #random: () => number;
  #body = -1;
  #length = 0;
  #at = -1;
  #loris: NodeJS.Timeout | undefined;
  #later: Promise<void> = Promise.resolve();

  constructor(kind: Kind, client: Socket, random: () => number) {
    this.#kind = kind;
    this.#client = client;
    this.#random = random;
  }

  /** Whether the server isn't even asked. */
  refuses(): boolean {
    if (this.#kind === "503") this.#client.write(BUSY);
    if (this.#kind === "refuse") this.#client.destroy();
    return this.#kind === "503" || this.#kind === "refuse";
  }

  end(): void {
    clearInterval(this.#loris);
  }

  pass(bytes: Buffer): void {
    if (this.#kind === "latency") {
      const wait = new Promise<void>((resolve) => setTimeout(resolve, LATENCY_MS));
      this.#later = this.#later.then(() => wait).then(() => void this.#write(bytes));
      return;
    }
    this.#spoil(this.#body < 0 ? this.#head(bytes) : bytes);
  }

  /** Looks at the head of the answer and changes it. It comes in one piece from the server of tests. */
  #head(bytes: Buffer): Buffer {
    const end = bytes.indexOf("\r\n\r\n");
    let head = bytes.toString("latin1", 0, end + 4);
    this.#length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
    this.#at = Math.floor(this.#random() * this.#length);
    this.#body = 0;
    if (this.#kind === "200-for-206") head = head.replace("206 Partial Content", "200 OK");
    if (this.#kind === "wrong-range")
      head = head.replace(/(content-range: bytes )(\d+)/i, (_, name, at) => `${name}${+at + 1}`);
    this.#write(Buffer.from(head, "latin1"));
    return bytes.subarray(end + 4);
  }

  /** A piece of the body, up to where it is spoilt. */
  #spoil(piece: Buffer): void {
    const from = this.#body;
    this.#body += piece.length;
    const at = this.#at - from;
    const isHere = at >= 0 && at < piece.length;
    if (this.#kind === "flip" && isHere) piece[at]! ^= 1 << Math.floor(this.#random() * 8);
    const isEnding = this.#kind === "cut" || this.#kind === "rst";
    if (!isEnding && this.#kind !== "stall" && this.#kind !== "loris") {
      this.#write(piece);
      return;
    }
    if (from > this.#at) return;
    this.#write(isHere ? piece.subarray(0, at) : piece);
    if (!isHere) return;
    if (this.#kind === "cut") this.#client.end();
    else if (this.#kind === "rst") this.#client.resetAndDestroy();
    else if (this.#kind === "loris") this.#drip(piece.subarray(at));
  }

  #drip(rest: Buffer): void {
    let at = 0;
    this.#loris = setInterval(() => {
      if (this.#client.destroyed || at >= rest.length) clearInterval(this.#loris);
      else this.#write(rest.subarray(at, ++at));
    }, LORIS_MS);
  }

  #write(bytes: Buffer): void {
    if (!this.#client.destroyed) this.#client.write(bytes);
  }
}
