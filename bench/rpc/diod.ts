// The peer of benches of 9P: diod, the reference server of 9P2000.L, which serves a directory on a unix stream socket.

import { type ChildProcess, spawn } from "node:child_process";
import { native } from "../../lib/sys/native.ts";
import { findDiod } from "../../test/suite/diod.ts";
import type { Ends } from "./ends.ts";

const SOCK_STREAM = 1;

export interface Peer {
  readonly process: ChildProcess;
  /** A client's end, the caller's. It blocks. */
  readonly fd: number;
}

/** A diod that serves `directory` under its own path as aname; or why there is none. */
export function startDiod(ends: Ends, directory: string): Peer | string {
  const { program, libraries, skip } = findDiod();
  if (skip !== false) return skip;
  const pair = new Int32Array(2);
  if (native.socketPair(SOCK_STREAM, pair) < 0) return "no socket";
  const [fd, theirs] = pair as unknown as [number, number];
  const words = ["-f", "-n", "-N", "-c", "/dev/null", "-e", directory];
  const child = spawn(program, [...words, "-r", "3", "-w", "3"], {
    env: { ...process.env, LD_LIBRARY_PATH: libraries },
    stdio: ["ignore", "ignore", "ignore", theirs],
  });
  ends.teardown(() => void child.kill("SIGKILL"));
  native.closeFd(theirs);
  return { process: child, fd };
}
