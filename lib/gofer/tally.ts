// Tally: how much a shared server has taken on, against its bounds. Pure.

import {
  SHARED_CONNECTIONS_MAX,
  SHARED_SANDBOXES_MAX,
  SHARED_SOCKETS_MAX,
} from "../base/limits.ts";

/** What one sandbox takes. */
export interface Needed {
  readonly connections: number;
  /** Each has a socket to the daemon. */
  readonly views: number;
  /** Of the uppers that a server has in its life. */
  readonly uppers: number;
}

/** Beside the clients' and the daemon's: the stub's; and once the broker's. */
const SOCKETS_OF_STUB = 1;

export class Tally {
  #sandboxes = 0;
  #connections = 0;
  #sockets = 1;

  /** Whether one more fits; `sandboxesMax` may be fewer than the bound. */
  hasRoom({ connections, views }: Needed, sandboxesMax = SHARED_SANDBOXES_MAX): boolean {
    return (
      this.#sandboxes < Math.min(sandboxesMax, SHARED_SANDBOXES_MAX) &&
      this.#connections + connections <= SHARED_CONNECTIONS_MAX &&
      this.#sockets + connections + views + SOCKETS_OF_STUB <= SHARED_SOCKETS_MAX
    );
  }

  add(needed: Needed): void {
    this.#change(needed, 1);
  }

  remove(needed: Needed): void {
    this.#change(needed, -1);
  }

  #change({ connections, views }: Needed, sign: 1 | -1): void {
    this.#sandboxes += sign;
    this.#connections += sign * connections;
    this.#sockets += sign * (connections + views + SOCKETS_OF_STUB);
  }
}
