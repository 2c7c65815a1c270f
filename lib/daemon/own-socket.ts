// OwnSocket: the daemon's socket, where no service manager hands one over. It has its name once it listens, and what bears the name by the
// end is removed only if it is this one: a manager may have put its own there meanwhile. Control plane.

import fs from "node:fs";
import { socketPath } from "../cache/layout.ts";
import { openSocketName, type SocketName } from "../cache/socket-name.ts";

/** No longer than the socket's own name, for which there is room. */
const ASIDE = "daemon.new";
/** A gofer in a user namespace is "other"; it can ask only for rows of views that this node's root has described. */
const MODE = 0o666;

export class OwnSocket {
  readonly #path: string;
  readonly #aside: SocketName;
  readonly #inode: bigint;

  private constructor(cache: string, aside: SocketName) {
    this.#path = socketPath(cache);
    this.#aside = aside;
    this.#inode = inodeOf(aside.name) ?? 0n;
    fs.chmodSync(aside.name, MODE);
    // Over what a killed daemon left, too: the lock is ours.
    fs.renameSync(aside.name, this.#path);
  }

  /** Of a cache whose lock the caller has; `listen` binds a name. Throws what that throws, and the system's errors. */
  static async open(cache: string, listen: (path: string) => Promise<void>): Promise<OwnSocket> {
    const aside = openSocketName(cache, ASIDE);
    try {
      fs.rmSync(aside.name, { force: true });
      await listen(aside.name);
      return new OwnSocket(cache, aside);
    } catch (error) {
      aside.close();
      throw error;
    }
  }

  /** Takes its name away, while it listens: then no other can have its inode. */
  remove(): void {
    if (inodeOf(this.#path) === this.#inode) fs.rmSync(this.#path, { force: true });
  }

  /** After it has been closed, for which Node.js needs the name that it bound. */
  close(): void {
    this.#aside.close();
  }
}

function inodeOf(path: string): bigint | undefined {
  return fs.lstatSync(path, { bigint: true, throwIfNoEntry: false })?.ino;
}
