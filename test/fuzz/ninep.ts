// Mutated 9P messages from a seed: mostly valid ones of every kind, with bytes, lengths and ids changed. The same seed gives the same
// messages. Tests only.

import { Cursor } from "../../lib/wire/cursor.ts";
import { encodeMessage } from "../../lib/wire/ninep/encode.ts";
import { Request } from "../../lib/wire/ninep/message.ts";
import { NOFID, Type } from "../../lib/wire/ninep/type.ts";
import { Dice } from "../suite/dice.ts";

const NAMES = ["f", "d", "g", "l", "x", "none", "", ".", "..", "a/b", "a\0b", "\xff\xfe"];
const NUMBERS = [0, 1, 2, 7, 8, 0x40, 0x7f, 0xff, 0x100, 0xffff, 0x7fff_ffff, 0x8000_0000];
const OFFSETS = [0, 0, 1, 100, 4095, 4096, 65_536, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1, -1];
const COUNTS = [0, 1, 40, 4096, 65_536, 1_000_000, 0x7fff_ffff, 0xffff_ffff];
const FLAGS = [0, 0, 0, 2, 2, 1, 3, 0o200, 0o1000, 0o1002, 0x200, 0o200000, 0xffff_ffff];
const TYPES = Object.values(Type).filter((type) => type !== Type.version);

export class NinepMutator {
  readonly #request = new Request();
  readonly #data = Buffer.alloc(4096, 0x5a);
  readonly #out = Buffer.alloc(16_384);
  readonly #dice: Dice;

  constructor(seed: number) {
    this.#dice = new Dice(seed);
  }

  /** 0 to n-1. */
  pick(n: number): number {
    return this.#dice.pick(n);
  }

  #fid(): number {
    const kind = this.pick(16);
    if (kind === 0) return this.#dice.of(NUMBERS);
    return kind === 1 ? NOFID : this.pick(24);
  }

  /** The next message, with this tag; its size is the one that it has. */
  next(tag: number): Buffer {
    const type = this.pick(60) === 0 ? this.pick(256) : this.#dice.of(TYPES);
    const request = this.#request;
    request.fid = this.#fid();
    request.otherFid = type === Type.attach && this.pick(8) !== 0 ? NOFID : this.#fid();
    request.flags = this.#dice.of(FLAGS);
    request.mode = this.#dice.of([0o644, 0o100644, 0o755, 0o010644, 0xffff_ffff]);
    request.uid = this.#dice.of([0, 1000, 0xffff_ffff]);
    request.gid = request.uid;
    request.mask = this.#dice.of([0, 1, 6, 8, 0x1b0, 0x1ff, 0x7ff, -1 >>> 0]);
    request.offset = this.#dice.of(OFFSETS);
    request.length = this.#dice.of([...OFFSETS, 100, 5000]);
    request.count = this.#dice.of(COUNTS);
    request.atimeSec = this.#dice.of(OFFSETS);
    request.atimeNs = this.#dice.of([0, 999_999_999, 1_000_000_000, -1]);
    request.mtimeSec = request.atimeSec;
    request.mtimeNs = request.atimeNs;
    request.lockType = this.pick(4);
    request.process = this.pick(3);
    request.otherTag = this.pick(64);
    request.name = this.#dice.name(14, NAMES);
    request.otherName =
      type === Type.attach ? this.#dice.of(["view", "tmp", "", "x"]) : this.#dice.name(14, NAMES);
    request.nameCount = this.pick(4);
    for (let i = 0; i < request.nameCount; i++) request.names[i] = this.#dice.name(14, NAMES);
    const cursor = new Cursor(this.#out);
    const data = this.#data.subarray(0, this.pick(this.#data.length));
    let length = encodeMessage(type, tag, request, cursor, data);
    if (length < 0) {
      length = 7 + this.pick(64);
      this.#out[4] = type;
      this.#out.writeUInt16LE(tag, 5);
    }
    length = this.#mutate(length);
    this.#out.writeUInt32LE(length, 0);
    return Buffer.from(this.#out.subarray(0, length));
  }

  /** Changes what is behind the header: the frame stays one, so that what follows is read. */
  #mutate(length: number): number {
    const kind = this.pick(12);
    if (kind < 6) return length;
    if (kind === 6) return 7 + this.pick(length - 6);
    if (kind === 7) return length + this.pick(300);
    for (let i = 1 + this.pick(6); i > 0 && length > 7; i--) {
      const at = 7 + this.pick(length - 7);
      const how = this.pick(4);
      if (how === 0) this.#out[at] = this.pick(256);
      else if (how === 1) this.#out[at] = this.#out[at]! ^ (1 << this.pick(8));
      else if (how === 2) this.#out.writeUInt16LE(this.#dice.of(NUMBERS) & 0xffff, at);
      else this.#out.writeUInt32LE(this.#dice.of(NUMBERS), at);
    }
    return length;
  }
}
