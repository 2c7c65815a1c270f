// Disk: the way to the file system that a cache lies on, for a process that must not wait for it. All work is done by workers and by
// Node's pool, a few at a time, so that others keep theirs however many hang; and with a patience, after which the disk counts as hung: who
// waits is told ETIMEDOUT, and who comes later at once, until a try succeeds. What hangs may succeed yet. Control plane.

import { Errno } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { ioError } from "../store/node-error.ts";
import { attendedMs } from "../sys/attended.ts";
import { Calls, failureIn, type Place, type Results } from "../sys/calls.ts";

/** A disk on which nothing has ended for so long hangs: one that merely is slow ends something in less, as a rule. */
export const STALL_MS = 2_000;
/** Bytes that a slow disk reads or writes in a millisecond: so much longer work on many may take. */
const SLOW_BYTES_PER_MS = 10_000;
/**
 * Under way at once. Looks, which end soon, don't wait for those who flush; nor does either for long walks through folders. Of
 * 12 workers, and as many threads of Node's pool, that leaves 6: two may wait for the lazy mount's requests.
 */
const AT_ONCE = { look: 2, write: 3, walk: 1 } as const;
export type Lane = keyof typeof AT_ONCE;

export interface WorkOptions {
  /** What it reads or writes, at most: it may take longer by that. */
  readonly bytes?: number;
  /** It is tried although the disk hangs. */
  readonly isProbe?: boolean;
  /** It can wait: its end is awaited however long that takes. */
  readonly isPatient?: boolean;
  /** Nobody waits for it: it gives way to what waits for its turn, OVERTAKEN_MAX times, unless hurry() is called with this name. */
  readonly behind?: string | undefined;
}

/** How often somebody who waits looks whether it hangs: attended time passes as the clock's while somebody does. */
const LOOK_MS = 100;
/** What gives way is overtaken so often, and then the one that waits longest has its turn: under steady demand it would never have one. */
export const OVERTAKEN_MAX = 16;
/** Work may take so many times its patience while other work ends. */
const SLOW = 4;

/** What must be done, however late. */
const DUE: WorkOptions = { isProbe: true, isPatient: true };

interface Queue {
  readonly atOnce: number;
  readonly waiting: Set<() => void>;
  /** By their names, for when nothing else waits. */
  readonly behind: Map<string, () => void>;
  /** How often those were overtaken since one of them had its turn. */
  overtaken: number;
  underWay: number;
  /** When work ended last, or was begun while there was none: attended time. */
  movedMs: number;
}

export class Disk {
  /** How long it may hang; Infinity: nobody is better off without it. */
  stallMs = Number.POSITIVE_INFINITY;
  /** Called when it is found to hang. */
  onHang: (error: BurrowError) => void = () => undefined;
  /** Called when it was found to hang, and then all that was asked of it has ended. It counts as hung until recovered(). */
  onEnded: () => void = () => undefined;
  readonly #root: string;
  readonly #queues: Readonly<Record<Lane, Queue>> = {
    look: newQueue(AT_ONCE.look),
    write: newQueue(AT_ONCE.write),
    walk: newQueue(AT_ONCE.walk),
  };
  #isHung = false;
  #hanging = 0;

  constructor(root: string) {
    this.#root = root;
  }

  /** Work is refused at once, but for probes. */
  get isHung(): boolean {
    return this.#isHung;
  }

  /** A probe has succeeded, or none is needed. */
  recovered(): void {
    this.#isHung = false;
  }

  /** Work that was given up and hasn't ended. */
  get hanging(): number {
    return this.#hanging;
  }

  /**
   * Does work when it is its turn: its outcome, or BURROW_IO (ETIMEDOUT) when the disk hangs. `late` then gets what becomes of it after
   * all, if it succeeds: nobody else knows of it.
   */
  run<T>(
    lane: Lane,
    work: () => Promise<T>,
    { bytes = 0, isProbe = false, isPatient = false, behind }: WorkOptions = {},
    late: (outcome: T) => void = () => undefined,
  ): Promise<T> {
    if (this.#isHung && !isProbe) return Promise.reject(this.#hangs());
    const queue = this.#queues[lane];
    const patienceMs = isPatient
      ? Number.POSITIVE_INFINITY
      : this.stallMs + bytes / SLOW_BYTES_PER_MS;
    return new Promise((resolve, reject) => {
      let timer: NodeJS.Timeout | undefined;
      let isGivenUp = false;
      let isOver = false;
      let begunMs = Number.NaN;
      const end = () => {
        isOver = true;
        clearTimeout(timer);
        if (isGivenUp) this.#hanging--;
        queue.underWay--;
        queue.movedMs = attendedMs();
        if (this.#isHung && this.#hanging === 0) this.onEnded();
        while (queue.underWay < queue.atOnce) {
          const next = nextIn(queue);
          if (next === undefined) return;
          next();
        }
      };
      const leave = () => {
        queue.waiting.delete(begin);
        if (behind !== undefined && queue.behind.get(behind) === begin) queue.behind.delete(behind);
      };
      const begin = () => {
        leave();
        begunMs = attendedMs();
        if (queue.underWay++ === 0) queue.movedMs = begunMs;
        work().then(
          (outcome) => {
            end();
            if (isGivenUp) late(outcome);
            else resolve(outcome);
          },
          (error: unknown) => {
            end();
            reject(error);
          },
        );
      };
      // What ended while the loop was busy is heard of first.
      const later = () => setImmediate(() => !isOver && look());
      const look = () => {
        const nowMs = attendedMs();
        const isBegun = !Number.isNaN(begunMs);
        // Others may go on beside one that hangs; a disk is slow rather than that while it does so in order.
        const untilMs = queue.movedMs + patienceMs;
        const leftMs = (isBegun ? Math.min(untilMs, begunMs + SLOW * patienceMs) : untilMs) - nowMs;
        if (leftMs > 0 && (isProbe || isBegun || !this.#isHung)) {
          timer = setTimeout(later, Math.min(leftMs, LOOK_MS));
          return;
        }
        isGivenUp = true;
        if (isBegun) this.#hanging++;
        leave();
        this.#hang();
        reject(this.#hangs());
      };
      if (queue.underWay < queue.atOnce) begin();
      else if (behind === undefined || queue.behind.has(behind)) queue.waiting.add(begin);
      else queue.behind.set(behind, begin);
      if (patienceMs < Number.POSITIVE_INFINITY) look();
    });
  }

  /** Somebody waits for what nobody did: it has its turn with the others from now on. */
  hurry(name: string): void {
    for (const { waiting, behind } of Object.values(this.#queues)) {
      const begin = behind.get(name);
      if (begin !== undefined) waiting.add(begin);
      behind.delete(name);
    }
  }

  /** Closes an FD, whenever the disk lets it: its number isn't the caller's any more. Never rejects. */
  async close(fd: number): Promise<void> {
    await this.#due((calls) => calls.close(fd));
  }

  /** Removes a file's name and then closes it (fd >= 0), whenever the disk lets it. Where that fails the next daemon does it. Never rejects. */
  async remove(path: string, fd = -1): Promise<void> {
    await this.#due((calls) => {
      calls.optional(() => calls.unlink(path));
      if (fd >= 0) calls.close(fd);
    });
  }

  async #due(add: (calls: Calls) => void): Promise<void> {
    const calls = new Calls();
    add(calls);
    await this.run("write", () => calls.run(), DUE).catch(() => undefined);
  }

  /** Makes a chain of calls: its results. Throws for the first failure of any call but those in `but`. */
  async calls(
    lane: Lane,
    calls: Calls,
    what: string,
    path: string,
    { but = [], late, ownFd = -1, ...options }: WorkOptions & CallsOptions = {},
  ): Promise<Results> {
    let isBegun = false;
    const work = () => {
      isBegun = true;
      return calls.run();
    };
    const results = await this.run(lane, work, options, late).finally(() => {
      if (!isBegun && ownFd >= 0) void this.close(ownFd);
    });
    const errno = failureIn(results, but);
    if (errno === 0) return results;
    throw ioError(what, path, new BurrowError("BURROW_IO", what, { errno }));
  }

  #hang(): void {
    if (this.#isHung) return;
    this.#isHung = true;
    this.onHang(this.#hangs());
  }

  #hangs(): BurrowError {
    return new BurrowError("BURROW_IO", "the disk hangs", {
      errno: Errno.ETIMEDOUT,
      context: { path: `${this.#root}/` },
    });
  }
}

export interface CallsOptions {
  readonly but?: readonly Place[];
  /** An FD that the chain closes: if it is never made, that is done all the same. */
  readonly ownFd?: number;
  readonly late?: (results: Results) => void;
}

function newQueue(atOnce: number): Queue {
  return { atOnce, waiting: new Set(), behind: new Map(), overtaken: 0, underWay: 0, movedMs: 0 };
}

/** Whose turn it is. */
function nextIn(queue: Queue): (() => void) | undefined {
  const [first] = queue.waiting;
  const [oldest] = queue.behind.values();
  if (oldest === undefined) return first;
  if (first !== undefined && queue.overtaken++ < OVERTAKEN_MAX) return first;
  queue.overtaken = 0;
  return oldest;
}
