// Park: requests that wait for bytes. A parked request keeps a copy of what its message says (the client owns the buffer), and is run
// again from the start when the daemon has answered; a deadline turns it into EIO. Its communicator carries no other request
// meanwhile, so at most one is parked per communicator. Data plane.

import type { Communicator } from "../transport/communicator.ts";
import type { Connection } from "./lisafs/connection.ts";

export interface Parked {
  readonly connection: Connection;
  readonly from: Communicator;
  readonly mid: number;
  readonly payload: Uint8Array;
  readonly deadlineMs: number;
}

export class Park {
  /** By the mailbox's ticket; several requests may wait for one blob. */
  readonly #byTicket = new Map<number, Parked[]>();

  add(ticket: number, parked: Parked): void {
    const others = this.#byTicket.get(ticket);
    if (others === undefined) this.#byTicket.set(ticket, [parked]);
    else others.push(parked);
  }

  /** Takes all that wait for a ticket. */
  take(ticket: number): Parked[] {
    const parked = this.#byTicket.get(ticket) ?? [];
    this.#byTicket.delete(ticket);
    return parked;
  }

  /** Takes all whose deadline has passed, and says whose tickets nobody waits for any more. */
  takeLate(nowMs: number, abandoned: (ticket: number) => void): Parked[] {
    return this.#takeIf((parked) => parked.deadlineMs <= nowMs, abandoned);
  }

  /** Drops all of a connection that ended. */
  drop(connection: Connection, abandoned: (ticket: number) => void): void {
    this.#takeIf((parked) => parked.connection === connection, abandoned);
  }

  #takeIf(matches: (parked: Parked) => boolean, abandoned: (ticket: number) => void): Parked[] {
    const taken: Parked[] = [];
    for (const [ticket, waiting] of this.#byTicket) {
      const kept: Parked[] = [];
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
