// Guard: what a sandbox takes of this machine, looked at from outside while it runs: for jobs that must be bounded where there are no
// cgroups. Between two looks it may take more: this keeps a machine alive, it is no quota. Control plane.

import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";

export interface Bounds {
  /** Of the host: gVisor has one or two for each of the sandbox's. */
  readonly processes: number;
  /** What the sandbox's programs and files have, and what its kernel needs for them. */
  readonly memoryBytes: number;
}

/** A sandbox forks some 1,000 processes and fills some 500 MB meanwhile. */
const LOOK_MS = 250;
/** gVisor keeps the memory of programs and of files in one memfd of this name. pkg/sentry/pgalloc. */
const MEMORY_FILE = "/memfd:runsc-memory";

/** Looks at a process and its descendants until the returned function is called; `onOver` hears at most once, of what there is too much. */
export function guard(
  pid: number,
  bounds: Bounds,
  onOver: (what: "processes" | "memory") => void,
): () => void {
  let memory: SandboxMemory | undefined;
  const timer = setInterval(() => {
    const pids = descendants(pid, bounds.processes);
    memory ??= findMemory(pids);
    const over =
      pids.length > bounds.processes
        ? "processes"
        : memory !== undefined && bytesOf(memory) > bounds.memoryBytes
          ? "memory"
          : undefined;
    if (over === undefined) return;
    clearInterval(timer);
    onOver(over);
  }, LOOK_MS);
  timer.unref();
  return () => clearInterval(timer);
}

/** A process and what it started, up to one more than `max`. What ends meanwhile is passed over. */
function descendants(pid: number, max: number): number[] {
  const found = [pid];
  for (let i = 0; i < found.length && found.length <= max; i++) {
    for (const child of childrenOf(found[i]!)) found.push(child);
  }
  return found;
}

function childrenOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
      readFileSync(`/proc/${pid}/task/${task}/children`, "utf8")
        .split(" ")
        .filter((text) => text !== "")
        .map(Number),
    );
  } catch {
    return [];
  }
}

interface SandboxMemory {
  /** gVisor's kernel. */
  readonly pid: number;
  /** The memfd, by its FD there. */
  readonly path: string;
}

function findMemory(pids: readonly number[]): SandboxMemory | undefined {
  for (const pid of pids) {
    try {
      for (const fd of readdirSync(`/proc/${pid}/fd`)) {
        const path = `/proc/${pid}/fd/${fd}`;
        if (readlinkSync(path).startsWith(MEMORY_FILE)) return { pid, path };
      }
    } catch {} // it ended, or closed the FD
  }
  return undefined;
}

function bytesOf({ pid, path }: SandboxMemory): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    const ownBytes = Number(/^RssAnon:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
    return statSync(path).blocks * 512 + ownBytes;
  } catch {
    return 0; // it has ended
  }
}
