// Asks: how many asks of each peer's the daemon works on, by whichever connections they came, those that are gone among them: an ask goes on
// when nobody waits for it any more, for as long as its origin has time. Control plane.

import { PARKED_MAX } from "../base/limits.ts";

/** Of one peer: each has cost some 9 KB. A server of many sandboxes has some hundreds of mounts, of which few wait at a time. */
export const ASKS_MAX = 16 * PARKED_MAX;

/** One peer's places. */
export interface AskPlaces {
  /** Takes one; false when there is none. */
  enter(): boolean;
  leave(): void;
}

export class Asks {
  readonly #counts = new Map<string, number>();

  /** Who is root, or the daemon's own user, is a process of its own: a server that was taken over can't start others. Else it is a user. */
  placesOf(user: number, process: number, isOwner: boolean): AskPlaces {
    const peer = isOwner ? `process ${process}` : `user ${user}`;
    const counts = this.#counts;
    return {
      enter() {
        const count = counts.get(peer) ?? 0;
        if (count >= ASKS_MAX) return false;
        counts.set(peer, count + 1);
        return true;
      },
      leave() {
        const count = counts.get(peer)! - 1;
        if (count > 0) counts.set(peer, count);
        else counts.delete(peer);
      },
    };
  }
}
