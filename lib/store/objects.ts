// LocalObjects: synchronous, read-only opening of blobs that are whole, verified and sealed in the cache directory. It
// never creates, never fetches. docs/format/cache.md is the layout and the seal. Data plane.

import { native } from "../sys/native.ts";

const O_RDONLY = 0;
const O_DIRECTORY = 0o200000;

export class LocalObjects {
  #directoryFd: number;

  private constructor(directoryFd: number) {
    this.#directoryFd = directoryFd;
  }

  /** Over the folder that holds `ab/<64 hex>`: LocalObjects or -errno. */
  static open(directory: string): LocalObjects | number {
    const fd = native.openAt(-1, directory, O_RDONLY | O_DIRECTORY, 0);
    return fd < 0 ? fd : LocalObjects.take(fd);
  }

  /** The same by the folder's FD, which it takes. */
  static take(directoryFd: number): LocalObjects {
    return new LocalObjects(directoryFd);
  }

  /**
   * A host FD, the caller's own, of the object whose 32-byte sha256 stands at bytes[offset]: -ENOENT when it is not
   * here, -ESTALE when size (-1: any) or seal is not as it must be: truncated, overwritten or swapped.
   */
  openDigest(bytes: Uint8Array, offset: number, size: number): number {
    return native.openBlob(this.#directoryFd, bytes, offset, size);
  }

  dispose(): void {
    if (this.#directoryFd >= 0) native.closeFd(this.#directoryFd);
    this.#directoryFd = -1;
  }
}
