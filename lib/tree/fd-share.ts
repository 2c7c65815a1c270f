// FdShare: how many host FDs one tree may hold, its inodes, open files and open directories together. The process's limit is
// one for all mounts of a sandbox: without shares, a client that keeps files of one open takes it from the others. Data plane.

export class FdShare {
  /** May be lowered below what is held: then nothing is added until it fits. */
  max = Number.MAX_SAFE_INTEGER;
  held = 0;

  /** Whether `count` more fit. */
  hasRoom(count: number): boolean {
    return this.held + count <= this.max;
  }
}
