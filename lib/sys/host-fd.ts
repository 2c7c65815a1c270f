// HostFd: an FD of our process with one owner. Whoever holds the object closes the FD; whoever is lent its number
// does not. Control plane, and the construction of trees; the data plane keeps bare numbers in tables of its own.

import { assert } from "../base/assert.ts";
import { native } from "./native.ts";

const GONE = -1;

export class HostFd {
  #fd: number;

  /** Takes over an open FD. */
  constructor(fd: number) {
    assert(fd >= 0, "a HostFd is made of an open FD");
    this.#fd = fd;
  }

  /** The number, for calls that end before this object does. */
  borrow(): number {
    assert(this.#fd !== GONE, "the HostFd is still owned");
    return this.#fd;
  }

  /** Gives the FD to the caller, who closes it from now on. */
  take(): number {
    const fd = this.borrow();
    this.#fd = GONE;
    return fd;
  }

  /** Closes the FD unless it was taken. Idempotent. */
  [Symbol.dispose](): void {
    if (this.#fd === GONE) return;
    native.closeFd(this.#fd);
    this.#fd = GONE;
  }
}
