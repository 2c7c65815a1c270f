// ThreadTime: what the thread that makes it had of the CPUs, and how long it stood in line for one: which part of a delay is its own and
// which the machine's. Linux: Documentation/scheduler/sched-stats.rst, /proc/<pid>/schedstat. Any plane.

import fs from "node:fs";

/** Three numbers of 64 bits. */
const STAT_BYTES = 64;
const NS_PER_MS = 1e6;

export class ThreadTime {
  /** On a CPU, ms since the thread began, when it looked last. */
  ranMs = 0;
  /** In line for one, ms. */
  queuedMs = 0;
  readonly #stat = Buffer.alloc(STAT_BYTES);
  #fd = -1;

  constructor() {
    try {
      this.#fd = fs.openSync("/proc/thread-self/schedstat", "r");
      this.look();
    } catch {
      // A kernel without CONFIG_SCHED_INFO, or no /proc.
    }
  }

  /** Whether the kernel tells. */
  get isKnown(): boolean {
    return this.#fd >= 0;
  }

  /** By the same thread: some microseconds. After close() nothing changes. */
  look(): void {
    if (this.#fd < 0) return;
    const length = fs.readSync(this.#fd, this.#stat, 0, STAT_BYTES, 0);
    const [ran, queued] = this.#stat.toString("latin1", 0, length).split(" ");
    this.ranMs = Number(ran) / NS_PER_MS;
    this.queuedMs = Number(queued) / NS_PER_MS;
  }

  close(): void {
    if (this.#fd >= 0) fs.closeSync(this.#fd);
    this.#fd = -1;
  }
}
