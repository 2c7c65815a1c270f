// Owns: finding the server of a running `burrow run`, and killing it and its successors. Plane: control.
import type { ChildProcess } from "node:child_process";
import fs from "node:fs";
import { findStubs } from "../../lib/cli/stubs.ts";
import { sleep, until } from "../suite/wait.ts";

function processes(): number[] {
  return fs
    .readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** Pid of the server that serves in a mount namespace, child or standby, by what it alone maps; undefined while there is none. */
function serverIn(namespace: string): number | undefined {
  return processes().find((pid) => {
    try {
      if (fs.readlinkSync(`/proc/${pid}/ns/mnt`) !== namespace) return false;
      return fs.readFileSync(`/proc/${pid}/maps`, "latin1").includes("memfd:burrow-journal");
    } catch {
      return false; // it ended meanwhile
    }
  });
}

/** Kills the servers of a node's one sandbox at random times, `waitMs` apart: how many it got before `child` ended. */
export async function killServers(
  state: string,
  child: ChildProcess,
  kills: number,
  waitMs: readonly [least: number, most: number],
): Promise<number> {
  if (!(await until(() => findStubs(state).length === 1))) throw new Error("no stub");
  const namespace = fs.readlinkSync(`/proc/${findStubs(state)[0]!.pid}/ns/mnt`);
  let killed = 0;
  while (killed < kills && child.exitCode === null) {
    await sleep(waitMs[0] + Math.random() * (waitMs[1] - waitMs[0]));
    const server = serverIn(namespace);
    if (server === undefined) continue; // the next is on its way
    process.kill(server, "SIGKILL");
    killed++;
  }
  return killed;
}

/** The servers that successors took over from, as `burrow run` says it; 0: it said nothing. */
export function saidSuccessors(stderr: string): number {
  const [, times = "0"] =
    /took the place of the sandbox's: (once|\d+)/.exec(stderr.replaceAll("\n", " ")) ?? [];
  return times === "once" ? 1 : Number(times);
}
