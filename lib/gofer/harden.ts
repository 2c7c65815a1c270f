// Harden: what the server gives up between its set-up and the first byte of a sandbox that it reads: root directory, capabilities, memory
// for others to see, and every system call that isn't in the table of calls.ts. docs/design/0015-hardening.md. Control plane.

import { readdirSync } from "node:fs";
import { Errno, errnoName } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { openFenced } from "../sys/fence.ts";
import { native } from "../sys/native.ts";
import { newEmptyRoot } from "../sys/new-mount.ts";
import { CALLS, type Need } from "./calls.ts";
import { filterProgram, Verdict } from "./filter.ts";
import { hostTreeOf, type OpenedTree } from "./trees.ts";

/** What $BURROW_HARDEN may say: "log" has the kernel's log tell of calls that would end the process, and lets them pass. */
export type HardenMode = "on" | "log" | "off";

/** linux/capability.h. man capabilities(7). */
export const Capability = {
  chown: 0,
  dacOverride: 1,
  dacReadSearch: 2,
  fowner: 3,
  fsetid: 4,
} as const;
/** A tree that is written has files of any owner, and whoever asks for a change is judged by the sentry. */
export const WRITERS: readonly number[] = [
  Capability.chown,
  Capability.dacOverride,
  Capability.fowner,
  Capability.fsetid,
];
/** So is whoever reads a directory of the host. */
const READERS: readonly number[] = [Capability.dacReadSearch];

/** linux/landlock.h, LANDLOCK_ACCESS_FS_*. */
const LandlockRight = {
  execute: 1,
  writeFile: 2,
  readFile: 4,
  readDir: 8,
  makeSock: 1 << 9,
  makeFifo: 1 << 10,
  makeBlock: 1 << 11,
  truncate: 1 << 14,
} as const;
/** Before it no file may be renamed to another directory. */
export const LANDLOCK_VERSION_MIN = 2;
/** How many rights there are, from which version on: up to rename between directories, truncate, ioctl. */
const LANDLOCK_RIGHTS: readonly (readonly [version: number, bits: number])[] = [
  [LANDLOCK_VERSION_MIN, 14],
  [3, 15],
  [5, 16],
];

/** sys/resource.h. */
const Resource = { core: 4, processes: 6, addressSpace: 9 } as const;
/** What V8's heap may grow to, at most 4 GiB on any machine, and as much for code, stacks and windows of channels. */
const ADDRESS_SPACE_ROOM_BYTES = 8 * 1024 ** 3;
/** The same with indexes and channels of many sandboxes. */
const SHARED_ROOM_BYTES = 64 * 1024 ** 3;

/** What goes on to be reached: of a tree, or of trees that are yet to come: the mounts of their uppers. */
export interface Hardened extends Partial<Omit<OpenedTree, "upperFd">> {
  readonly upperFds?: readonly number[];
}

/** What a server of these trees needs of the kernel. */
export interface Needs {
  readonly calls: ReadonlySet<Need>;
  /** Numbers of Capability, ascending. */
  readonly capabilities: readonly number[];
}

/** `door`: what it needs for its clients, whatever it serves. */
function needsOf(trees: readonly Hardened[], door: readonly Need[]): Needs {
  const calls = new Set<Need>(door);
  const capabilities = new Set<number>();
  for (const { tree, mailbox } of trees) {
    if (mailbox !== undefined) calls.add("daemon");
    const host = tree && hostTreeOf(tree);
    if (host === undefined) continue;
    calls.add("host");
    if (!host.isReadOnly) calls.add("writes");
    if (host.isScratch && door.includes("channels")) calls.add("devices");
    if (host.hasSockets) calls.add("sockets");
    for (const each of host.isReadOnly ? READERS : WRITERS) capabilities.add(each);
  }
  return { calls, capabilities: [...capabilities].sort((a, b) => a - b) };
}

/** "on" when nothing is said. Throws BURROW_USAGE for anything else. */
export function hardenMode(text: string | undefined): HardenMode {
  if (text === undefined || text === "" || text === "on") return "on";
  if (text === "log" || text === "off") return text;
  throw new BurrowError("BURROW_USAGE", `BURROW_HARDEN is on, log or off, not ${text}`);
}

/**
 * Gives up all that serving these trees by that door doesn't need, on every thread, for good; `setting` is $BURROW_HARDEN. What a kernel
 * or a user namespace can't do is logged; without a filter or with a capability too many nothing is served: throws BurrowError.
 */
export function harden(
  trees: readonly Hardened[],
  door: readonly Need[],
  setting: string | undefined,
  log: (line: string) => void,
  needs: Needs = needsOf(trees, door),
): void {
  const mode = hardenMode(setting);
  if (mode === "off") {
    log("not hardened: BURROW_HARDEN=off");
    native.setNoNewPrivs();
    return;
  }
  const root = newEmptyRoot();
  if (root < 0) log(`keeps its root directory: ${errnoName(root)}`);
  const ruleset = rulesFor(trees, log);
  const folder = openFolders(trees, needs.calls.has("sockets"));
  limit(Resource.core, 0);
  limit(Resource.processes, 0);
  const { threads, addressBytes } = ownSize();
  const roomBytes = needs.calls.has("launches") ? SHARED_ROOM_BYTES : ADDRESS_SPACE_ROOM_BYTES;
  limit(Resource.addressSpace, addressBytes + roomBytes);
  giveUp(threads, root, folder < 0 ? root : folder, ruleset, needs.capabilities);
  check(native.hideMemory(), "hide its memory");
  const otherwise = mode === "log" ? Verdict.log : Verdict.kill;
  const program = filterProgram(CALLS, needs.calls, otherwise, process.pid);
  check(native.filterCalls(program), "filter its calls");
  // The root's stays: to give it back takes the kernel longer than all of the above.
  for (const fd of [folder, ruleset]) if (fd >= 0) native.closeFd(fd);
}

/**
 * Has the mailboxes find their daemons without a path: in the working directory, whose FD is given (the caller's), or, where there are
 * several caches, by the FDs of their folders, which stay. -1: nobody needs one.
 */
function openFolders(trees: readonly Hardened[], hasSockets: boolean): number {
  const caches = new Set(trees.flatMap(({ cache }) => cache ?? []));
  const folders = new Map([...caches].map((cache) => [cache, openFenced(cache)]));
  // Sockets of the host are reached by the working directory, too.
  const isOnly = folders.size === 1 && !hasSockets;
  for (const { mailbox, cache } of trees) mailbox?.useFolder(isOnly ? -1 : folders.get(cache!)!);
  return isOnly ? [...folders.values()][0]! : -1;
}

/** The FD of a Landlock ruleset, or -1 where the kernel has none that would do: before version 2 no file may be renamed to another folder. */
function rulesFor(trees: readonly Hardened[], log: (line: string) => void): number {
  const version = native.landlockVersion();
  const bits = LANDLOCK_RIGHTS.findLast(([first]) => first <= version)?.[1];
  if (bits === undefined) {
    log(`no Landlock: ${version < 0 ? errnoName(version) : `version ${version}`}`);
    return -1;
  }
  const all = 2 ** bits - 1;
  const { execute, writeFile, readFile, readDir, makeSock, makeFifo, makeBlock, truncate } =
    LandlockRight;
  const ofFiles = all & (execute | writeFile | readFile | truncate);
  const rules = new Map<number, number>();
  for (const { tree, folderFds = [], upperFds = [] } of trees) {
    for (const fd of folderFds) rules.set(fd, readFile | readDir);
    for (const fd of upperFds) rules.set(fd, all);
    const host = tree && hostTreeOf(tree);
    if (host === undefined) continue;
    // What keeps a sandbox's devices is of no use elsewhere, and a whiteout is all that a character device can be.
    const unused = host.isScratch ? 0 : makeFifo | (host.hasSockets ? 0 : makeSock);
    const written = all & ~(makeBlock | unused);
    const rights = host.isReadOnly ? readFile | readDir : written;
    rules.set(host.rootFd, host.isDirectory ? rights : rights & ofFiles);
  }
  const ruleset = native.landlockRules(
    all,
    Int32Array.from(rules.keys()),
    Int32Array.from(rules.values()),
  );
  check(ruleset, "make its Landlock rules");
  return ruleset;
}

function limit(resource: number, value: number): void {
  check(native.limitResource(resource, value), "limit itself");
}

const scratch = Buffer.alloc(8 * 1024);

/** A file of /proc. By calls of our own: node's take a millisecond when they are cold. */
function readProc(path: string): string {
  const fd = native.openAt(-1, path, 0, 0);
  const got = fd < 0 ? fd : native.readFd(fd, scratch);
  if (fd >= 0) native.closeFd(fd);
  check(got, `read ${path}`);
  return scratch.toString("latin1", 0, got);
}

/** Of the whole process. man proc_pid_stat(5): num_threads is field 20, vsize 23; the name before them may hold anything. */
function ownSize(): { threads: number; addressBytes: number } {
  const stat = readProc("/proc/self/stat");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return { threads: Number(fields[20 - 3]), addressBytes: Number(fields[23 - 3]) };
}

/** A thread's number in the process's own pid namespace, the last of the line. man proc(5), NSpid. */
function threadId(task: string): number {
  const status = readProc(`/proc/self/task/${task}/status`);
  const start = status.indexOf("NSpid:");
  const line = status.slice(start, status.indexOf("\n", start));
  return Number.parseInt(line.slice(line.lastIndexOf("\t") + 1), 10);
}

/** So many numbers from the process's own on are asked whether they are threads of ours: reading /proc for each costs a start 0.3 ms. */
const NEAR = 64;

function giveUp(
  threads: number,
  root: number,
  folder: number,
  ruleset: number,
  kept: readonly number[],
): void {
  const low = kept.reduce((bits, capability) => bits | (1 << capability), 0);
  const near = new Int32Array(NEAR);
  for (let i = 0; i < NEAR; i++) near[i] = process.pid + i;
  let outcome = native.giveUp(near, root, folder, ruleset, low, 0, threads);
  // Others' numbers lie between them, in a busy pid namespace.
  if (outcome === -Errno.ESRCH) {
    const all = Int32Array.from(readdirSync("/proc/self/task").map(threadId));
    outcome = native.giveUp(all, root, folder, ruleset, low, 0, -1);
  }
  check(outcome, "give up its capabilities");
}

function check(outcome: number, what: string): void {
  if (outcome >= 0) return;
  throw new BurrowError("BURROW_IO", `the server can't ${what}: ${errnoName(outcome)}`);
}
