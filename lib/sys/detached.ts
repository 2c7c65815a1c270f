// Detached: a program that lives on its own, joined to this process by one socket. A thread waits for its exec, which takes up to a second on a
// machine whose CPUs are busy, and as long the loop goes on: child_process.spawn waits on the loop itself. Control plane.

import { Socket } from "node:net";
import { Errno, errnoName } from "../base/errno.ts";
import { native } from "./native.ts";

const SOCK_STREAM = 1;
const O_RDWR = 2;
/** Between looks whether one that closed its socket has ended: it is about to. */
const REAP_FIRST_MS = 10;
const REAP_MAX_MS = 10_000;

export class Detached {
  /** Its FD 3; the others are /dev/null. Closes with the program, and the other way round, if it heeds that. */
  readonly link: Socket;
  /** Its pid, or -errno when it can't be started. Never rejects. */
  readonly pid: Promise<number>;

  /**
   * Starts a program of PATH, at most 16 words, with this process's environment, directory and process group, and with FDs, which stay the
   * caller's, from 4 on. Throws without FDs or memory.
   */
  constructor(words: readonly string[], fds: readonly number[] = []) {
    const ends = new Int32Array(2);
    const failed = native.socketPair(SOCK_STREAM, ends);
    if (failed < 0) throw new Error(`no FDs for it: ${errnoName(failed)}`);
    const [ours = -1, theirs = -1] = ends;
    this.link = new Socket({ fd: ours, readable: true, writable: true });
    this.pid = start(words, [theirs, ...fds]).finally(() => native.closeFd(theirs));
    let closed: () => void = () => {};
    const isClosed = new Promise<void>((resolve) => {
      closed = resolve;
    });
    this.link.once("close", () => closed());
    void Promise.all([this.pid, isClosed]).then(([pid]) => pid > 0 && reap(pid, REAP_FIRST_MS));
  }
}

async function start(words: readonly string[], fds: readonly number[]): Promise<number> {
  const nothing = native.openAt(-1, "/dev/null", O_RDWR, 0);
  if (nothing < 0) return nothing;
  try {
    const text = Buffer.from(words.map((word) => `${word}\0`).join(""));
    return await native.spawnLater(text, Int32Array.of(nothing, nothing, nothing, ...fds));
  } finally {
    native.closeFd(nothing);
  }
}

/** Nobody else waits for it: else it stays as a zombie for as long as we live. */
function reap(pid: number, ms: number): void {
  if (native.waitProgram(pid, 0) !== -Errno.EAGAIN) return;
  setTimeout(reap, ms, pid, Math.min(2 * ms, REAP_MAX_MS)).unref();
}
