// HostHandles: the open files or directories of a host tree: handle -> FD, with a position for directories. Bounded;
// handles are slots and so are used again: a front end that keeps one past close reads another file. Data plane.

import { Errno } from "../base/errno.ts";
import { native } from "../sys/native.ts";

const FREE = -1;

export class HostHandles {
  readonly #max: number;
  readonly #fds: number[] = [];
  readonly #free: number[] = [];
  /** By handle: how many dentries a directory has given so far. */
  readonly positions: number[] = [];

  constructor(max: number) {
    this.#max = max;
  }

  /** Whether one more has room. Ask before a side effect that ends in one. */
  get hasRoom(): boolean {
    return this.#free.length > 0 || this.#fds.length < this.#max;
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
    this.#free.push(handle);
  }

  /** Closes all. Idempotent. */
  dispose(): void {
    for (let handle = 0; handle < this.#fds.length; handle++) this.close(handle);
  }
}
