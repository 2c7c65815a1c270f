// Park: requests that wait for bytes. A parked request keeps a copy of what its message says (the client owns the buffer), and is run
// again from the start when the daemon has answered; a deadline, put off while the daemon works on it, turns it into EIO. A communicator of
// LISAFS carries no other request meanwhile, so at most one is parked per communicator; a 9P session parks as many as it has places for. Data
// plane.

import { MISS_MAX_MS } from "../base/limits.ts";
import type { Communicator } from "../transport/communicator.ts";
import type { Connection } from "./lisafs/connection.ts";

/** What is parked, of whichever protocol. */
export interface Waiting {
  /** Whose request it is. */
  readonly connection: object;
  /** When it was parked, by performance.now(). */
  readonly sinceMs: number;
  /** When it is answered EIO. */
  deadlineMs: number;
}

/** Since when a request waits that is parked now, and until when. */
export function waitOf(missDeadlineMs: number): Pick<Waiting, "sinceMs" | "deadlineMs"> {
  const sinceMs = performance.now();
  return { sinceMs, deadlineMs: sinceMs + missDeadlineMs };
}

export interface Parked extends Waiting {
  readonly connection: Connection;
  readonly from: Communicator;
  readonly mid: number;
  readonly payload: Uint8Array;
  /** What it waits for: Mailbox.lastPlace. */
  readonly place: number;
}

export class Park<P extends Waiting = Parked> {
  /** By the mailbox's ticket; several requests may wait for one blob. */
  readonly #byTicket = new Map<number, P[]>();

  add(ticket: number, parked: P): void {
    const others = this.#byTicket.get(ticket);
    if (others === undefined) this.#byTicket.set(ticket, [parked]);
    else others.push(parked);
  }

  /** Takes all that wait for a ticket. */
  take(ticket: number): P[] {
    const parked = this.#byTicket.get(ticket) ?? [];
    this.#byTicket.delete(ticket);
    return parked;
  }

  /** What waits for a ticket has `ms` from now on, but no more than MISS_MAX_MS in all. */
  renew(ticket: number, ms: number): void {
    const untilMs = performance.now() + ms;
    for (const parked of this.#byTicket.get(ticket) ?? []) {
      const latestMs = Math.min(untilMs, parked.sinceMs + MISS_MAX_MS);
      parked.deadlineMs = Math.max(parked.deadlineMs, latestMs);
    }
  }

  /** Takes all whose deadline has passed, and says whose tickets nobody waits for any more. */
  takeLate(nowMs: number, abandoned: (ticket: number) => void): P[] {
    return this.#takeIf((parked) => parked.deadlineMs <= nowMs, abandoned);
  }

  /** Drops all of a connection that ended. */
  drop(connection: P["connection"], abandoned: (ticket: number) => void): void {
    this.#takeIf((parked) => parked.connection === connection, abandoned);
  }

  /** Drops one. */
  remove(gone: P, abandoned: (ticket: number) => void): void {
    this.#takeIf((parked) => parked === gone, abandoned);
  }

  #takeIf(matches: (parked: P) => boolean, abandoned: (ticket: number) => void): P[] {
    const taken: P[] = [];
    for (const [ticket, waiting] of this.#byTicket) {
      const kept: P[] = [];
      for (const parked of waiting) (matches(parked) ? taken : kept).push(parked);
      if (kept.length === waiting.length) continue;
      if (kept.length > 0) {
        this.#byTicket.set(ticket, kept);
      } else {
        this.#byTicket.delete(ticket);
        abandoned(ticket);
      }
    }
    return taken;
  }

  /** The earliest deadline, or -1 when nothing is parked. */
  get nextDeadlineMs(): number {
    let first = -1;
    for (const waiting of this.#byTicket.values()) {
      for (const { deadlineMs } of waiting) if (first < 0 || deadlineMs < first) first = deadlineMs;
    }
    return first;
  }

  get size(): number {
    return this.#byTicket.size;
  }
}
