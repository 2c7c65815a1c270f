// Intake: how many bytes of one origin's may be on their way to the disk, from before they are asked for until they are written. Requests
// are few at a time (gate.ts), but each ends when its bytes are here: without this, what a slow disk has not taken yet would grow with
// the asks that wait (pitfalls E1). One for each origin, so that one that hangs holds up nobody else. Control plane.

import { timeoutError } from "../store/store.ts";

/** As much as eight requests of the longest kind bring, twice: those on the link, and those before them, which are being written. */
const INTAKE_BYTES = 64 * 1024 * 1024;

interface Waiter {
  readonly bytes: number;
  readonly start: () => void;
}

/** Gives back what was taken; further calls do nothing. */
export type GiveBack = () => void;

export class Intake {
  readonly #maxBytes: number;
  readonly #waiters = new Set<Waiter>();
  #takenBytes = 0;

  constructor(maxBytes = INTAKE_BYTES) {
    this.#maxBytes = maxBytes;
  }

  /** Bytes that were taken and not given back. */
  get takenBytes(): number {
    return this.#takenBytes;
  }

  /**
   * Takes so many bytes, when all who came before have theirs; more than there are at all when nobody has any. Rejects as a timeout when
   * the signal fires before that. Who has them may wait for a turn at the gate, so nobody waits for them who has a turn.
   */
  take(bytes: number, signal: AbortSignal): Promise<GiveBack> {
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#waiters.delete(waiter);
        reject(timeoutError("gave up waiting for the disk to take what came before", {}));
        // One that was too long for what is free kept shorter ones waiting.
        this.#admit();
      };
      const start = () => {
        signal.removeEventListener("abort", onAbort);
        resolve(this.#giveBackOf(bytes));
      };
      const waiter = { bytes, start };
      if (signal.aborted) return onAbort();
      signal.addEventListener("abort", onAbort, { once: true });
      this.#waiters.add(waiter);
      this.#admit();
    });
  }

  #giveBackOf(bytes: number): GiveBack {
    let isTaken = true;
    return () => {
      if (!isTaken) return;
      isTaken = false;
      this.#takenBytes -= bytes;
      this.#admit();
    };
  }

  #admit(): void {
    for (const waiter of this.#waiters) {
      const isFree = this.#takenBytes + waiter.bytes <= this.#maxBytes;
      if (!isFree && this.#takenBytes > 0) return;
      this.#waiters.delete(waiter);
      this.#takenBytes += waiter.bytes;
      waiter.start();
    }
  }
}
