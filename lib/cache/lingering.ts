// Lingering files: they have no name any more, but somebody has them open, so that their space is not free. Their bytes stay counted
// until the kernel says that nobody has them. Control plane.

import fs from "node:fs";
import { Errno } from "../base/errno.ts";
import { native } from "../sys/native.ts";
import { openFilesLimit } from "../sys/open-files.ts";
import type { Room } from "./room.ts";

/** Files watched at once, each by an FD, of which this share of the process's may go for that; past it the oldest is counted as gone. */
const FILES_MIN = 256;
const FILES_MAX = 8_192;
const FD_SHARE = 1 / 8;
/** Looked at in one go: a millisecond or two. */
const LOOKED_MAX = 1_024;

export class Lingering {
  readonly #room: Room;
  readonly #close: (fd: number) => Promise<void> | void;
  /** The one looked at longest ago first. */
  readonly #files = new Map<number, number>();
  readonly #most: number;

  /**
   * `close` ends an FD: the end of a file without a name frees its space, for which a disk may take its time. `filesLimit`: how many files
   * the process may have open.
   */
  constructor(
    room: Room,
    close: (fd: number) => Promise<void> | void = fs.closeSync,
    filesLimit = openFilesLimit(),
  ) {
    this.#room = room;
    this.#close = close;
    this.#most = Math.max(FILES_MIN, Math.min(FILES_MAX, Math.floor(filesLimit * FD_SHARE)));
  }

  /** Takes the FD of a file that was unlinked and took so many bytes. */
  take(fd: number, bytes: number): void {
    this.#room.linger(bytes);
    this.#files.set(fd, bytes);
    if (this.#files.size > this.#most) this.look();
    for (const oldest of this.#files.keys()) {
      if (this.#files.size <= this.#most) break;
      this.#end(oldest);
    }
  }

  /** Called now and then: gives up what nobody has open any more, of some of them each time. */
  look(): void {
    const some = [...this.#files].slice(0, LOOKED_MAX);
    for (const [fd, bytes] of some) {
      if (!isInUse(fd)) {
        this.#end(fd);
        continue;
      }
      this.#files.delete(fd);
      this.#files.set(fd, bytes);
    }
  }

  close(): void {
    for (const fd of [...this.#files.keys()]) this.#end(fd);
  }

  #end(fd: number): void {
    const bytes = this.#files.get(fd) ?? 0;
    this.#files.delete(fd);
    const closing = this.#close(fd);
    if (closing === undefined) this.#room.linger(-bytes);
    else void closing.then(() => this.#room.linger(-bytes));
  }
}

/** Whether anybody else has an open file open or mapped; false where the kernel can't tell. fcntl(2), "Leases". */
export function isInUse(fd: number): boolean {
  const got = native.leaseFd(fd);
  if (got >= 0) native.unleaseFd(fd);
  return got === -Errno.EAGAIN;
}
