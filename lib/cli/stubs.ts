// Stubs: the sandboxes of this node by their stubs, as /proc shows them: which there are, how many servers each has had, and having the
// next one take over. What a stub says in its name is docs/protocol/adopt.md, section 8, "Relief". Control plane.

import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { basename, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { DEFAULT_STATE } from "../gofer/mount.ts";
import { hasEnded, ownerOf } from "../sys/owner.ts";

export interface Stub {
  readonly pid: number;
  /** As sys/owner has it: a pid alone may be another's later. */
  readonly owner: string;
  /** The sandbox's OCI bundle; "" where runsc names none. */
  readonly bundle: string;
  /** Servers that have served, mod 100; undefined: of a build whose stubs don't say, and that a SIGHUP may end. */
  readonly served: number | undefined;
}

/** How an upgrade went. ended: its sandbox did, meanwhile. */
export type Outcome = "upgraded" | "ended" | "failed";

const PROGRAM = "burrow-stub";
const DELETED = " (deleted)";
const NAME = /^burrow-stub (\d+)([+!]?)$/;
const POLL_MS = 10;

function textOf(pid: number, file: string): string {
  return readFileSync(`/proc/${pid}/${file}`, "utf8");
}

/** What the stub says of itself; undefined when it has ended or says nothing. */
function nameOf(pid: number): { served: number; mark: string } | undefined {
  try {
    const [, served, mark = ""] = NAME.exec(textOf(pid, "comm").trim()) ?? [];
    return served === undefined ? undefined : { served: Number(served), mark };
  } catch {
    return undefined;
  }
}

/**
 * Whether this user has started a process: another may call its own what it likes, and /proc gives root those that don't want to be
 * looked at. man proc_pid_status(5): the first is the real one, which no set-user-ID program changes.
 */
function isOurs(pid: number): boolean {
  return Number(/^Uid:\s+(\d+)/m.exec(textOf(pid, "status"))?.[1]) === process.getuid?.();
}

/** The stub of a pid that serves sandboxes of this state; undefined for any other process, and for those of other users. */
function stubOf(pid: number, state: string): Stub | undefined {
  try {
    const program = readlinkSync(`/proc/${pid}/exe`);
    // The build that it was started from may be gone.
    const path = program.endsWith(DELETED) ? program.slice(0, -DELETED.length) : program;
    if (basename(path) !== PROGRAM || !isOurs(pid)) return undefined;
    const settings = textOf(pid, "environ").split("\0");
    const setting = settings.find((each) => each.startsWith("BURROW_STATE="))?.slice(13);
    if (resolve(setting || DEFAULT_STATE) !== state) return undefined;
    const words = textOf(pid, "cmdline").split("\0");
    const at = words.indexOf("--bundle");
    const bundle = at < 0 ? "" : (words[at + 1] ?? "");
    return { pid, owner: ownerOf(pid), bundle, served: nameOf(pid)?.served };
  } catch {
    return undefined;
  }
}

/** The stubs of this user's sandboxes on this node with this state, by pid. */
export function findStubs(state: string): Stub[] {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return pids.flatMap((pid) => stubOf(Number(pid), state) ?? []).sort((a, b) => a.pid - b.pid);
}

/**
 * Has the program that is installed now take over from a stub's server, and waits until it serves. failed: it did not start, or not
 * within `patienceMs`, or the stub says nothing of itself; the server that was there goes on.
 */
export async function upgradeStub(stub: Stub, patienceMs: number): Promise<Outcome> {
  const { pid, owner, served } = stub;
  if (served === undefined) return hasEnded(owner) ? "ended" : "failed";
  // A mark of failure may be an earlier one's: then it counts once the next has begun.
  let hasBegun = nameOf(pid)?.mark !== "!";
  try {
    if (!hasEnded(owner)) process.kill(pid, "SIGHUP");
  } catch {} // it ended at this moment
  for (const end = performance.now() + patienceMs; performance.now() < end; await sleep(POLL_MS)) {
    if (hasEnded(owner)) return "ended";
    const name = nameOf(pid);
    if (name === undefined) continue;
    if (name.served !== served) return "upgraded";
    if (name.mark === "!" && hasBegun) return "failed";
    hasBegun ||= name.mark === "+";
  }
  return "failed";
}
