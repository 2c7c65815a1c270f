// Tally: how much a shared server has taken on, against its bounds. Pure.

import {
  OTHER_FDS_MAX,
  SHARED_CONNECTIONS_MAX,
  SHARED_SANDBOXES_MAX,
  SHARED_SOCKETS_MAX,
  SHARED_UPPER_FDS_MIN,
} from "../base/limits.ts";

/** What one sandbox takes. */
export interface Needed {
  readonly connections: number;
  /** Each has a socket to the daemon. */
  readonly views: number;
  /** Of those that it has in its life, too. */
  readonly uppers: number;
}

/** Beside the clients' and the daemon's: the stub's; and once the broker's. */
const SOCKETS_OF_STUB = 1;

/** Of the files that a server may have open (RLIMIT_NOFILE), those for inodes of uppers. */
export function fdsForUppers(limit: number): number {
  return limit - Math.min(SHARED_SANDBOXES_MAX * OTHER_FDS_MAX, Math.floor(limit / 2));
}

export class Tally {
  #uppers = 0;
  #sandboxes = 0;
  #connections = 0;
  #sockets = 1;

  /** Whether one more fits: `sandboxesMax` may be fewer than the bound, `openFiles` is what the server may have. */
  hasRoom(
    { connections, views, uppers }: Needed,
    sandboxesMax: number,
    openFiles: number,
  ): boolean {
    return (
      (this.#uppers + uppers) * SHARED_UPPER_FDS_MIN <= fdsForUppers(openFiles) &&
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

  #change({ connections, views, uppers }: Needed, sign: 1 | -1): void {
    this.#uppers += sign * uppers;
    this.#sandboxes += sign;
    this.#connections += sign * connections;
    this.#sockets += sign * (connections + views + SOCKETS_OF_STUB);
  }
}
