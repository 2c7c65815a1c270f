// A delta: how bytes are made of others that are nearly the same: stretches of the base, each with a difference for every byte,
// and bytes of its own between them. docs/format/deltas.md, "Body", is the normative text. Little-endian. Control plane.

import { brotliCompressSync, brotliDecompressSync, constants } from "node:zlib";
import { viewOf } from "../base/bytes.ts";
import { BurrowError } from "../base/error.ts";
import { DELTA_BYTES_MAX } from "../base/limits.ts";

/** Offsets in the body; what follows is one Brotli stream: steps, differences, own bytes. */
const Body = { columns: 0, stepBytes: 4, copiedBytes: 8, bytes: 12 } as const;

/** Rows of all tables of an index and a locator are as long as this, a part, or (blocks) two thirds of it. */
export const TABLE_COLUMNS = 48;
const COLUMNS_MAX = 64;

/** What a search compares at once: the base is known by pieces of this many bytes, from each STEP-th on. */
const WINDOW = 16;
const STEP = 4;
/** A match is looked at this far: what a repetitive base costs is bounded by it. */
const LOOK_BYTES = 64;
/** A stretch of another place must be right in this many bytes more than what is at hand. */
const GAIN_BYTES = 8;
const QUALITY = 9;

/** A delta that would need more is no use; each takes memory of its reader. */
const STEPS_MAX = 1_000_000;
/** Largest varint: lengths and distances are below 2^32 each. */
const VARINT_BYTES = 5;

/** One step: bytes of its own, then a stretch of the base at target offset + shift. */
interface Step {
  readonly own: number;
  readonly copied: number;
  readonly shift: number;
}

/**
 * The body of a delta that makes `target` of `base`. `columns`: length of the rows that both consist of, 1 for text; it decides
 * nothing but the size. Undefined where it is no use: for more than DELTA_BYTES_MAX of either, or all too many steps.
 */
export function makeDelta(
  base: Uint8Array,
  target: Uint8Array,
  columns: number,
): Buffer | undefined {
  if (Math.max(base.length, target.length) > DELTA_BYTES_MAX) return undefined;
  const steps = stepsOf(base, target);
  if (steps.length > STEPS_MAX) return undefined;
  const copied = steps.reduce((sum, step) => sum + step.copied, 0);
  const differences = Buffer.alloc(copied);
  const own: Uint8Array[] = [];
  const control: number[] = [];
  const order = new ColumnOrder(steps, columns, copied);
  let done = 0;
  let shift = 0;
  for (const step of steps) {
    putVarint(control, step.own);
    putVarint(control, step.copied);
    const move = step.shift - shift;
    putVarint(control, move < 0 ? -2 * move - 1 : 2 * move);
    shift = step.shift;
    own.push(target.subarray(done, done + step.own));
    done += step.own;
    for (let i = 0; i < step.copied; i++, done++) {
      differences[order.next(done)] = target[done]! - base[done + shift]!;
    }
  }
  const head = Buffer.alloc(Body.bytes);
  head.writeUInt32LE(columns, Body.columns);
  head.writeUInt32LE(control.length, Body.stepBytes);
  head.writeUInt32LE(copied, Body.copiedBytes);
  const stream = Buffer.concat([Buffer.from(control), differences, ...own]);
  const params = {
    [constants.BROTLI_PARAM_QUALITY]: QUALITY,
    [constants.BROTLI_PARAM_SIZE_HINT]: stream.length,
  };
  return Buffer.concat([head, brotliCompressSync(stream, { params })]);
}

/**
 * The `length` bytes that a delta makes of `base`. BURROW_CORRUPT for a body that makes no such bytes; what it costs is bounded by
 * `length`, whatever the body says. The result is not verified.
 */
export function applyDelta(base: Uint8Array, body: Uint8Array, length: number): Buffer {
  if (length > DELTA_BYTES_MAX) throw corrupt(`it would make ${length} bytes`);
  if (body.length < Body.bytes) throw corrupt("it is cut off");
  const view = viewOf(body);
  const columns = view.getUint32(Body.columns, true);
  const stepBytes = view.getUint32(Body.stepBytes, true);
  const copied = view.getUint32(Body.copiedBytes, true);
  if (columns < 1 || columns > COLUMNS_MAX) throw corrupt(`it has ${columns} columns`);
  // Each step but the last makes something of the base.
  const stepsMax = Math.min(STEPS_MAX, copied + 1);
  if (copied > length || stepBytes > 3 * VARINT_BYTES * stepsMax) throw corrupt(WRONG_LENGTH);
  const stream = expand(body.subarray(Body.bytes), stepBytes + length);
  const steps = readSteps(stream.subarray(0, stepBytes), base.length, copied, length);
  const order = new ColumnOrder(steps, columns, copied);
  const result = Buffer.allocUnsafeSlow(length);
  let own = stepBytes + copied;
  let done = 0;
  for (const step of steps) {
    stream.copy(result, done, own, own + step.own);
    own += step.own;
    done += step.own;
    for (let i = 0; i < step.copied; i++, done++) {
      result[done] = base[done + step.shift]! + stream[stepBytes + order.next(done)]!;
    }
  }
  return result;
}

const WRONG_LENGTH = "its lengths contradict each other";

function expand(stored: Uint8Array, length: number): Buffer {
  let stream: Buffer;
  try {
    stream = brotliDecompressSync(stored, { maxOutputLength: Math.max(1, length) });
  } catch (cause) {
    throw corrupt("its stream is damaged or too long", cause);
  }
  if (stream.length !== length) throw corrupt(WRONG_LENGTH);
  return stream;
}

/** The steps, each within base and result; together they make `length` bytes, `copied` of them of the base. */
function readSteps(bytes: Buffer, baseLength: number, copied: number, length: number): Step[] {
  const steps: Step[] = [];
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let i = 0; i < VARINT_BYTES; i++) {
      if (at === bytes.length) throw corrupt("its steps are cut off");
      const byte = bytes[at++]!;
      value += (byte & 0x7f) * 2 ** (7 * i);
      if (byte < 0x80) return value;
    }
    throw corrupt("a number in its steps is too long");
  };
  let done = 0;
  let left = copied;
  let shift = 0;
  while (at < bytes.length) {
    if (steps.length === STEPS_MAX) throw corrupt("it has too many steps");
    const own = varint();
    const step = { own, copied: varint(), shift: 0 };
    const move = varint();
    shift += move % 2 === 0 ? move / 2 : -(move + 1) / 2;
    step.shift = shift;
    const start = done + own + shift;
    done += own + step.copied;
    left -= step.copied;
    if (done > length || left < 0) throw corrupt(WRONG_LENGTH);
    if (step.copied === 0 && at < bytes.length) throw corrupt("a step does nothing");
    if (step.copied > 0 && (start < 0 || start + step.copied > baseLength))
      throw corrupt("a step leads outside its base");
    steps.push(step);
  }
  if (done !== length || left !== 0) throw corrupt(WRONG_LENGTH);
  return steps;
}

/**
 * Where differences stand: those of one column of all rows next to each other, columns in their order. So the same field of
 * many rows, which changes alike, is compressed together.
 */
class ColumnOrder {
  readonly #next: Uint32Array;
  readonly #columns: number;

  constructor(steps: readonly Step[], columns: number, copied: number) {
    this.#columns = columns;
    const counts = new Uint32Array(columns);
    let offset = 0;
    for (const { own, copied: length } of steps) {
      offset += own;
      const whole = Math.floor(length / columns);
      if (whole > 0) for (let column = 0; column < columns; column++) counts[column]! += whole;
      for (let i = whole * columns; i < length; i++) counts[(offset + i) % columns]!++;
      offset += length;
    }
    this.#next = new Uint32Array(columns);
    let start = 0;
    for (let column = 0; column < columns; column++) {
      this.#next[column] = start;
      start += counts[column]!;
    }
    if (start !== copied) throw new TypeError("the columns hold all differences");
  }

  /** The place of the difference for the byte at an offset of the target. Offsets must come in their order. */
  next(offset: number): number {
    return this.#next[offset % this.#columns]!++;
  }
}

function putVarint(bytes: number[], value: number): void {
  let left = value;
  for (; left >= 0x80; left = Math.floor(left / 0x80)) bytes.push((left & 0x7f) | 0x80);
  bytes.push(left);
}

/** Steps from base to target, found as in Percival's bsdiff, but that places in the base are known by hashes of short pieces. */
function stepsOf(base: Uint8Array, target: Uint8Array): Step[] {
  // Known once it is needed: a target that differs in place alone needs none.
  const places = new Places(base);
  const steps: Step[] = [];
  let own = 0;
  // What is before `done` is in steps or among the own bytes; from there on, target and base run side by side.
  let done = 0;
  let shift = 0;
  for (let at = 0; done < target.length; ) {
    const found = places.next(target, at, shift);
    const room = found.at - done;
    // What runs side by side reaches forward, what was found reaches back; where both do, the better one has it.
    const forward = reach(target, done, base, done + shift, 1, room);
    const back = reach(
      target,
      found.at - 1,
      base,
      found.place - 1,
      -1,
      found.length > 0 ? room : 0,
    );
    const overlap = Math.max(0, forward + back - room);
    const start = done + forward - overlap;
    const kept = bestSplit(base, target, start, overlap, shift, found.place - found.at);
    const copied = forward - overlap + kept;
    if (copied > 0) {
      steps.push({ own, copied, shift });
      own = 0;
    }
    const rest = overlap > 0 ? 0 : room - forward - back;
    own += rest;
    done += copied + rest;
    shift = found.place - found.at;
    at = found.at + found.length;
  }
  if (own > 0 || steps.length === 0) steps.push({ own, copied: 0, shift: 0 });
  return steps;
}

/** How far two runs of bytes are worth taking for one, up to `limit`: where equal ones outnumber the others most. */
function reach(
  target: Uint8Array,
  at: number,
  base: Uint8Array,
  place: number,
  direction: 1 | -1,
  limit: number,
): number {
  let score = 0;
  let best = 0;
  let length = 0;
  for (let i = 0; i < limit; i++) {
    const other = place + direction * i;
    if (other < 0 || other >= base.length) break;
    score += target[at + direction * i] === base[other] ? 1 : -1;
    if (score <= best) continue;
    best = score;
    length = i + 1;
  }
  return length;
}

/** Of `length` bytes that both alignments have, how many go to the first, so that the most are equal. */
function bestSplit(
  base: Uint8Array,
  target: Uint8Array,
  start: number,
  length: number,
  shift: number,
  next: number,
): number {
  let score = 0;
  let best = 0;
  let kept = 0;
  for (let i = 0; i < length; i++) {
    const byte = target[start + i];
    if (byte === base[start + i + shift]) score++;
    if (byte === base[start + i + next]) score--;
    if (score <= best) continue;
    best = score;
    kept = i + 1;
  }
  return kept;
}

/** A stretch of the target that the base has at `place`; at the target's end, without length, when there is none. */
interface Found {
  readonly at: number;
  readonly place: number;
  readonly length: number;
}

/** Where pieces of the base are, by their hashes: of equal ones the first. */
class Places {
  readonly #base: Uint8Array;
  readonly #unused: number;
  #filled: Uint32Array | undefined;

  constructor(base: Uint8Array) {
    this.#base = base;
    this.#unused = 32 - Math.max(8, 33 - Math.clz32(base.length / STEP));
  }

  /** By hash 1 + the place, or 0. */
  get #table(): Uint32Array {
    if (this.#filled !== undefined) return this.#filled;
    const table = new Uint32Array(2 ** (32 - this.#unused));
    const view = viewOf(this.#base);
    for (let place = 0; place + WINDOW <= this.#base.length; place += STEP) {
      const slot = hashAt(view, place) >>> this.#unused;
      if (table[slot] === 0) table[slot] = place + 1;
    }
    this.#filled = table;
    return table;
  }

  /** From `at` on, the first stretch of the target that another place of the base has than the one at hand, and has better. */
  next(target: Uint8Array, at: number, shift: number): Found {
    const view = viewOf(target);
    for (let i = at; i + WINDOW <= target.length; ) {
      const atHand = equalLength(target, i, this.#base, i + shift, target.length);
      if (atHand >= WINDOW) {
        i += atHand;
        continue;
      }
      const place = this.#table[hashAt(view, i) >>> this.#unused]! - 1;
      const length = place < 0 ? 0 : equalLength(target, i, this.#base, place, LOOK_BYTES);
      if (length >= WINDOW && length > this.#equalBytes(target, i, i + shift, length) + GAIN_BYTES)
        return { at: i, place, length };
      i++;
    }
    return { at: target.length, place: target.length, length: 0 };
  }

  #equalBytes(target: Uint8Array, at: number, place: number, length: number): number {
    let count = 0;
    for (let i = 0; i < length; i++) if (target[at + i] === this.#base[place + i]) count++;
    return count;
  }
}

function equalLength(
  target: Uint8Array,
  at: number,
  base: Uint8Array,
  place: number,
  limit: number,
): number {
  if (place < 0) return 0;
  const most = Math.min(limit, target.length - at, base.length - place);
  let length = 0;
  while (length < most && target[at + length] === base[place + length]) length++;
  return length;
}

/** Of WINDOW bytes: four words, mixed as murmur3 does. */
function hashAt(view: DataView, offset: number): number {
  let hash = 0;
  for (let i = 0; i < WINDOW; i += 4) {
    hash = Math.imul(hash ^ view.getUint32(offset + i, true), 0x9e37_79b1);
    hash ^= hash >>> 15;
  }
  return Math.imul(hash, 0x85eb_ca6b) >>> 0;
}

function corrupt(message: string, cause?: unknown): BurrowError {
  return new BurrowError("BURROW_CORRUPT", `bad delta: ${message}`, { class: "transient", cause });
}
