// Linux's tmpfs as the model of a writable tree: random sequences of operations through the tree and, by node:fs, on a directory of a
// mounted tmpfs give the same results, errnos and final trees. Control plane.

import {
  accessSync,
  chmodSync,
  closeSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { Errno, errnoName, fromNode } from "../../lib/base/errno.ts";
import type { Name } from "../../lib/base/name.ts";
import {
  type Ino,
  O_RDONLY,
  O_TRUNC,
  O_WRONLY,
  OpenResult,
  SetAttr,
  SetAttrRequest,
  type WritableTree,
} from "../../lib/tree/tree.ts";
import type { Test } from "./tree-behaviour.ts";
import {
  attrOf,
  contents,
  createRequest,
  type FixtureEntry,
  finish,
  list,
  populateDirectory,
  walk,
} from "./tree-fixture.ts";

/** Where Linux's tmpfs is. */
const BASE = "/dev/shm";

/** A path of 1 to 3 names out of few, so that operations meet. */
type Path = readonly string[];

/** One operation; the fields that a kind needs not are ignored. */
interface Op {
  readonly kind: (typeof KINDS)[number];
  readonly path: Path;
  readonly other: Path;
  readonly mode: number;
  readonly size: number;
}

const KINDS = [
  "create",
  "mkdir",
  "symlink",
  "link",
  "unlink",
  "rmdir",
  "rename",
  "write",
  "overwrite",
  "read",
  "truncate",
  "chmod",
  "utimes",
  "readlink",
  "list",
  "stat",
  "restart",
] as const;

/** As text; UTF-8 on the disk. */
export const NAMES = ["a", "b", "\u00e9"] as const;
const paths = fc.array(fc.constantFrom(...NAMES), { minLength: 1, maxLength: 3, size: "max" });
const ops: fc.Arbitrary<Op> = fc.record({
  kind: fc.constantFrom(...KINDS),
  path: paths,
  other: paths,
  mode: fc.constantFrom(0o600, 0o644, 0o777, 0o4755, 0o1700, 0o000),
  size: fc.constantFrom(0, 1, 4095, 4096, 4097, 70_000),
});

const sequences = fc.array(ops, { minLength: 1, maxLength: 60, size: "max" });

/** What an operation gave: text of its result, or the errno's name. */
type Outcome = string;

/** What is compared with Linux. */
export interface Modelled {
  /** What is there before the first operation: Linux is given the same. */
  readonly fixture: readonly FixtureEntry[];
  readonly isOverlay: boolean;
  /** A tree over what is there; another one, later, over what the one before left. */
  open(): WritableTree;
  dispose(): void;
}

interface Stat {
  readonly mode: number;
  readonly nlink: number;
  readonly size: number;
  readonly blocks: number;
  readonly uid: number;
  readonly gid: number;
}

/** A world that operations run in: through our tree, or through Linux. */
interface World {
  run(op: Op): number | string;
}

const TIME_SEC = 1_234_567_890;

class OurWorld implements World {
  readonly #modelled: Modelled;
  #tree: WritableTree;

  constructor(modelled: Modelled) {
    this.#modelled = modelled;
    this.#tree = modelled.open();
  }

  dispose(): void {
    this.#tree.dispose();
  }

  run(op: Op): number | string {
    if (op.kind === "restart") {
      this.#tree.dispose();
      this.#tree = this.#modelled.open();
      return 0;
    }
    return this.#at(op.path.slice(0, -1), (dir) => {
      const name = latin1(op.path.at(-1)!);
      return this.#change(op, dir, name) ?? this.#at(op.path, (ino) => this.#use(op, ino));
    });
  }

  #at(path: Path, action: (ino: Ino) => number | string): number | string {
    const ino = walk(this.#tree, path.map(latin1).join("/"));
    if (ino < 0) return ino;
    const result = action(ino as Ino);
    this.#tree.release(ino as Ino);
    return result;
  }

  /** Operations on a name; undefined for those on an inode. */
  #change(op: Op, dir: Ino, name: Name): number | string | undefined {
    const tree = this.#tree;
    const request = createRequest(op.mode);
    const created = (ino: number): number => {
      if (ino > 0) tree.release(ino as Ino);
      return Math.min(ino, 0);
    };
    if (op.kind === "create") {
      const opened = new OpenResult();
      const ino = tree.create(dir, name, request, O_WRONLY, opened);
      if (ino > 0) {
        tree.write(ino as Ino, opened.handle, 0, bytesOf(op.size));
        finish(tree, ino as Ino, opened);
      }
      return created(ino);
    }
    if (op.kind === "mkdir") return created(tree.mkdir(dir, name, request));
    if (op.kind === "symlink") {
      return created(tree.symlink(dir, name, op.other.map(latin1).join("/"), request));
    }
    if (op.kind === "unlink") return tree.unlink(dir, name, false);
    if (op.kind === "rmdir") return tree.unlink(dir, name, true);
    const newParent = op.other.slice(0, -1);
    const newName = latin1(op.other.at(-1) ?? "");
    if (op.kind === "rename") {
      // As rename(2) does: what is wrong with the old parent comes before what is wrong with the new one.
      if ((attrOf(tree, dir).mode & 0o170000) !== 0o040000) return -Errno.ENOTDIR;
      return this.#at(newParent, (newDir) => tree.rename(dir, name, newDir, newName, 0));
    }
    if (op.kind === "link") {
      return this.#at(op.path, (ino) =>
        this.#at(newParent, (newDir) => created(tree.link(newDir, newName, ino))),
      );
    }
    return undefined;
  }

  #use(op: Op, ino: Ino): number | string {
    const tree = this.#tree;
    if (op.kind === "stat") return this.#stat(ino);
    if (op.kind === "list") {
      const handle = tree.opendir(ino);
      if (handle < 0) return handle;
      tree.closedir(ino, handle);
      return [...list(tree, ino).keys()]
        .map((name) => utf8(name))
        .sort()
        .join();
    }
    if (op.kind === "readlink") {
      const out = Buffer.alloc(4096);
      const length = tree.readlink(ino, out);
      return length < 0 ? length : out.toString("utf8", 0, length);
    }
    if (op.kind === "chmod" || op.kind === "utimes") {
      const mask = op.kind === "chmod" ? SetAttr.mode : SetAttr.atime | SetAttr.mtime;
      const times = { atimeSec: TIME_SEC, atimeNs: 0, mtimeSec: TIME_SEC + op.size, mtimeNs: 0 };
      const request = Object.assign(new SetAttrRequest(), { mask, mode: op.mode, ...times });
      return tree.setattr(ino, -1, request) || -request.failureErrno;
    }
    const flags = { read: O_RDONLY, overwrite: O_WRONLY | O_TRUNC }[op.kind as string] ?? O_WRONLY;
    const opened = new OpenResult();
    const failed = tree.open(ino, flags, opened);
    if (failed < 0) return failed;
    let result: number | string = 0;
    if (op.kind === "read") result = contents(tree, ino).read.toString("latin1");
    else if (op.kind === "truncate") {
      const request = Object.assign(new SetAttrRequest(), { mask: SetAttr.size, size: op.size });
      result = tree.setattr(ino, opened.handle, request) || -request.failureErrno;
    } else result = tree.write(ino, opened.handle, op.mode, bytesOf(op.size));
    finish(tree, ino, opened);
    return result;
  }

  #stat(ino: Ino): string {
    return statText(attrOf(this.#tree, ino), this.#modelled.isOverlay);
  }
}

/** The same through Linux's paths, with the walk of a tree: no symlink is followed on the way. */
class LinuxWorld implements World {
  readonly #root: string;
  readonly #isOverlay: boolean;

  constructor(root: string, isOverlay: boolean) {
    this.#root = root;
    this.#isOverlay = isOverlay;
  }

  #path(path: Path): string {
    return join(this.#root, ...path);
  }

  run(op: Op): number | string {
    if (op.kind === "restart") return 0;
    const isPair = op.kind === "link" || op.kind === "rename";
    const blocked =
      this.#walk(op.path.slice(0, -1)) ||
      // link(2) looks its source up before it walks to the target, rename(2) walks to both first.
      (op.kind === "link" ? this.#exists(op.path) : 0) ||
      (isPair ? this.#walk(op.other.slice(0, -1)) : 0);
    if (blocked !== 0) return blocked;
    try {
      return this.#run(op, this.#path(op.path), this.#path(op.other));
    } catch (error) {
      return fromNode(error);
    }
  }

  #walk(path: Path): number {
    for (let length = 1; length <= path.length; length++) {
      try {
        if (!lstatSync(this.#path(path.slice(0, length))).isDirectory()) return -Errno.ENOTDIR;
      } catch (error) {
        return fromNode(error);
      }
    }
    return 0;
  }

  #exists(path: Path): number {
    try {
      lstatSync(this.#path(path));
      return 0;
    } catch (error) {
      return fromNode(error);
    }
  }

  #run(op: Op, path: string, other: string): number | string {
    if (op.kind === "create") {
      const fd = openSync(path, "wx", op.mode);
      writeSync(fd, bytesOf(op.size), 0, op.size, 0);
      closeSync(fd);
      chmodSync(path, op.mode);
    } else if (op.kind === "mkdir") {
      mkdirSync(path, op.mode);
      chmodSync(path, op.mode);
    } else if (op.kind === "symlink") symlinkSync(op.other.join("/"), path);
    else if (op.kind === "link") linkSync(path, other);
    else if (op.kind === "unlink") unlinkSync(path);
    else if (op.kind === "rmdir") rmdirSync(path);
    else if (op.kind === "rename") renameSync(path, other);
    else return this.#use(op, path);
    return 0;
  }

  #use(op: Op, path: string): number | string {
    const stat = lstatSync(path);
    if (op.kind === "stat") return statText(stat, this.#isOverlay);
    if (op.kind === "list" && stat.isDirectory()) return readdirSync(path).sort().join();
    if (op.kind === "readlink") return readlinkSync(path);
    // The tree's handles are of inodes: on a symlink they differ from Linux's paths, and say so.
    if (op.kind === "list") return -Errno.ENOTDIR;
    if (stat.isSymbolicLink()) {
      if (op.kind === "utimes") return 0;
      return op.kind === "chmod" ? -Errno.EOPNOTSUPP : -Errno.EINVAL;
    }
    if (op.kind === "chmod") chmodSync(path, op.mode);
    else if (op.kind === "utimes") utimesSync(path, TIME_SEC, TIME_SEC + op.size);
    else if (op.kind === "read") return readFileSync(path, "latin1");
    else {
      const fd = openSync(path, op.kind === "overwrite" ? 0o1001 : 1);
      try {
        if (op.kind === "truncate") ftruncateSync(fd, op.size);
        else return writeSync(fd, bytesOf(op.size), 0, op.size, op.mode);
      } finally {
        closeSync(fd);
      }
    }
    return 0;
  }
}

/** An overlay's merged directories have one link, and a file that was copied up but for its bytes the blocks that it had. */
function statText(attr: Stat, isOverlay: boolean): string {
  const { mode, nlink, size, blocks, uid, gid } = attr;
  const isDirectory = (mode & 0o170000) === 0o040000;
  const links = isOverlay && isDirectory ? "-" : nlink;
  const length = isDirectory ? 0 : size;
  return `${mode.toString(8)} ${links} ${length} ${isOverlay ? "-" : blocks} ${uid}:${gid}`;
}

function latin1(name: string): Name {
  return Buffer.from(name, "utf8").toString("latin1") as Name;
}

function utf8(name: string): string {
  return Buffer.from(name, "latin1").toString("utf8");
}

function bytesOf(size: number): Buffer {
  return Buffer.alloc(size, "0123456789");
}

function outcomeOf(result: number | string): Outcome {
  return typeof result === "number" && result < 0 ? errnoName(result) : String(result);
}

/** Every path below the root with what stat, readlink and read say. */
function dump(world: World): string[] {
  const lines: string[] = [];
  const visit = (path: Path): void => {
    const op = (kind: Op["kind"]) =>
      outcomeOf(world.run({ kind, path, other: [], mode: 0, size: 0 }));
    lines.push(`${path.join("/")} ${op("stat")} ${op("readlink")} ${op("read")}`);
    const names = op("list");
    if (names in Errno || names === "") return;
    for (const name of names.split(",")) visit([...path, name]);
  };
  for (const name of NAMES) visit([name]);
  return lines;
}

/** Why there is nothing to compare with; undefined when there is. */
export function noModel(): string | undefined {
  try {
    accessSync(BASE);
    return undefined;
  } catch {
    return `no ${BASE} to compare with`;
  }
}

/** One sequence in both worlds; throws at the first difference. `tally` counts what was met. */
function compare(modelled: Modelled, sequence: readonly Op[], tally: Map<string, number>): void {
  const root = mkdtempSync(join(BASE, "burrow-model-"));
  const ours = new OurWorld(modelled);
  try {
    populateDirectory(root, modelled.fixture);
    const linux = new LinuxWorld(root, modelled.isOverlay);
    for (const [i, op] of sequence.entries()) {
      const expected = outcomeOf(linux.run(op));
      const actual = outcomeOf(ours.run(op));
      if (actual !== expected) {
        throw new Error(`${i} ${JSON.stringify(op)}: ${actual}, Linux: ${expected}`);
      }
      const key = expected in Errno ? `${op.kind} ${expected}` : op.kind;
      tally.set(key, (tally.get(key) ?? 0) + 1);
    }
    const [left, right] = [dump(ours).join("\n"), dump(linux).join("\n")];
    if (left !== right) throw new Error(`trees differ:\n${left}\n--- Linux:\n${right}`);
  } finally {
    ours.dispose();
    modelled.dispose();
    rmSync(root, { recursive: true });
  }
}

/** Runs of `make`'s trees, each with a sequence of its own. BURROW_FUZZ_RUNS and BURROW_FUZZ_SEED have the last word. */
export function modelSuite(t: Test, defaultRuns: number, make: () => Modelled): void {
  const runs = Number(process.env["BURROW_FUZZ_RUNS"] ?? defaultRuns);
  const umask = process.umask(0);
  const seed = Number(process.env["BURROW_FUZZ_SEED"] ?? Date.now() & 0x7fffffff);
  t.comment(`seed ${seed}, ${runs} runs`);
  const tally = new Map<string, number>();
  const property = fc.property(sequences, (sequence) => compare(make(), sequence, tally));
  fc.assert(property, { seed, numRuns: runs });
  process.umask(umask);
  t.ok(tally.size > 40, `${tally.size} kinds of outcome were met`);
  const counts = [...tally].map(([key, count]) => `${key}: ${count}`);
  t.comment(counts.sort().join(", "));
}
