// HostHandles: the open files or directories of a host tree: handle -> FD, with a position for directories. Bounded;
// handles are slots and so are used again: a front end that keeps one past close reads another file. Data plane.

import { Errno } from "../base/errno.ts";
import { native } from "../sys/native.ts";
import { FdShare } from "./fd-share.ts";

const FREE = -1;

export class HostHandles {
  readonly #max: number;
  readonly #share: FdShare;
  readonly #fds: number[] = [];
  readonly #free: number[] = [];
  /** By handle: how many dentries a directory has given so far. */
  readonly positions: number[] = [];

  /** `max` handles, of FDs within the tree's share. */
  constructor(max: number, share = new FdShare()) {
    this.#max = max;
    this.#share = share;
  }

  /** Whether one more has room. Ask before a side effect that ends in one. */
  get hasRoom(): boolean {
    const isBelowMax = this.#free.length > 0 || this.#fds.length < this.#max;
    return isBelowMax && this.#share.hasRoom(1);
  }

  get count(): number {
    return this.#fds.length - this.#free.length;
  }

  /** A handle for an FD, which it takes; -EMFILE closes it. A negative FD is an errno and comes back. */
  take(fd: number): number {
    if (fd < 0) return fd;
    if (!this.hasRoom) {
      native.closeFd(fd);
      return -Errno.EMFILE;
    }
    const handle = this.#free.pop() ?? this.#fds.length;
    this.#fds[handle] = fd;
    this.#share.held++;
    this.positions[handle] = 0;
    return handle;
  }

  /** The FD of a handle, or -EBADF. Borrowed. */
  get(handle: number): number {
    const fd = this.#fds[handle];
    return fd === undefined || fd === FREE ? -Errno.EBADF : fd;
  }

  close(handle: number): void {
    const fd = this.get(handle);
    if (fd < 0) return;
    native.closeFd(fd);
    this.#fds[handle] = FREE;
    this.#share.held--;
    this.#free.push(handle);
  }

  /** Closes all. Idempotent. */
  dispose(): void {
    for (let handle = 0; handle < this.#fds.length; handle++) this.close(handle);
  }
}
