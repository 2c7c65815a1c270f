// Mutated LISAFS messages from a seed: mostly valid ones of every kind, with bytes, lengths, counts and ids changed. The same
// seed gives the same messages. Long runs and the gate share it. Tests only.

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Cursor } from "../../lib/wire/cursor.ts";
import { encodeRequest } from "../../lib/wire/lisafs/encode.ts";
import { Request } from "../../lib/wire/lisafs/message.ts";
import { MID_COUNT, Mid } from "../../lib/wire/lisafs/mid.ts";
import { Dice } from "../suite/dice.ts";

/** Messages that found a crash, each with those before it; replayed by the gate for ever. */
const CRASHERS = fileURLToPath(new URL("../../../test/fuzz/crashers/", import.meta.url));

const NAMES = ["f", "d", "g", "l", "x", "none", "", ".", "..", "a/b", "a\0b", "\xff\xfe"];
const NUMBERS = [0, 1, 2, 7, 8, 0x40, 0x7f, 0xff, 0x100, 0xffff, 0x7fff_ffff, 0x8000_0000];
const FLAGS = [0, 0, 0, 2, 2, 1, 3, 4, 0o1000, 0o1002, 0x200, 0x241, 0xffff_ffff];
const OFFSETS = [0, 0, 1, 100, 4095, 4096, 65_536, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1, -1];
const COUNTS = [0, 1, 40, 4096, 65_536, 1_000_000, 2_093_048, 0x7fff_ffff];

/** A message as it was sent. */
export interface Sent {
  readonly mid: number;
  readonly payload: Buffer;
}

export class Mutator {
  readonly seed: number;
  readonly #request = new Request();
  readonly #data = Buffer.alloc(8192, 0x5a);
  readonly #dice: Dice;

  constructor(seed: number) {
    this.seed = seed;
    this.#dice = new Dice(seed);
  }

  /** 0 to n-1. */
  pick(n: number): number {
    return this.#dice.pick(n);
  }

  /** An FDID that is likely to be one: ids count up from `newest - 64`. */
  #fdid(known: readonly number[], newest: number): number {
    const kind = this.pick(16);
    if (kind < 13) return this.#dice.of(known);
    if (kind < 15) return Math.max(0, newest - this.pick(64));
    return this.pick(2) === 0 ? this.#dice.of(NUMBERS) : this.#dice.of(OFFSETS);
  }

  /**
   * Writes a message's payload at `start` of `bytes` and returns its MID; `length` says how long it is. `known` are FDIDs worth
   * asking about, `newest` is the last that was given.
   */
  next(bytes: Buffer, start: number, known: readonly number[], newest: number): number {
    const mid = this.pick(50) === 0 ? this.pick(65_536) : 1 + this.pick(MID_COUNT - 1);
    const request = this.#request;
    request.fd = this.#fdid(known, newest);
    request.otherFd = this.#fdid(known, newest);
    request.flags = this.#dice.of(FLAGS);
    request.mode = this.#dice.of([0o644, 0o100644, 0o755, 0o010644, 0xffff]);
    request.uid = this.#dice.of([0, 1000, 0xffff_ffff]);
    request.gid = request.uid;
    request.mask = this.#dice.of([0, 2, 8, 0x10, 0x20, 0x40, 0x200, 0x27a, 0xffff_ffff]);
    request.offset = this.#dice.of(OFFSETS);
    request.length = this.#dice.of([...OFFSETS, 100, 5000]);
    request.count = this.#dice.of(COUNTS);
    request.atimeSec = this.#dice.of(OFFSETS);
    request.atimeNs = this.#dice.of([0, 0x3fff_ffff, 0x3fff_fffe, -1, 1_000_000_000]);
    request.mtimeSec = request.atimeSec;
    request.mtimeNs = request.atimeNs;
    request.name = this.#dice.name(15, NAMES);
    request.otherName = this.#dice.name(15, NAMES);
    request.nameCount = this.pick(5);
    for (let i = 0; i < request.nameCount; i++) request.names[i] = this.#dice.name(15, NAMES);
    request.fdCount = this.pick(4);
    // Close takes ids at random: else those worth asking about would soon be gone.
    for (let i = 0; i < request.fdCount; i++) {
      const isAny = mid === Mid.Close && this.pick(8) !== 0;
      request.fds[i] = isAny ? Math.max(0, newest - this.pick(256)) : this.#fdid(known, newest);
    }
    const cursor = new Cursor(bytes).seek(start, bytes.length);
    encodeRequest(mid, request, cursor, this.#data.subarray(0, this.pick(this.#data.length)));
    this.length = this.#mutate(bytes, start, cursor.offset - start);
    return mid;
  }

  /** Bytes of the last message. */
  length = 0;

  #mutate(bytes: Buffer, start: number, length: number): number {
    const kind = this.pick(12);
    if (kind < 6) return length;
    if (kind === 6) return this.pick(length + 1);
    if (kind === 7) return length + this.pick(300);
    for (let i = 1 + this.pick(6); i > 0 && length > 0; i--) {
      const at = start + this.pick(length);
      const how = this.pick(4);
      if (how === 0) bytes[at] = this.pick(256);
      else if (how === 1) bytes[at] = bytes[at]! ^ (1 << this.pick(8));
      else if (how === 2 && at + 2 <= bytes.length)
        bytes.writeUInt16LE(this.#dice.of(NUMBERS) & 0xffff, at);
      else if (at + 4 <= bytes.length) bytes.writeUInt32LE(this.#dice.of(NUMBERS), at);
    }
    return length;
  }
}

/** The last messages that were sent, for the file of a crasher. */
export class Recent {
  readonly #messages: Sent[] = [];

  add(mid: number, payload: Buffer): void {
    if (this.#messages.length === 64) this.#messages.shift();
    this.#messages.push({ mid, payload: Buffer.from(payload) });
  }

  /** Writes test/fuzz/crashers/NAME.json and returns its path. */
  save(name: string): string {
    mkdirSync(CRASHERS, { recursive: true });
    const path = `${CRASHERS}${name}.json`;
    const shown = this.#messages.map(({ mid, payload }) => [mid, payload.toString("hex")]);
    writeFileSync(path, `${JSON.stringify(shown)}\n`);
    return path;
  }
}

/** Every crasher found so far, by file name. */
export function crashers(): [name: string, messages: Sent[]][] {
  let names: string[] = [];
  try {
    names = readdirSync(CRASHERS).filter((name) => name.endsWith(".json"));
  } catch {
    return [];
  }
  return names.map((name) => {
    const text = readFileSync(`${CRASHERS}${name}`, "utf8");
    const messages = (JSON.parse(text) as [number, string][]).map(([mid, hex]) => ({
      mid,
      payload: Buffer.from(hex, "hex"),
    }));
    return [name, messages];
  });
}

/** Where a reply names a new FDID; -1 when it names none. */
export function fdidAt(mid: number, payload: Buffer): number {
  if (mid === Mid.OpenAt || mid === Mid.MkdirAt || mid === Mid.MknodAt) return 0;
  if (mid === Mid.SymlinkAt || mid === Mid.LinkAt) return 0;
  if (mid === Mid.OpenCreateAt) return 152;
  return mid === Mid.Walk && payload.readUInt16LE(1) > 0 ? 3 : -1;
}

/** Messages whose effect on the run itself would be no finding: more windows than it maps. */
export const isSkipped = (mid: number): boolean => mid === Mid.Channel;
