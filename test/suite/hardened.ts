// Hardened: what the kernel says of a live server's hardening, by /proc, for each of its threads. Tests only; needs root.

import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import type { Test } from "tap";

export interface ThreadFacts {
  readonly seccomp: string;
  readonly noNewPrivs: string;
  /** Numbers of capabilities that some set of the thread has, but its bounding set; then those of that. */
  readonly capabilities: readonly number[];
  readonly bounding: readonly number[];
  /** Names in its root directory, and its working directory as the kernel shows it. */
  readonly root: readonly string[];
}

export interface ProcessFacts {
  readonly threads: readonly ThreadFacts[];
  /** Soft and hard limit by the names of /proc/PID/limits. */
  readonly limits: ReadonlyMap<string, readonly [soft: string, hard: string]>;
  /** Whether a process of the same user, with no capability, is kept from its memory. */
  readonly isHidden: boolean;
}

function numbersOf(hex: string): number[] {
  const bits = BigInt(`0x${hex}`);
  return Array.from({ length: 64 }, (_, i) => i).filter((i) => (bits >> BigInt(i)) & 1n);
}

function factsOfThread(directory: string): ThreadFacts {
  const status = readFileSync(`${directory}/status`, "latin1");
  const field = (name: string) => new RegExp(`^${name}:\\s*(\\S+)$`, "m").exec(status)?.[1] ?? "?";
  const sets = ["CapInh", "CapPrm", "CapEff", "CapAmb"].flatMap((name) => numbersOf(field(name)));
  return {
    seccomp: field("Seccomp"),
    noNewPrivs: field("NoNewPrivs"),
    capabilities: [...new Set(sets)].sort((a, b) => a - b),
    bounding: numbersOf(field("CapBnd")),
    root: readdirSync(`${directory}/root/`),
  };
}

/** Of a process that serves. */
export function factsOf(pid: number): ProcessFacts {
  const tasks = `/proc/${pid}/task`;
  const lines = readFileSync(`/proc/${pid}/limits`, "latin1").split("\n").slice(1, -1);
  const limits = lines.map((line) => {
    const [name = "", soft = "", hard = ""] = line.split(/ {2,}/);
    return [name, [soft, hard]] as const;
  });
  const words = ["--bounding-set=-all", "--inh-caps=-all", "cat", `/proc/${pid}/auxv`];
  return {
    threads: readdirSync(tasks).map((task) => factsOfThread(`${tasks}/${task}`)),
    limits: new Map(limits),
    isHidden: spawnSync("setpriv", words).status !== 0,
  };
}

/** A server's hardening is whole, and these are the capabilities that are left. */
export function checkHardened(t: Test, pid: number, capabilities: readonly number[]): void {
  const { threads, limits, isHidden } = factsOf(pid);
  t.ok(threads.length > 1, "it has more threads than one");
  const wanted = { seccomp: "2", noNewPrivs: "1", capabilities, bounding: capabilities, root: [] };
  for (const thread of threads) t.same(thread, wanted, "a thread");
  t.same(limits.get("Max core file size"), ["0", "0"], "no core files");
  t.same(limits.get("Max processes"), ["0", "0"], "no processes");
  const [soft, hard] = limits.get("Max address space") ?? [];
  t.ok(soft === hard && Number(soft) > 0, "a limit of address space");
  t.ok(isHidden, "its memory is hidden");
}
