// OverlayFiles: the open files and directories of an overlay: which side each handle is of. A file that was opened for reading
// before its copy-up is read from the copy after it. Data plane.

import { Errno } from "../base/errno.ts";
import { hasUpperData, NONE, type OverlayNode } from "./overlay-nodes.ts";
import { type Ino, O_RDONLY, OpenResult, type Tree } from "./tree.ts";
import type { Upper } from "./upper.ts";

interface OpenFile {
  readonly node: OverlayNode;
  isUpper: boolean;
  /** Of the side's own tree; of a directory the upper's, or -1. */
  handle: number;
}

/** What a handle leads to. */
export interface Side {
  readonly tree: Tree;
  readonly ino: Ino;
  readonly handle: number;
}

export class OverlayFiles {
  readonly #lower: Tree;
  readonly #upper: Upper;
  readonly #files: (OpenFile | undefined)[] = [];
  readonly #free: number[] = [];
  readonly #opened = new OpenResult();

  constructor(lower: Tree, upper: Upper) {
    this.#lower = lower;
    this.#upper = upper;
  }

  get count(): number {
    return this.#files.length - this.#free.length;
  }

  /** A handle for what a side has opened. */
  take(node: OverlayNode, isUpper: boolean, handle: number): number {
    const slot = this.#free.pop() ?? this.#files.length;
    this.#files[slot] = { node, isUpper, handle };
    return slot;
  }

  /** The handle of the upper, to be written to; -EBADF for one that was opened for reading below. */
  upperHandle(handle: number): number {
    const file = this.#files[handle];
    return file?.isUpper === true ? file.handle : -Errno.EBADF;
  }

  /** Reads from the side that has the bytes now: bytes, MISS or -errno. */
  read(handle: number, offset: number, out: Uint8Array): number {
    const file = this.#files[handle];
    if (file === undefined) return -Errno.EBADF;
    if (!file.isUpper && hasUpperData(file.node)) {
      const failed = this.#move(file);
      if (failed < 0) return failed;
    }
    const { node } = file;
    return file.isUpper
      ? this.#upper.read(node.upper, file.handle, offset, out)
      : this.#lower.read(node.lower, file.handle, offset, out);
  }

  #move(file: OpenFile): number {
    const { node } = file;
    const failed = this.#upper.open(node.upper, O_RDONLY, this.#opened);
    if (failed < 0) return failed;
    this.#lower.close(node.lower, file.handle);
    file.isUpper = true;
    file.handle = this.#opened.handle;
    return 0;
  }

  close(handle: number): void {
    const file = this.#files[handle];
    if (file === undefined) return;
    const { node } = file;
    if (file.isUpper) this.#upper.close(node.upper, file.handle);
    else this.#lower.close(node.lower, file.handle);
    this.#files[handle] = undefined;
    this.#free.push(handle);
  }

  /** The upper's handle of an open directory, which is opened once it has one: -errno; -ENOENT while it has none. */
  directoryHandle(handle: number): number {
    const file = this.#files[handle];
    if (file === undefined) return -Errno.EBADF;
    if (file.handle >= 0) return file.handle;
    if (file.node.upper === NONE) return -Errno.ENOENT;
    const opened = this.#upper.opendir(file.node.upper);
    if (opened >= 0) file.handle = opened;
    return opened;
  }

  closeDirectory(handle: number): void {
    const file = this.#files[handle];
    if (file === undefined) return;
    if (file.handle >= 0) this.#upper.closedir(file.node.upper, file.handle);
    this.#files[handle] = undefined;
    this.#free.push(handle);
  }

  dispose(): void {
    for (let handle = 0; handle < this.#files.length; handle++) {
      const file = this.#files[handle];
      if (file !== undefined && !file.isUpper && file.node.lower !== NONE) this.close(handle);
    }
    this.#files.length = 0;
    this.#free.length = 0;
  }
}
