// A server as a process of its own beside the command that started it: what it serves is in its argument and its FDs, and it ends with
// the socket at its FD 3, which is the command's. Control plane.

import { type ChildProcess, spawn } from "node:child_process";
import type { Socket } from "node:net";

export interface ChildServer {
  readonly child: ChildProcess;
  /** Destroyed, it ends the server. */
  readonly leader: Socket;
  /** Its exit code; 1 for a signal. */
  readonly ended: Promise<number>;
  /** A newline when it serves; else why it doesn't, or "" when it just ended. */
  readonly firstWord: Promise<string>;
}

/** docs/seccomp.md. */
const FILTERED =
  "the server was killed by seccomp: it made a system call that it may not; the kernel's log (dmesg) has its number, and BURROW_HARDEN=log lets such calls pass";

/** Starts a program with its configuration as JSON and with FDs, which stay the caller's, from 4 on. */
export function startServer(program: string, config: unknown, fds: readonly number[]): ChildServer {
  const child = spawn(process.execPath, [program, JSON.stringify(config)], {
    stdio: ["ignore", "ignore", "inherit", "pipe", ...fds],
  });
  const leader = child.stdio[3] as Socket;
  const ended = new Promise<number>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => {
      if (signal === "SIGSYS") process.stderr.write(`burrow: ${FILTERED}\n`);
      resolve(signal === null ? (code ?? 1) : 1);
    });
  });
  const firstWord = new Promise<string>((resolve) => {
    leader.setEncoding("utf8").once("data", (text: string) => resolve(text));
    leader.once("error", () => resolve(""));
    child.once("close", () => resolve(""));
  });
  return { child, leader, ended, firstWord };
}
