// Profile: what starts over one snapshot had to wait for, in the order they asked, so that the next one needn't wait. Learned from asks
// for what wasn't on the node; kept for each command, and for all of them together, which a command nobody knows begins with. A hint:
// nothing here is believed but as rows to be asked for. docs/format/profile.md. Control plane.

import type { Digest } from "../base/digest.ts";
import { showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import {
  PROFILE_ALL_ASKS_MAX,
  PROFILE_ASKS_MAX,
  PROFILE_COMMANDS_MAX,
  PROFILE_FILE_MAX_BYTES,
} from "../base/limits.ts";

/** A blob of the snapshot, or with a count > 0 blocks of it. */
export interface ProfileAsk {
  readonly row: number;
  readonly first: number;
  readonly count: number;
}

/** The key of all commands together. */
export const ANY_COMMAND = "";
const COMMAND = /^[0-9a-f]{32}$/;
const FORMAT = 1;
const NUMBERS = 3;
/** More than a row or a block can be: they are 32 bits. */
const FIELD_MAX = 2 ** 32;
/** Lists that a file may have, a command's and that of commands themselves; more are no profile, and are costly to parse. */
const LISTS_MAX = PROFILE_COMMANDS_MAX + 1;

/** Whether a string may be a command's key: 32 hex digits. */
export function isCommandKey(text: string): boolean {
  return COMMAND.test(text);
}

export class Profile {
  readonly snapshot: Digest;
  /** By command, the one that changed last at the end; each in the order of asks. */
  readonly #commands = new Map<string, Map<string, ProfileAsk>>();

  constructor(snapshot: Digest) {
    this.snapshot = snapshot;
  }

  /** What a command is known to ask for, else what any does. */
  asks(command: string): ProfileAsk[] {
    const own = this.#commands.get(command) ?? this.#commands.get(ANY_COMMAND);
    return own === undefined ? [] : [...own.values()];
  }

  /** Whether a command has asks of its own; of ANY_COMMAND, whether there are any. */
  knows(command: string): boolean {
    return this.#commands.has(command);
  }

  get commandCount(): number {
    return this.#commands.size;
  }

  /** Adds what a start asked for, after what is known: whether there was anything new. */
  learn(command: string, asks: readonly ProfileAsk[]): boolean {
    const isNew = this.#add(ANY_COMMAND, asks);
    if (command === ANY_COMMAND) return isNew;
    return this.#add(command, asks) || isNew;
  }

  /** Adds what another one knows, after what is known. */
  join(other: Profile): void {
    for (const [command, asks] of other.#commands) this.#add(command, [...asks.values()]);
  }

  encode(): Buffer {
    const commands = [...this.#commands].map(([command, asks]) => ({
      ...(command === ANY_COMMAND ? {} : { command }),
      asks: [...asks.values()].flatMap(({ row, first, count }) => [row, first, count]),
    }));
    const file = { format: FORMAT, snapshot: showDigest(this.snapshot), commands };
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
      if (file["format"] !== FORMAT || file["snapshot"] !== showDigest(snapshot))
        throw new Error("of another format or snapshot");
      const commands = file["commands"];
      if (!Array.isArray(commands)) throw new Error("commands is no list");
      for (const each of commands as Record<string, unknown>[]) {
        const command = each["command"] ?? ANY_COMMAND;
        if (typeof command !== "string" || !(command === ANY_COMMAND || isCommandKey(command)))
          throw new Error("a command has no key");
        profile.#add(command, asksOf(each["asks"]));
      }
    } catch (cause) {
      throw new BurrowError("BURROW_CORRUPT", "no profile of this snapshot", { cause });
    }
    return profile;
  }

  #add(command: string, asks: readonly ProfileAsk[]): boolean {
    const known = this.#commands.get(command) ?? new Map<string, ProfileAsk>();
    let isNew = !this.#commands.has(command);
    for (const ask of asks) {
      const key = `${ask.row} ${ask.first}`;
      const before = known.get(key);
      const isMore =
        before === undefined ? known.size < PROFILE_ASKS_MAX : before.count < ask.count;
      if (!isMore) continue;
      known.set(key, ask);
      isNew = true;
    }
    if (!isNew) return false;
    this.#commands.delete(command);
    this.#commands.set(command, known);
    this.#forgetOldest();
    return true;
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

function asksOf(value: unknown): ProfileAsk[] {
  if (!Array.isArray(value) || value.length % NUMBERS !== 0) throw new Error("asks is no list");
  if (value.length > NUMBERS * PROFILE_ASKS_MAX) throw new Error("too many asks");
  const numbers = value as unknown[];
  const isField = (each: unknown) =>
    Number.isInteger(each) && (each as number) >= 0 && (each as number) < FIELD_MAX;
  if (!numbers.every(isField)) throw new Error("an ask is no row and blocks");
  const asks: ProfileAsk[] = [];
  for (let i = 0; i < numbers.length; i += NUMBERS) {
    const [row, first, count] = numbers.slice(i, i + NUMBERS) as [number, number, number];
    asks.push({ row, first, count });
  }
  return asks;
}
