// The table of operations that doors are compared by: each is asked of a door and said as text, which two doors that serve the same
// tree must have the same. What a client's kernel decides by itself (a symlink that is followed first) isn't asked. Tests only.

import { createHash } from "node:crypto";
import { errnoName } from "../../lib/base/errno.ts";
import type { Dice } from "./dice.ts";
import { type Door, type Facts, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, type Path } from "./door.ts";

/** One operation; what a kind doesn't need is ignored. */
export interface Operation {
  readonly kind: Kind;
  readonly path: Path;
  readonly other: Path;
  readonly mode: number;
  readonly size: number;
  readonly offset: number;
  readonly flags: number;
  /** Which of the files that are held open. */
  readonly slot: number;
  /** Of an attribute. */
  readonly name: string;
}

/** A door, and what a sequence of operations holds open of it. */
export interface Visit {
  readonly door: Door;
  /** Whether directories count their subdirectories: a merged one has 1 link, as of Linux's overlayfs. */
  readonly countsDirectories: boolean;
  readonly held: Map<number, { readonly handle: number; readonly flags: number }>;
}

/** Times of the fixture and of the operation that sets one are before this; others are of now. */
const NOW_SEC = 1_750_000_000;
export const TIME_SEC = 1_234_567_890;
const NOT_ASKED = "not asked";

function said(outcome: number | string): string {
  return typeof outcome === "number" && outcome < 0 ? errnoName(outcome) : `${outcome}`;
}

function bytesOf(size: number): Buffer {
  return Buffer.alloc(size, "0123456789");
}

function shortly(bytes: Buffer): string {
  return `${bytes.length} bytes ${createHash("sha256").update(bytes).digest("hex").slice(0, 8)}`;
}

function saidFacts({ countsDirectories }: Visit, facts: Facts | number): string {
  if (typeof facts === "number") return said(facts);
  const { type, mode, uid, gid, mtimeSec, mtimeNs } = facts;
  const isDirectory = type === "directory";
  const nlink = isDirectory && !countsDirectories ? "-" : facts.nlink;
  const size = isDirectory ? "-" : facts.size; // of each file system's own making
  const time = mtimeSec > NOW_SEC ? "now" : `${mtimeSec}.${mtimeNs}`;
  return `${type} ${mode.toString(8)} ${nlink} ${uid}:${gid} ${size} ${time}`;
}

/** What a path names, when an operation is asked of one type alone. */
function isA(door: Door, path: Path, ...types: readonly Facts["type"][]): boolean {
  const facts = door.stat(path);
  return typeof facts === "number" || types.includes(facts.type);
}

/** Opens, does and closes. */
function through(
  { door }: Visit,
  path: Path,
  flags: number,
  action: (handle: number) => string,
): string {
  if (!isA(door, path, "file", "directory")) return NOT_ASKED;
  const handle = door.open(path, flags);
  if (handle < 0) return said(handle);
  const outcome = action(handle);
  door.close(handle);
  return outcome;
}

function readAll(door: Door, handle: number): string {
  const bytes = door.read(handle, 0, 4 << 20);
  return typeof bytes === "number" ? said(bytes) : shortly(bytes);
}

function onHeld(
  { held }: Visit,
  { slot }: Operation,
  action: (handle: number, flags: number) => string,
): string {
  const one = held.get(slot);
  return one === undefined ? NOT_ASKED : action(one.handle, one.flags);
}

function drop({ door, held }: Visit, { slot }: Operation): string {
  const one = held.get(slot);
  if (one !== undefined) door.close(one.handle);
  held.delete(slot);
  return "";
}

type Row = (visit: Visit, operation: Operation) => string;

/** What reads. */
const READING = {
  stat: (visit, { path }) => saidFacts(visit, visit.door.stat(path)),
  same: ({ door }, { path, other }) => {
    const [one, two] = [door.stat(path), door.stat(other)];
    if (typeof one === "number") return said(one);
    return typeof two === "number" ? said(two) : String(one.id === two.id);
  },
  readlink: ({ door }, { path }) => said(door.readlink(path)),
  list: ({ door }, { path }) => {
    const found = door.list(path);
    if (typeof found === "number") return said(found);
    return found
      .map(({ name, type }) => `${name} ${type}`)
      .sort()
      .join();
  },
  read: (visit, { path, offset, size }) =>
    through(visit, path, O_RDONLY, (handle) => {
      const bytes = visit.door.read(handle, offset, size);
      return typeof bytes === "number" ? said(bytes) : shortly(bytes);
    }),
  listXattrs: ({ door }, { path }) => {
    if (!isA(door, path, "file", "directory")) return NOT_ASKED;
    const names = door.listXattrs(path);
    return typeof names === "number" ? said(names) : [...names].sort().join();
  },
  getXattr: ({ door }, { path, name }) =>
    isA(door, path, "file", "directory") ? said(door.getXattr(path, name)) : NOT_ASKED,
  holdToRead: (visit, operation) => hold(visit, operation, O_RDONLY),
  heldRead: (visit, operation) =>
    onHeld(visit, operation, (handle) => {
      const bytes = visit.door.read(handle, operation.offset, operation.size);
      return typeof bytes === "number" ? said(bytes) : shortly(bytes);
    }),
  heldStat: (visit, operation) =>
    onHeld(visit, operation, (handle) => saidFacts(visit, visit.door.fstat(handle))),
  drop,
} satisfies Record<string, Row>;

function hold(visit: Visit, operation: Operation, flags: number): string {
  const { door, held } = visit;
  const { path, slot } = operation;
  drop(visit, operation);
  if (!isA(door, path, "file")) return NOT_ASKED;
  const handle = door.open(path, flags);
  if (handle < 0) return said(handle);
  held.set(slot, { handle, flags });
  return "held";
}

/** What changes. */
const CHANGING = {
  create: ({ door }, { path, mode, size }) => {
    const handle = door.create(path, O_WRONLY, mode);
    if (handle < 0) return said(handle);
    const wrote = said(door.write(handle, 0, bytesOf(size)));
    const facts = door.fstat(handle);
    door.close(handle);
    return `${wrote} ${typeof facts === "number" ? said(facts) : facts.mode.toString(8)}`;
  },
  write: (visit, { path, offset, size }) =>
    through(visit, path, O_WRONLY, (handle) =>
      said(visit.door.write(handle, offset, bytesOf(size))),
    ),
  overwrite: (visit, { path, size }) =>
    through(visit, path, O_RDWR | O_TRUNC, (handle) => {
      const wrote = said(visit.door.write(handle, 0, bytesOf(size)));
      return `${wrote} ${said(visit.door.fsync(handle))} ${readAll(visit.door, handle)}`;
    }),
  truncate: ({ door }, { path, size }) =>
    isA(door, path, "file") ? said(door.change(path, { size })) : NOT_ASKED,
  chmod: ({ door }, { path, mode }) =>
    isA(door, path, "file", "directory") ? said(door.change(path, { mode })) : NOT_ASKED,
  chown: ({ door }, { path, mode }) => said(door.change(path, { uid: mode, gid: mode + 1 })),
  utimes: ({ door }, { path, size }) => said(door.change(path, { timeSec: TIME_SEC + size })),
  // A kernel passes no other bits on. Linux, fs/namei.c vfs_mkdir.
  mkdir: ({ door }, { path, mode }) => said(door.mkdir(path, mode & 0o1777)),
  symlink: ({ door }, { path, other }) => said(door.symlink(path, other.join("/"))),
  link: ({ door }, { path, other }) => said(door.link(path, other)),
  unlink: ({ door }, { path }) => said(door.unlink(path)),
  rmdir: ({ door }, { path }) => said(door.rmdir(path)),
  rename: ({ door }, { path, other }) => said(door.rename(path, other)),
  setXattr: ({ door }, { path, name, size, flags }) =>
    isA(door, path, "file", "directory")
      ? said(door.setXattr(path, name, `value ${size}`, flags))
      : NOT_ASKED,
  removeXattr: ({ door }, { path, name }) =>
    isA(door, path, "file", "directory") ? said(door.removeXattr(path, name)) : NOT_ASKED,
  holdToWrite: (visit, operation) => hold(visit, operation, O_RDWR),
  heldWrite: (visit, operation) =>
    onHeld(visit, operation, (handle) => {
      const { offset, size } = operation;
      return said(visit.door.write(handle, offset, bytesOf(size)));
    }),
  heldTruncate: (visit, operation) =>
    onHeld(visit, operation, (handle, flags) =>
      flags === O_RDONLY ? NOT_ASKED : said(visit.door.truncate(handle, operation.size)),
    ),
} satisfies Record<string, Row>;

export type Kind = keyof typeof READING | keyof typeof CHANGING;
const TABLE: Readonly<Record<Kind, Row>> = { ...READING, ...CHANGING };
export const READING_KINDS = Object.keys(READING) as Kind[];
export const CHANGING_KINDS = Object.keys(CHANGING) as Kind[];

/** What a door says of an operation. */
export function ask(visit: Visit, operation: Operation): string {
  return TABLE[operation.kind](visit, operation);
}

export const TOO_LONG = "x".repeat(256);
const SIZES = [0, 1, 4095, 4096, 4097, 70_000, 300_000];

/** An operation below a directory, on few names so that operations meet. */
export function nextOperation(
  dice: Dice,
  kinds: readonly Kind[],
  below: Path,
  names: readonly string[],
): Operation {
  const path = (): Path => {
    const depth = dice.of([1, 1, 2, 2, 2, 3]);
    const name = () => (dice.pick(100) === 0 ? TOO_LONG : dice.of(names));
    return [...below, ...Array.from({ length: depth }, name)];
  };
  return {
    kind: dice.of(kinds),
    path: path(),
    other: path(),
    mode: dice.of([0o600, 0o644, 0o755, 0o777, 0o4755, 0o1700, 0o2770, 0]),
    size: dice.of(SIZES),
    offset: dice.of([0, 0, 1, 4096, 4999, 100_001]),
    flags: dice.pick(3),
    slot: dice.pick(3),
    name: dice.of(["user.a", "user.b", "user.burrow.x"]),
  };
}

/** All that is to be seen below a directory, one line a path, and which paths are one file. */
export function dump(visit: Visit, top: Path): string[] {
  const { door } = visit;
  const lines: string[] = [];
  const firsts = new Map<string, string>();
  const ofPath = { other: top, mode: 0, size: 4 << 20, offset: 0, flags: 0, slot: 0, name: "" };
  const go = (path: Path): void => {
    const facts = door.stat(path);
    const shown = path.join("/");
    if (typeof facts === "number") {
      lines.push(`${shown} ${said(facts)}`);
      return;
    }
    const first = firsts.get(facts.id) ?? shown;
    firsts.set(facts.id, first);
    const kinds: Kind[] = facts.type === "file" ? ["read"] : ["readlink"];
    if (facts.type !== "symlink") kinds.push("listXattrs");
    const more = kinds.map((kind) => ask(visit, { ...ofPath, kind, path }));
    lines.push(`${shown} ${saidFacts(visit, facts)} =${first} ${more.join(" ")}`);
    if (facts.type !== "directory") return;
    const found = door.list(path);
    if (typeof found === "number") lines.push(`${shown}/ ${said(found)}`);
    else for (const name of found.map((one) => one.name).sort()) go([...path, name]);
  };
  go(top);
  return lines;
}
