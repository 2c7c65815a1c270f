// Random sequences of operations, the same through every door of one tree, one operation after the other: what a door says is compared
// with what a plain local copy says, and so is what is left in the end. A difference fails, but for those listed here. Tests only.

import type { Test } from "tap";
import { Dice } from "../suite/dice.ts";
import type { Door } from "../suite/door.ts";
import {
  ask,
  CHANGING_KINDS,
  dump,
  type Kind,
  nextOperation,
  type Operation,
  READING_KINDS,
  TOO_LONG,
  type Visit,
} from "../suite/door-operations.ts";
import { PathDoor } from "../suite/door-path.ts";
import { type DoorEntry, type DoorScene, openDoors } from "../suite/door-scene.ts";
import { noFuse } from "../suite/fuse.ts";
import { FuseDoor } from "../suite/fuse-door.ts";

/** What a door says of an operation instead of what the local copy says, and why that is right. */
interface Exception {
  readonly name: string;
  readonly kinds: readonly Kind[];
  /** What the door says. */
  readonly said: RegExp;
  /** What the local copy says. */
  readonly local: RegExp;
  readonly isReadOnly?: boolean;
  /** Of one door alone. */
  readonly door?: string;
  /** What makes the door's tree the same again. */
  readonly evenOut?: (door: Door, operation: Operation) => void;
  readonly why: string;
}

/** Names of the exceptions that were needed so far. */
export const neededExceptions = new Set<string>();

const REFUSED = /^E[A-Z]+$/;

export const EXCEPTIONS: readonly Exception[] = [
  {
    name: "EROFS first",
    kinds: CHANGING_KINDS,
    said: REFUSED,
    local: REFUSED,
    isReadOnly: true,
    why: "which of several reasons against a change to a read-only view is named: a client's kernel looks names up first, a server says EROFS",
  },
  {
    name: "names first",
    kinds: [...READING_KINDS, ...CHANGING_KINDS],
    said: /^ENAMETOOLONG$/,
    local: /^(ENOTDIR|ENOENT)$/,
    why: "all names of a message are checked before the first is looked up",
  },
  {
    name: "set-group-id program",
    door: "LISAFS",
    kinds: ["create"],
    said: /^\d+ 770$/,
    local: /^\d+ 2770$/,
    isReadOnly: false,
    evenOut: (door, { path, mode }) => door.change(path, { mode }),
    why: "a sentry doesn't say whether who makes a program in a set-group-id directory is of its group, so the program never gets the bit",
  },
];

const E_ACUTE = "\xc3\xa9";
const NO_UTF8 = "\xff\xfe";
const NAMES = ["a", "a", "a", "b", "b", "c", "f", "f", "g", "l", "h", "new", E_ACUTE, NO_UTF8];
const CONTENT = Buffer.alloc(5000, "content of f ");
const LARGE = Buffer.alloc(1_300_000, "more than a mebibyte ");
const MANY = 24;
/** For read-only views alone: an upper makes no FIFO, so one can't be moved or given away (EPERM). docs/design/0017-overlay.md. */
const FIFO = "c";

/** What every sequence finds below a directory of its own. */
function treeOf(top: string): DoorEntry[] {
  const at = (path: string) => `${top}/${path}`;
  return [
    { type: "directory", path: top },
    { type: "directory", path: at("a") },
    { type: "file", path: at("a/f"), content: CONTENT, xattrs: new Map([["user.a", "one"]]) },
    { type: "symlink", path: at("a/l"), target: "f" },
    { type: "directory", path: at("a/b"), mode: 0o700 },
    { type: "file", path: at("a/b/g"), content: Buffer.from("g"), mode: 0o4755 },
    { type: "directory", path: at("a/a"), mode: 0o2775, xattrs: new Map([["user.b", "\xff two"]]) },
    { type: "directory", path: at("b"), mode: 0o1777 },
    { type: "link", path: at("b/h"), target: at("a/f") },
    { type: "file", path: at("f") },
    { type: "file", path: at("g"), content: LARGE },
    { type: "symlink", path: at("l"), target: "nowhere" },
    { type: "link", path: at("h"), target: at("a/b/g") },
    { type: "file", path: at(E_ACUTE), content: Buffer.from("accent"), mode: 0o600 },
    { type: "file", path: at(NO_UTF8), content: Buffer.from("bytes") },
    { type: "directory", path: at("many") },
    ...Array.from(
      { length: MANY },
      (_, i): DoorEntry => ({ type: "file", path: at(`many/n${i}`) }),
    ),
  ];
}

export interface DoorRun {
  readonly seed: number;
  readonly sequences: number;
  /** Operations of a sequence. */
  readonly length: number;
  readonly isWritable: boolean;
}

/** The door of a host's kernel: a mount of the same tree by FUSE, where there can be one. */
async function kernelDoors(t: Test, scene: DoorScene, isReadOnly: boolean): Promise<Door[]> {
  if (noFuse !== false) {
    t.comment(`without FUSE: ${noFuse}`);
    return [];
  }
  const { folder } = await FuseDoor.open(t, { ...scene.more(), isReadOnly });
  return [new PathDoor("FUSE", folder)];
}

/** Runs the sequences of a seed. Fails at the first difference of a sequence, with what led to it. */
export async function compareDoors(t: Test, run: DoorRun): Promise<void> {
  const { seed, sequences, length, isWritable } = run;
  const tops = Array.from({ length: sequences }, (_, i) => `s${i}`);
  const fifos = isWritable
    ? []
    : tops.map((top): DoorEntry => ({ type: "fifo", path: `${top}/${FIFO}` }));
  const scene = openDoors(t, [...tops.flatMap(treeOf), ...fifos], isWritable);
  const doors = [...scene.doors, ...(await kernelDoors(t, scene, !isWritable))];
  const dice = new Dice(seed);
  const kinds = [...READING_KINDS, ...CHANGING_KINDS, ...(isWritable ? CHANGING_KINDS : [])];
  for (const top of tops) {
    const visits = doors.map((door) => {
      return { door, countsDirectories: !isWritable, held: new Map() } satisfies Visit;
    });
    const difference = compareOne(visits, dice, { kinds, top, length, isReadOnly: !isWritable });
    if (difference !== undefined) t.fail(`seed ${seed}, sequence ${top}: ${difference}`);
  }
  const names = doors.map(({ name }) => name).join(", ");
  t.pass(`${sequences} sequences of ${length} through ${names}`);
}

function compareOne(
  visits: readonly Visit[],
  dice: Dice,
  {
    kinds,
    top,
    length,
    isReadOnly,
  }: { kinds: Kind[]; top: string; length: number; isReadOnly: boolean },
): string | undefined {
  const [local, ...others] = visits;
  const done: string[] = [];
  for (let i = 0; i < length; i++) {
    const operation = nextOperation(dice, kinds, [top], NAMES);
    const expected = ask(local!, operation);
    const found = others.map((visit) => [visit, ask(visit, operation)] as const);
    done.unshift(`${shown(operation)}: ${expected}`);
    for (const [{ door }, said] of found) {
      if (said === expected) continue;
      const exception = exceptionOf({ door, operation, local: expected, said, isReadOnly });
      if (exception === undefined) return `${door.name} says ${said} to\n  ${done.join("\n  ")}`;
      neededExceptions.add(exception.name);
      exception.evenOut?.(door, operation);
    }
  }
  for (const { door, held } of visits) for (const { handle } of held.values()) door.close(handle);
  const expected = dump(local!, [top]);
  for (const visit of others) {
    const found = dump(visit, [top]);
    const at = expected.findIndex((line, i) => line !== found[i]);
    if (at < 0 && found.length === expected.length) continue;
    return `${visit.door.name} is left with\n  ${found[at]}\nnot\n  ${expected[at]}\n  ${done.join("\n  ")}`;
  }
  return undefined;
}

function exceptionOf(difference: {
  door: Door;
  operation: Operation;
  local: string;
  said: string;
  isReadOnly: boolean;
}): Exception | undefined {
  const { door, operation, local, said, isReadOnly } = difference;
  return EXCEPTIONS.find(
    (one) =>
      (one.isReadOnly ?? isReadOnly) === isReadOnly &&
      (one.door ?? door.name) === door.name &&
      one.kinds.includes(operation.kind) &&
      one.local.test(local) &&
      one.said.test(said),
  );
}

function shown({ kind, path, other, mode, size, offset, flags, slot, name }: Operation): string {
  const text = (names: readonly string[]) => names.join("/").replace(TOO_LONG, "LONG");
  return `${kind} ${text(path)} [${text(other)} mode ${mode.toString(8)} size ${size} at ${offset} flags ${flags} slot ${slot} ${name}]`;
}
