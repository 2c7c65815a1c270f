// A server that was taken over: opens the trees of a view and, asked for, an upper and a directory of the host, hardens itself as a gofer
// does, and then does what it is told to: `node hostile-program.js STATE ACT [ARGUMENT]`. Prints what came of it as JSON. Tests only.

import { execFileSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import fs from "node:fs";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { errnoName } from "../../lib/base/errno.ts";
import type { Name } from "../../lib/base/name.ts";
import { harden } from "../../lib/gofer/harden.ts";
import { openTree } from "../../lib/gofer/trees.ts";
import { hostFs, NO_ID, STAT_FIELDS } from "../../lib/sys/hostfs.ts";
import { native } from "../../lib/sys/native.ts";
import { newTmpfs } from "../../lib/sys/new-mount.ts";
import { HostTree } from "../../lib/tree/host.ts";
import { NO_SPECIAL_FILES } from "../../lib/tree/host-special.ts";
import {
  Attr,
  type Ino,
  isWritable,
  OpenResult,
  SetAttr,
  SetAttrRequest,
} from "../../lib/tree/tree.ts";

const [state = "", kinds = "", act = "", argument = ""] = process.argv.slice(2);
const O_PATH = 0o10000000;
const O_DIRECTORY = 0o200000;
const O_WRONLY = 1;
const O_RDWR = 2;
const O_CREAT = 0o100;

/** How a call went: a number or a word as it is, an error by its code. */
function outcomeOf(call: () => unknown): unknown {
  try {
    const result = call();
    return typeof result === "number" || typeof result === "string" ? result : "done";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
}

const sources = kinds
  .split(",")
  .map((kind) =>
    kind === "host" ? "/usr/share" : kind === "host-rw" ? state : join(state, "mounts", kind),
  );
const trees = sources.map((source) =>
  openTree(
    { destination: "/", source, isReadOnly: !source.endsWith("upper") && source !== state },
    state,
    NO_SPECIAL_FILES,
  ),
);
if (act === "stay with a thread whose number is far away") await startFarThread();
harden(trees, ["channels"], undefined, () => undefined);

/** As in a pid namespace where much is started. */
async function startFarThread(): Promise<void> {
  execFileSync("sh", ["-c", "for i in $(seq 100); do /bin/true; done"]);
  await once(new Worker("setInterval(() => {}, 1000)", { eval: true }), "online");
}

/** Every directory that it holds: nothing that it opens may be anywhere else. */
function* heldDirectories(): Generator<number> {
  const facts = new Float64Array(5);
  for (let fd = 0; fd < 64; fd++) {
    if (native.statFd(fd, facts) === 0 && (facts[1]! & 0o170000) === 0o040000) yield fd;
  }
}

/** By each directory FD and up to four steps above it, each of some paths with ":" between them. */
function fromAllDirectories(paths: string, flags: number): string {
  let tried = 0;
  for (const fd of heldDirectories()) {
    for (const path of paths.split(":")) {
      for (let up = 0; up <= 4; up++) {
        tried++;
        const opened = native.openAt(fd, "../".repeat(up) + path, flags, 0o600);
        if (opened >= 0) return `${path} opened by FD ${fd}, ${up} up`;
      }
    }
  }
  return tried === 0 ? "no directory is held" : "nowhere";
}

/** What the gofer is asked to do with files of any owner: those of it that fail. */
function failedWrites(): string {
  const { tree } = trees[0]!;
  if (!isWritable(tree)) return "it can't be written";
  const out = new OpenResult();
  const ino = tree.create(
    tree.rootIno,
    "file" as Name,
    { mode: 0o600, uid: 0, gid: 0, rdevMajor: 0, rdevMinor: 0 },
    O_RDWR,
    out,
  );
  const request = new SetAttrRequest();
  const change = (fields: Partial<SetAttrRequest>) => {
    Object.assign(request, fields);
    tree.setattr(ino as Ino, -1, request);
    return request.failureErrno !== 0;
  };
  const failed: string[] = [];
  if (change({ mask: SetAttr.uid | SetAttr.gid, uid: 1000, gid: 1000 })) failed.push("owner");
  if (tree.open(ino as Ino, O_RDWR, out) < 0) failed.push("open");
  if (change({ mask: SetAttr.mode, mode: 0o2640 })) failed.push("mode");
  const attr = new Attr();
  tree.getattr(ino as Ino, attr);
  if ((attr.mode & 0o2000) === 0) failed.push("set-group-id");
  return failed.join();
}

const NODES: Readonly<Record<string, number>> = {
  disk: 0o060000,
  fifo: 0o010000,
  socket: 0o140000,
  whiteout: 0o020000,
};

/** Makes a node in each directory that it holds: where it could, as "tmpfs" for its own, and which errors there were. */
function nodesMade(): string {
  const stat = new Float64Array(STAT_FIELDS);
  const isOwn = (tree: unknown) => tree instanceof HostTree && tree.isScratch;
  const own = trees.flatMap(({ tree }) => (isOwn(tree) ? [(tree as HostTree).rootFd] : []));
  const outcomes = new Set<string>();
  for (const fd of heldDirectories()) {
    const made = hostFs.makeAt(-1, fd, "node", NODES[argument]!, NO_ID, NO_ID, stat);
    if (made < 0) outcomes.add(errnoName(made));
    else outcomes.add(own.includes(fd) ? "tmpfs" : "elsewhere");
  }
  return [...outcomes].sort().join();
}

/** Fills V8's heap: with `keeps` to its limit, else until it was collected many times, compiled code and all. */
function allocate(keeps: boolean): string {
  const kept: unknown[] = [];
  for (let i = 0; keeps || i < 400; i++) {
    const sum = new Function("n", `let s = ${i}; for (let j = 0; j < n; j++) s += j % 7; return s`);
    const parts = Array.from({ length: 5_000 }, (_, j) => ({ i, j, text: `${i}.${j}` }));
    if (keeps) kept.push(parts);
    if ((sum(20_000) as number) < 0 || parts.length === 0) return "wrong";
    if (i % 40 === 0) new Uint8Array(64 * 1024 * 1024).fill(1);
  }
  return `done, ${process.cpuUsage().user > 0}`;
}

const acts: Readonly<Record<string, () => unknown>> = {
  execve: () => execFileSync("/bin/true"),
  spawn: () => native.spawnProgram(Buffer.from("true\0"), Int32Array.of(0, 1, 2)),
  thread: () => new Worker("1", { eval: true }).threadId,
  "open of a path": () => fs.openSync("/etc/passwd", "r"),
  "read of a path": () => fs.readdirSync("/"),
  "read of the working directory": () => fs.readdirSync("."),
  "write by a path": () => fs.writeFileSync("/x", "x"),
  mount: () => newTmpfs(4096, 2, 0o755),
  namespace: () => native.enterMounts(0, 0, 0),
  "another's FD": () => native.takeFd(1, 1),
  listen: () => native.listenPackets("/x", 0),
  "connect to a path": () => native.connectUnix(argument),
  "connect to a name": () => native.connectHere(-1, argument),
  "inet socket": () => createSocket("udp4").bind(1),
  "raise a limit": () => native.setNoFile(1e6),
  "another filter": () => native.filterCalls(new Uint8Array(8)),
  "open outside": () => fromAllDirectories(argument, 0),
  "look outside": () => fromAllDirectories(argument, O_PATH),
  "list outside": () => fromAllDirectories(argument, O_PATH | O_DIRECTORY),
  "write outside": () => fromAllDirectories(argument, O_WRONLY),
  "write in the cache": () => fromAllDirectories(argument, O_RDWR),
  "make in the cache": () => fromAllDirectories(argument, O_RDWR | O_CREAT),
  "make nodes": nodesMade,
  "writes of any owner": failedWrites,
  work: () => allocate(false),
  "fill the heap": () => allocate(true),
  abort: () => process.abort(),
  "stay with a thread whose number is far away": () => {
    fs.writeSync(1, "hardened");
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60_000);
  },
  serve: () => fromAllDirectories(argument, 0),
};
fs.writeSync(1, JSON.stringify(outcomeOf(acts[act]!)));
native.exitNow(0);
