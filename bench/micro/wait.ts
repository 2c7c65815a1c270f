// What a round trip costs a client of the gofer's one wait, by the kind of communicator, by how many channels stand idle
// beside it, and with one client or four. docs/design/0001-threads.md rests on it.
//
// Expected: a futex wake and a switch each way, 4 to 8 us on one core; sleeping on n words adds about 0.1 us a word
// (futex_waitv queues on each); a socket adds its two copies and, since a helper thread watches it, one more wake: the
// doorbell. "direct" is the same socket without that: the server blocks in read(2).

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { CHANNEL_WINDOW_BYTES } from "../../lib/base/limits.ts";
import { native } from "../../lib/sys/native.ts";
import { makeFdSocket } from "../../lib/transport/channel.ts";
import type { Bench } from "../run.ts";
import { median } from "../samples.ts";

export type Kind = "channel" | "socket" | "direct";
type Placement = "scheduled" | "one core" | "two cores";

interface Case {
  readonly kind: Kind;
  readonly clients: number;
  /** Channels that the server waits on besides those in use. */
  readonly idle: number;
  readonly placement: Placement;
}

/** What a client says at its end. */
interface Report {
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
  readonly perSecond: number;
}

const ROUNDS = 60_000;
const REPEATS = 5;
const SOCK_STREAM = 1;
const SERVER = fileURLToPath(new URL("./wait-server.js", import.meta.url));
const CLIENT = fileURLToPath(new URL("./wait-client.js", import.meta.url));

export const bench: Bench = async (emit, { isQuick }) => {
  const rounds = isQuick ? 300 : ROUNDS;
  const repeats = isQuick ? 1 : REPEATS;
  const reports = new Map<Case, Report[]>();
  const cases = casesFor(isQuick);
  // Interleaved, so that a busy minute of the machine hits every case.
  for (let i = 0; i < repeats; i++) {
    for (const each of cases) {
      const report = await measure(each, rounds);
      reports.set(each, [...(reports.get(each) ?? []), report]);
    }
  }
  for (const [each, all] of reports) {
    const p50s = all.map((report) => report.p50Us);
    emit({
      ...each,
      rounds,
      repeats,
      p50Us: median(p50s),
      p50MinUs: Math.min(...p50s),
      p50MaxUs: Math.max(...p50s),
      p99Us: median(all.map((report) => report.p99Us)),
      p999Us: median(all.map((report) => report.p999Us)),
      perSecond: Math.round(median(all.map((report) => report.perSecond))),
    });
  }
};

function casesFor(isQuick: boolean): Case[] {
  const canPin = spawnSync("taskset", ["-c", "0,1", "true"]).status === 0;
  const placements: Placement[] =
    canPin && !isQuick ? ["scheduled", "one core", "two cores"] : ["scheduled"];
  const cases: Case[] = [];
  for (const placement of placements) {
    for (const idle of [0, 3, 15, 63]) cases.push({ kind: "channel", clients: 1, idle, placement });
    cases.push({ kind: "socket", clients: 1, idle: 0, placement });
    cases.push({ kind: "direct", clients: 1, idle: 0, placement });
  }
  for (const kind of ["channel", "socket"] as const) {
    cases.push({ kind, clients: 4, idle: 0, placement: "scheduled" });
  }
  return cases;
}

async function measure({ kind, clients, idle, placement }: Case, rounds: number): Promise<Report> {
  const windows = kind === "channel" ? clients + idle : 0;
  const memory = native.memfd("bench", Math.max(1, windows) * CHANNEL_WINDOW_BYTES);
  const served: number[] = [];
  const used: number[] = [];
  for (let i = 0; i < clients + idle; i++) {
    const pair = new Int32Array(2);
    if (kind === "channel") makeFdSocket(pair);
    else native.socketPair(SOCK_STREAM, pair);
    served.push(pair[0]!);
    used.push(pair[1]!);
  }
  const server = start(SERVER, [kind, String(served.length)], [memory, ...served], placement, 0);
  const running = Array.from({ length: clients }, (_, i) => {
    const offset = String(i * CHANNEL_WINDOW_BYTES);
    return start(CLIENT, [kind, offset, String(rounds)], [memory, used[i]!], placement, 1);
  });
  for (const fd of [memory, ...served, ...used]) native.closeFd(fd);
  try {
    const reports = await Promise.all(running.map(reportOf));
    const worst = reports.reduce((a, b) => (a.p50Us > b.p50Us ? a : b));
    const perSecond = reports.reduce((sum, report) => sum + report.perSecond, 0);
    return { ...worst, perSecond };
  } finally {
    const ended = once(server, "exit");
    if (server.exitCode === null && server.signalCode === null) {
      server.kill("SIGKILL");
      await ended;
    }
  }
}

/** Starts a program with FDs from 3 on; on core `core` when the cores are to differ. */
function start(
  program: string,
  args: readonly string[],
  fds: readonly number[],
  placement: Placement,
  core: number,
): ChildProcess {
  const command = [process.execPath, program, ...args];
  if (placement === "one core") command.unshift("taskset", "-c", "0");
  if (placement === "two cores") command.unshift("taskset", "-c", String(core));
  return spawn(command[0]!, command.slice(1), { stdio: ["ignore", "pipe", "inherit", ...fds] });
}

async function reportOf(client: ChildProcess): Promise<Report> {
  let text = "";
  client.stdout!.setEncoding("utf8").on("data", (part: string) => {
    text += part;
  });
  const [code] = (await once(client, "close")) as [number | null];
  if (code !== 0) throw new Error(`the client ended with ${code ?? "a signal"}`);
  return JSON.parse(text) as Report;
}
