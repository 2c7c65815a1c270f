// Profile: what starts over one snapshot read, in the order of its first use, so that the next one needn't wait. Learned from what gofers
// touch; kept for each command, and for all of them together, which a command nobody knows begins with; and by package, what starts over
// other snapshots read of it. A hint: nothing here is believed but as rows to be asked for. docs/format/profile.md. Control plane.

import type { Digest } from "../base/digest.ts";
import { parseDigest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import {
  PROFILE_ALL_ASKS_MAX,
  PROFILE_ASKS_MAX,
  PROFILE_COMMANDS_MAX,
  PROFILE_COMPOSED_ASKS_MAX,
  PROFILE_FILE_MAX_BYTES,
  PROFILE_PACKAGES_MAX,
} from "../base/limits.ts";

/** A blob of the snapshot, or with a count > 0 blocks of it. */
export interface ProfileAsk {
  readonly row: number;
  readonly first: number;
  readonly count: number;
}

/** What is known of an ask: in how many starts in a row nobody needed it. */
interface KnownAsk extends ProfileAsk {
  readonly idle: number;
}

/** What others read of a package of the snapshot, in their order. */
export interface PackageAsks {
  /** Its layer. */
  readonly layer: Digest;
  readonly asks: readonly ProfileAsk[];
}

/** The key of all commands together. */
export const ANY_COMMAND = "";
/** What a command didn't read in so many starts in a row leaves its list: data may decide what a program loads. */
export const IDLE_MAX = 3;
const COMMAND = /^[0-9a-f]{32}$/;
const FORMAT = 2;
/** Of an ask; the first format had no starts that didn't need it. */
const NUMBERS: Readonly<Record<number, number>> = { 1: 3, [FORMAT]: 4 };
/** More than a row or a block can be: they are 32 bits. */
const FIELD_MAX = 2 ** 32;
/** Lists that a file may have: commands' and packages', and those of them; more are no profile, and are costly to parse. */
const LISTS_MAX = PROFILE_COMMANDS_MAX + 1 + PROFILE_PACKAGES_MAX + 1;

/** Whether a string may be a command's key: 32 hex digits. */
export function isCommandKey(text: string): boolean {
  return COMMAND.test(text);
}

export class Profile {
  readonly snapshot: Digest;
  /** By command, the one that changed last at the end; each in the order of asks. */
  readonly #commands = new Map<string, Map<string, KnownAsk>>();
  #packages: readonly PackageAsks[] = [];

  constructor(snapshot: Digest) {
    this.snapshot = snapshot;
  }

  /** What a command is known to ask for, else what any does. */
  asks(command: string): ProfileAsk[] {
    const own = this.#commands.get(command) ?? this.#commands.get(ANY_COMMAND);
    return own === undefined
      ? []
      : [...own.values()].map(({ row, first, count }) => ({ row, first, count }));
  }

  /** Rows of which a command's list has something, or that of all commands. */
  rows(command: string): Set<number> {
    const lists = [this.#commands.get(command), this.#commands.get(ANY_COMMAND)];
    return new Set(lists.flatMap((list) => [...(list?.values() ?? [])]).map(({ row }) => row));
  }

  /** Whether a command has asks of its own; of ANY_COMMAND, whether there are any. */
  knows(command: string): boolean {
    return this.#commands.has(command);
  }

  get commandCount(): number {
    return this.#commands.size;
  }

  /** What others read of its packages. */
  get packages(): readonly PackageAsks[] {
    return this.#packages;
  }

  /** Has these in place of what was known of packages; as many as there may be, of those that come first. */
  compose(packages: readonly PackageAsks[]): void {
    let left = PROFILE_COMPOSED_ASKS_MAX;
    this.#packages = packages.slice(0, PROFILE_PACKAGES_MAX).flatMap(({ layer, asks }) => {
      const some = asks.slice(0, Math.min(left, PROFILE_ASKS_MAX));
      left -= some.length;
      return some.length === 0 ? [] : [{ layer, asks: some }];
    });
  }

  /** Adds what a start asked for, after what is known: whether there was anything new. */
  learn(command: string, asks: readonly ProfileAsk[]): boolean {
    const isNew = this.#add(ANY_COMMAND, fresh(asks));
    if (command === ANY_COMMAND) return isNew;
    return this.#add(command, fresh(asks)) || isNew;
  }

  /**
   * Takes what a start read, in its order: whether anything is another than before. When that is all that it read, what its command's list
   * has besides was needed once less, and leaves it after IDLE_MAX such starts; not where it read less than half of the list: that was no
   * such start. From the list of all commands nothing leaves: what one doesn't need another may.
   */
  learnTouched(command: string, touched: readonly ProfileAsk[], isAll: boolean): boolean {
    if (touched.length === 0) return false;
    const isNew = this.#add(ANY_COMMAND, fresh(this.#narrowed(ANY_COMMAND, touched)));
    if (command === ANY_COMMAND) return isNew;
    return this.#replace(command, this.#narrowed(command, touched), isAll) || isNew;
  }

  /** Adds what another one knows, after what is known. */
  join(other: Profile): void {
    for (const [command, asks] of other.#commands) this.#add(command, [...asks.values()]);
    if (this.#packages.length === 0) this.compose(other.#packages);
  }

  encode(): Buffer {
    const numbers = (asks: Iterable<ProfileAsk>) =>
      [...asks].flatMap(({ row, first, count, idle = 0 }: ProfileAsk & { idle?: number }) => [
        row,
        first,
        count,
        idle,
      ]);
    const commands = [...this.#commands].map(([command, asks]) => ({
      ...(command === ANY_COMMAND ? {} : { command }),
      asks: numbers(asks.values()),
    }));
    const packages = this.#packages.map(({ layer, asks }) => ({
      layer: showDigest(layer),
      asks: numbers(asks),
    }));
    const composed = packages.length === 0 ? {} : { packages };
    const file = { format: FORMAT, snapshot: showDigest(this.snapshot), commands, ...composed };
    return Buffer.from(`${JSON.stringify(file)}\n`);
  }

  /** Throws BURROW_CORRUPT for bytes that are no profile of this snapshot. */
  static decode(bytes: Uint8Array, snapshot: Digest): Profile {
    const profile = new Profile(snapshot);
    try {
      const isDeep = (opening: string) => countUpTo(bytes, opening, LISTS_MAX + 1) > LISTS_MAX;
      if (bytes.length > PROFILE_FILE_MAX_BYTES || isDeep("[") || isDeep("{"))
        throw new Error("too large");
      const file = JSON.parse(Buffer.from(bytes).toString("utf8")) as Record<string, unknown>;
      const numbers = NUMBERS[file["format"] as number];
      if (numbers === undefined || file["snapshot"] !== showDigest(snapshot))
        throw new Error("of another format or snapshot");
      for (const each of listOf(file["commands"], PROFILE_COMMANDS_MAX + 1)) {
        const command = each["command"] ?? ANY_COMMAND;
        if (typeof command !== "string" || !(command === ANY_COMMAND || isCommandKey(command)))
          throw new Error("a command has no key");
        profile.#add(command, asksOf(each["asks"], numbers));
      }
      const packages = listOf(file["packages"] ?? [], PROFILE_PACKAGES_MAX);
      profile.compose(packages.map((each) => packageOf(each, numbers)));
    } catch (cause) {
      throw new BurrowError("BURROW_CORRUPT", "no profile of this snapshot", { cause });
    }
    return profile;
  }

  /** Of large blobs that were read whole the blocks that are known to be needed, where that is known: a file that is mapped tells of none. */
  #narrowed(command: string, touched: readonly ProfileAsk[]): ProfileAsk[] {
    const own = this.#blocks(command);
    const all = command === ANY_COMMAND ? own : this.#blocks(ANY_COMMAND);
    return touched.flatMap((ask) =>
      ask.count === 0 ? (own.get(ask.row) ?? all.get(ask.row) ?? [ask]) : [ask],
    );
  }

  /** What a list has of blobs that are read by block, by row. */
  #blocks(command: string): Map<number, ProfileAsk[]> {
    const blocks = new Map<number, ProfileAsk[]>();
    for (const ask of this.#commands.get(command)?.values() ?? []) {
      if (ask.count === 0) continue;
      const some = blocks.get(ask.row);
      if (some === undefined) blocks.set(ask.row, [ask]);
      else some.push(ask);
    }
    return blocks;
  }

  #add(command: string, asks: readonly KnownAsk[]): boolean {
    const all = this.#commands.get(command) ?? new Map<string, KnownAsk>();
    let isNew = !this.#commands.has(command);
    for (const ask of asks) {
      const key = keyOf(ask);
      const before = all.get(key);
      const isMore = before === undefined ? all.size < PROFILE_ASKS_MAX : before.count < ask.count;
      if (!isMore) continue;
      all.set(key, ask);
      isNew = true;
    }
    if (isNew) this.#changed(command, all);
    return isNew;
  }

  #replace(command: string, touched: readonly ProfileAsk[], isAll: boolean): boolean {
    const before = this.#commands.get(command) ?? new Map<string, KnownAsk>();
    const all = new Map<string, KnownAsk>();
    let isNew = !this.#commands.has(command);
    let again = 0;
    for (const ask of touched) {
      const key = keyOf(ask);
      if (all.has(key) || all.size === PROFILE_ASKS_MAX) continue;
      const known = before.get(key);
      if (known !== undefined) again++;
      const count = Math.max(ask.count, known?.count ?? 0);
      isNew ||= known === undefined || known.count < count || known.idle > 0;
      all.set(key, { ...ask, count, idle: 0 });
    }
    const isOlder = isAll && 2 * again >= before.size;
    for (const [key, ask] of before) {
      if (all.has(key) || all.size === PROFILE_ASKS_MAX) continue;
      const idle = ask.idle + (isOlder ? 1 : 0);
      isNew ||= isOlder;
      if (idle <= IDLE_MAX) all.set(key, { ...ask, idle });
    }
    if (isNew) this.#changed(command, all);
    return isNew;
  }

  #changed(command: string, asks: Map<string, KnownAsk>): void {
    this.#commands.delete(command);
    this.#commands.set(command, asks);
    this.#forgetOldest();
  }

  #forgetOldest(): void {
    let count = 0;
    for (const asks of this.#commands.values()) count += asks.size;
    for (const [command, asks] of this.#commands) {
      if (this.#commands.size <= PROFILE_COMMANDS_MAX && count <= PROFILE_ALL_ASKS_MAX) return;
      if (command !== ANY_COMMAND && this.#commands.delete(command)) count -= asks.size;
    }
  }
}

/** How often a character is in a text, looked at until it is `most` times. */
function countUpTo(bytes: Uint8Array, character: string, most: number): number {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  let count = 0;
  for (let at = text.indexOf(character); at >= 0 && count < most; count++)
    at = text.indexOf(character, at + 1);
  return count;
}

function keyOf({ row, first }: ProfileAsk): string {
  return `${row} ${first}`;
}

function fresh(asks: readonly ProfileAsk[]): KnownAsk[] {
  return asks.map(({ row, first, count }) => ({ row, first, count, idle: 0 }));
}

function listOf(value: unknown, most: number): Record<string, unknown>[] {
  if (Array.isArray(value) && value.length <= most) return value as Record<string, unknown>[];
  throw new Error("it has no list, or too long a one");
}

function packageOf({ layer, asks }: Record<string, unknown>, numbers: number): PackageAsks {
  const digest = typeof layer === "string" ? parseDigest(layer) : undefined;
  if (digest === undefined) throw new Error("a package has no layer");
  return { layer: digest, asks: asksOf(asks, numbers) };
}

function asksOf(value: unknown, numbers: number): KnownAsk[] {
  if (!Array.isArray(value) || value.length % numbers !== 0) throw new Error("asks is no list");
  if (value.length > numbers * PROFILE_ASKS_MAX) throw new Error("too many asks");
  const fields = value as unknown[];
  const isField = (each: unknown) =>
    Number.isInteger(each) && (each as number) >= 0 && (each as number) < FIELD_MAX;
  if (!fields.every(isField)) throw new Error("an ask is no row and blocks");
  const asks: KnownAsk[] = [];
  for (let i = 0; i < fields.length; i += numbers) {
    const [row, first, count, idle = 0] = fields.slice(i, i + numbers) as number[];
    asks.push({ row: row!, first: first!, count: count!, idle: Math.min(idle, IDLE_MAX) });
  }
  return asks;
}
