// Owners: a live process of this node in a text that any other can judge: "BOOT-PIDNS-PID-START". A pid alone may be another's by
// now; with its start it can't. Control plane.

import { readFileSync, readlinkSync } from "node:fs";

const OWNER = /^([0-9a-f]{8})-(\d{1,20})-(\d{1,10})-(\d{1,20})$/;

/** The kernel's boot, and the pid namespace that numbers in it are of. */
function here(): string {
  const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").slice(0, 8);
  return `${boot}-${/\d+/.exec(readlinkSync("/proc/self/ns/pid"))?.[0] ?? "0"}`;
}

/** When a process was started, in ticks since boot; undefined when it has ended or isn't seen. man proc_pid_stat(5). */
function startOf(pid: string): string | undefined {
  let fields: string[];
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // Behind the name, which may hold anything: state is field 3, starttime field 22.
    fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  } catch {
    return undefined;
  }
  return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[22 - 3];
}

/** This process. */
export function ownOwner(): string {
  return `${here()}-${process.pid}-${startOf("self")}`;
}

/** A process of this pid namespace that is alive. */
export function ownerOf(pid: number): string {
  return `${here()}-${pid}-${startOf(String(pid))}`;
}

/** The pid of an owner that is alive and seen from here. */
export function pidOf(owner: string): number | undefined {
  const pid = OWNER.exec(owner)?.[3];
  return pid !== undefined && isOfHere(owner) && !hasEnded(owner) ? Number(pid) : undefined;
}

/** Whether an owner can be seen from here: of another machine's processes, or another pid namespace's, nothing can be said. */
export function isOfHere(owner: string): boolean {
  const match = OWNER.exec(owner);
  return match !== null && `${match[1]}-${match[2]}` === here();
}

/** Whether an owner has ended for sure. What can't be seen from here, in another pid namespace, counts as alive. */
export function hasEnded(owner: string): boolean {
  const match = OWNER.exec(owner);
  if (match === null) return false;
  const [, boot, namespace, pid, start] = match;
  const [nowBoot, nowNamespace] = here().split("-");
  if (boot !== nowBoot) return true;
  if (namespace !== nowNamespace) return false;
  const nowStart = startOf(pid!);
  return nowStart === undefined ? !isSignalled(Number(pid)) : nowStart !== start;
}

/** Whether there is a process to signal: /proc may hide those of other users. A zombie doesn't count where it can be seen. */
function isSignalled(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return false; // ours to signal, so ours to see: what startOf() didn't see is a zombie or gone
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
