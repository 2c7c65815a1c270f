// Precedence: the daemon's loop has a CPU before the sandboxes of the node, which wait for it: what it computes at once is a few milliseconds,
// and hundreds of reads end with it. docs/design/0013-off-the-loop.md, "Precedence". Control plane.

import fs from "node:fs";
import { setPriority } from "node:os";
import { native } from "../sys/native.ts";

/**
 * Of the loop's thread, nice(2), and of the session: with sched_autogroup_enabled a nice value counts within a session alone, and each
 * session has as much of a CPU as any other. man sched(7), "The autogroup feature". At -5 the loop was late by nearly twice as much.
 */
const NICE = -10;
const SCHED_OTHER = "0";

/**
 * Has the calling thread, which is to be the loop's, run first, and where the session is this process's own all of its threads before other
 * sessions'. Nothing where that isn't allowed (CAP_SYS_NICE) or whoever started us has set a nice value or policy. Never throws.
 *
 * What the thread starts from now on, threads and programs, is at a nice value of 0: the kernel resets it on fork.
 */
export function takePrecedence(): void {
  try {
    const { nice, policy, isLeader } = readScheduling();
    if (nice !== "0" || policy !== SCHED_OTHER) return;
    setPriority(NICE);
    // It is what has the kernel reset the value: without, servers of sandboxes would inherit it.
    if (native.askForShortTurns() < 0) setPriority(0);
    else if (isLeader) fs.writeFileSync("/proc/self/autogroup", String(NICE));
  } catch {
    // Not allowed, or a kernel without autogroups.
  }
}

/** Of this process's first thread. man proc_pid_stat(5): session is field 6, nice 19, policy 41. */
function readScheduling(): { nice: string; policy: string; isLeader: boolean } {
  const stat = fs.readFileSync("/proc/self/stat", "latin1");
  // Behind the name, which may hold anything: state is field 3.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [session, nice, policy] = [fields[3], fields[16], fields[38]];
  if (nice === undefined || policy === undefined) throw new Error("no such fields");
  return { nice, policy, isLeader: session === String(process.pid) };
}
