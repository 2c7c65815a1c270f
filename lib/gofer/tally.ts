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

  /** Why one more doesn't fit, if so: `sandboxesMax` may be fewer than the bound, `openFiles` is what the server may have. */
  lack(
    { connections, views, uppers }: Needed,
    sandboxesMax: number,
    openFiles: number,
  ): string | undefined {
    const most = Math.min(sandboxesMax, SHARED_SANDBOXES_MAX);
    if (this.#sandboxes >= most) return `a server has ${most} sandboxes at most`;
    const uppersMax = Math.floor(fdsForUppers(openFiles) / SHARED_UPPER_FDS_MIN);
    if (this.#uppers + uppers > uppersMax)
      return `a server that may have ${openFiles} files open has room for ${uppersMax} writable mount${uppersMax === 1 ? "" : "s"}`;
    const sockets = this.#sockets + connections + views + SOCKETS_OF_STUB;
    if (this.#connections + connections > SHARED_CONNECTIONS_MAX || sockets > SHARED_SOCKETS_MAX)
      return `a server has room for ${SHARED_CONNECTIONS_MAX} mounts and ${SHARED_SOCKETS_MAX} sockets`;
    return undefined;
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
