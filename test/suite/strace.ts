// strace on threads of a process that runs already. Tests only.

import { spawn } from "node:child_process";
import fs from "node:fs";
import { exited } from "./daemon-node.ts";
import { until } from "./wait.ts";

/** The threads of a process but for its first: of a daemon, those that make what concerns its cache. */
export function otherThreads(pid: number): string[] {
  return fs.readdirSync(`/proc/${pid}/task`).filter((thread) => thread !== String(pid));
}

/** Has strace look at threads, which writes to `out`: once it does. The result ends that, and gives what was written. */
export async function traceThreads(
  out: string,
  threads: readonly string[],
  words: readonly string[],
): Promise<() => Promise<string>> {
  const places = threads.flatMap((thread) => ["-p", thread]);
  const strace = spawn("strace", ["-o", out, ...words, ...places], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let said = "";
  strace.stderr.on("data", (bytes: Buffer) => {
    said += bytes.toString();
  });
  const isAttached = () => said.split("attached").length > threads.length;
  if (!(await until(() => isAttached() || strace.exitCode !== null)) || !isAttached())
    throw new Error(`strace: ${said}`);
  const gone = exited(strace);
  return async () => {
    strace.kill("SIGTERM");
    await gone;
    return fs.readFileSync(out, "utf8");
  };
}
