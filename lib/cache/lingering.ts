// Lingering files: they have no name any more, but somebody has them open, so that their space is not free. Their bytes stay counted
// until the kernel says that nobody has them. Control plane.

import fs from "node:fs";
import { Errno } from "../base/errno.ts";
import { native } from "../sys/native.ts";
import type { Room } from "./room.ts";

/** Files watched at once; past it the oldest is counted as gone. */
const FILES_MAX = 256;

export class Lingering {
  readonly #room: Room;
  readonly #close: (fd: number) => Promise<void> | void;
  readonly #files = new Map<number, number>();

  /** `close` ends an FD: the end of a file without a name frees its space, for which a disk may take its time. */
  constructor(room: Room, close: (fd: number) => Promise<void> | void = fs.closeSync) {
    this.#room = room;
    this.#close = close;
  }

  /** Takes the FD of a file that was unlinked and took so many bytes. */
  take(fd: number, bytes: number): void {
    this.#room.linger(bytes);
    this.#files.set(fd, bytes);
    this.look();
    for (const oldest of this.#files.keys()) {
      if (this.#files.size <= FILES_MAX) break;
      this.#end(oldest);
    }
  }

  /** Called now and then: gives up what nobody has open any more. */
  look(): void {
    for (const fd of [...this.#files.keys()]) if (!isInUse(fd)) this.#end(fd);
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
