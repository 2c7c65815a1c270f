// burrow's 9P server beside diod, each on a unix stream socket, by the same client: 32 MiB written and read, a storm of stats and a large
// directory, in turns; wall time of the client and CPU time of the server.
//
// Expected: a request is one write(2) and one read(2) on each side, 10 to 20 us with the switches between; data is copied twice more.
// Ours answers names and attributes from a mapped index, diod by system calls.

import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import type { Socket } from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";
import type { NinepConfig } from "../../lib/gofer/ninep-config.ts";
import { native } from "../../lib/sys/native.ts";
import { writeMount } from "../../test/suite/gofer-process.ts";
import { type Files, makeView } from "../../test/suite/view-cache.ts";
import type { Bench } from "../run.ts";
import { median } from "../samples.ts";
import { type Peer, startDiod } from "./diod.ts";
import { Ends } from "./ends.ts";
import { BenchClient } from "./ninep-client.ts";

const MIB = 1024 * 1024;
const SOCK_STREAM = 1;
const TOTAL_BYTES = 32 * MIB;
/** What diod grants at most. */
const MSIZE = 65_536;
const LARGEST_MSIZE = MIB;
const PROGRAM = fileURLToPath(new URL("../../ninep.cjs", import.meta.url));
const STATED = 2_000;
const LISTED = 10_000;

/** A client of each of a server's views, and what is done with it. */
interface Side {
  readonly name: string;
  readonly process: Peer["process"];
  readonly tree: BenchClient;
  readonly tmp: BenchClient;
}

/** What one round of a case does: how many of `unit` it did. */
interface Case {
  readonly name: string;
  readonly unit: "MiB" | "requests" | "names";
  run(side: Side): number;
}

const CASES: readonly Case[] = [
  {
    name: "write 32 MiB",
    unit: "MiB",
    run({ tmp }) {
      const bytes = Buffer.alloc(tmp.dataMax, "x");
      tmp.walk(1);
      tmp.create(1, "written");
      for (let at = 0; at < TOTAL_BYTES; at += bytes.length) tmp.write(1, at, bytes);
      tmp.remove(1);
      return TOTAL_BYTES / MIB;
    },
  },
  {
    name: "read 32 MiB",
    unit: "MiB",
    run({ tree }) {
      tree.walk(1, "large");
      tree.open(1);
      for (let at = 0; at < TOTAL_BYTES; ) {
        const count = Math.min(tree.dataMax, TOTAL_BYTES - at);
        tree.read(1, at, count);
        at += count;
      }
      tree.clunk(1);
      return TOTAL_BYTES / MIB;
    },
  },
  {
    name: "walk, stat, clunk",
    unit: "requests",
    run({ tree }) {
      for (let i = 0; i < STATED; i++) {
        tree.walk(1, "many", nameOf(i));
        tree.size(1);
        tree.clunk(1);
      }
      return 3 * STATED;
    },
  },
  {
    name: "readdir",
    unit: "names",
    run({ tree }) {
      tree.walk(1, "many");
      tree.open(1);
      const count = tree.list(1);
      tree.clunk(1);
      if (count !== LISTED + 2) throw new Error(`${count} names`);
      return count;
    },
  },
];

const nameOf = (i: number) => `a-name-of-some-length-${i}`;

/** burrow's 9P server of both views, with a client's end of each of two sockets. */
async function startOurs(ends: Ends, state: string, files: Files) {
  const tree = makeView(state, files);
  const upper = { kind: "upper", sizeBytes: 64 * MIB, inodes: 100, mode: 0o1777 };
  const views = [
    { name: "tree", source: tree, isReadOnly: true },
    { name: "tmp", source: writeMount(state, "tmp", upper), isReadOnly: false },
  ];
  const fds: number[] = [];
  const served: number[] = [];
  for (let i = 0; i < 3; i++) {
    const pair = new Int32Array(2);
    if (native.socketPair(SOCK_STREAM, pair) < 0) throw new Error("no socket");
    fds.push(pair[0]!);
    native.setNonblock(pair[1]!);
    served.push(pair[1]!);
  }
  const access = { users: [], addresses: [], cids: [] };
  const config: NinepConfig = { state, views, listens: served.map(() => false), access };
  const child = spawn(process.execPath, [PROGRAM, JSON.stringify(config)], {
    stdio: ["ignore", "ignore", "inherit", "pipe", ...served],
  });
  ends.teardown(() => void child.kill("SIGKILL"));
  for (const fd of served) native.closeFd(fd);
  const leader = child.stdio[3] as Socket;
  const [said] = (await once(leader, "data")) as [Buffer];
  if (said.toString() !== "\n") throw new Error(said.toString());
  return { process: child, fds };
}

/** CPU time of a process so far, ms. man proc_pid_stat(5): ticks of 10 ms. */
function cpuMs({ pid }: Peer["process"]): number {
  const fields = fs.readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]!.split(" ");
  return 10 * (Number(fields[11]) + Number(fields[12]));
}

function client(ends: Ends, fd: number, aname: string, msize: number): BenchClient {
  const made = new BenchClient(fd, aname, msize);
  ends.teardown(() => made.close());
  return made;
}

export const bench: Bench = async (emit, { isQuick }) => {
  const ends = new Ends();
  const root = fs.mkdtempSync(path.join("/dev/shm", "burrow-ninep-"));
  ends.teardown(() => fs.rmSync(root, { recursive: true }));
  try {
    const files: Record<string, string | Uint8Array> = { many: "/" };
    for (let i = 0; i < LISTED; i++) files[`many/${nameOf(i)}`] = "content";
    const large = Buffer.alloc(TOTAL_BYTES, "some words, ");
    const shared = path.join(root, "shared");
    fs.mkdirSync(path.join(shared, "many"), { recursive: true });
    for (let i = 0; i < LISTED; i++)
      fs.writeFileSync(path.join(shared, "many", nameOf(i)), "content");
    fs.writeFileSync(path.join(shared, "large"), large);
    const ours = await startOurs(ends, path.join(root, "state"), { ...files, large });
    const [treeFd, tmpFd, largestFd] = ours.fds as [number, number, number];
    const sides: Side[] = [
      {
        name: "burrow",
        process: ours.process,
        tree: client(ends, treeFd, "tree", MSIZE),
        tmp: client(ends, tmpFd, "tmp", MSIZE),
      },
    ];
    const diod = startDiod(ends, shared);
    if (typeof diod === "string") emit({ case: "diod", skipped: diod });
    else {
      const both = client(ends, diod.fd, shared, MSIZE);
      sides.push({ name: "diod", process: diod.process, tree: both, tmp: both });
    }
    const largest = client(ends, largestFd, "tree", LARGEST_MSIZE);
    sides.push({
      name: "burrow, msize of 1 MiB",
      process: ours.process,
      tree: largest,
      tmp: largest,
    });
    for (const one of CASES) inTurns(emit, one, sides, isQuick ? 1 : 9);
  } finally {
    await ends.run();
  }
};

/** Rounds of a case by each side in turns: medians. */
function inTurns(
  emit: Parameters<Bench>[0],
  one: Case,
  sides: readonly Side[],
  rounds: number,
): void {
  const able = sides.filter(({ tree }) => tree.msize === MSIZE || one.name === "read 32 MiB");
  const took = able.map((): number[] => []);
  const cpu = able.map((): number => 0);
  let count = 0;
  for (let round = 0; round < rounds; round++) {
    for (const [i, side] of able.entries()) {
      const before = cpuMs(side.process);
      const startedMs = performance.now();
      count = one.run(side);
      took[i]!.push(performance.now() - startedMs);
      cpu[i]! += cpuMs(side.process) - before;
    }
  }
  for (const [i, { name, tree }] of able.entries()) {
    const ms = median(took[i]!);
    const perSecond = Math.round((count / ms) * 1000);
    const serverCpuMs = Math.round(cpu[i]! / rounds);
    const bestMs = Number(Math.min(...took[i]!).toFixed(1));
    const medianMs = Number(ms.toFixed(1));
    const timing = { medianMs, bestMs, unit: one.unit, perSecond, serverCpuMs };
    emit({ case: one.name, server: name, msize: tree.msize, rounds, ...timing });
  }
}
