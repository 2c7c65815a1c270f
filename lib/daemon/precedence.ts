// Precedence: the daemon's loop has a CPU before the sandboxes of the node, which wait for it: what it computes at once is a few milliseconds,
// and hundreds of reads end with it. docs/design/0042-deadline.md. Control plane.

import fs from "node:fs";
import { setPriority } from "node:os";
import { native } from "../sys/native.ts";

/**
 * Of each so many ns the loop's thread may have a CPU before all others, and no more than this: SCHED_DEADLINE of sched(7). Short, since
 * whoever else is on that CPU waits for as long. A daemon that is kept busy leaves a fifth of one CPU, and the others.
 */
const PERIOD_NS = 5_000_000;
const RUNTIME_NS = 4_000_000;
/**
 * Of the session, and of the loop's thread where it can't have that, nice(2): with sched_autogroup_enabled a nice value counts within a
 * session alone, and each session has as much of a CPU as any other. man sched(7), "The autogroup feature". At -5 the loop was late by nearly
 * twice as much.
 */
const NICE = -10;
const SCHED_OTHER = "0";

/**
 * Has the calling thread, which is to be the loop's, run first, and where the session is this process's own all of its threads before other
 * sessions'. Nothing where that isn't allowed (CAP_SYS_NICE) or whoever started us has set a nice value or policy. Never throws.
 *
 * So do V8's threads, for which it waits. What it starts from now on, threads and programs, is of the normal policy at a nice value of 0: the
 * kernel resets it on fork.
 */
export function takePrecedence(): void {
  try {
    const { nice, policy, isLeader } = readScheduling();
    if (nice !== "0" || policy !== SCHED_OTHER) return;
    const helpers = otherThreads();
    if (native.askForDeadline(RUNTIME_NS, PERIOD_NS) < 0) takeNiceValue();
    else for (const helper of helpers) native.goFirst(helper);
    if (isLeader) fs.writeFileSync("/proc/self/autogroup", String(NICE));
  } catch {
    // Not allowed, or a kernel without autogroups.
  }
}

/** V8's, as nothing else has been started: the loop waits for them when it collects garbage, and when it hands them work. */
function otherThreads(): number[] {
  const tasks = fs.readdirSync("/proc/self/task").map(Number);
  return tasks.filter((task) => task !== process.pid);
}

/** Throws where it isn't allowed. */
function takeNiceValue(): void {
  setPriority(NICE);
  // It is what has the kernel reset the value: without, servers of sandboxes would inherit it.
  if (native.askForShortTurns() >= 0) return;
  setPriority(0);
  throw new Error("no reset on fork");
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
