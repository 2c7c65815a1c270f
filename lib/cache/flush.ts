// Flush: fsync on a disk that may hang. One that does is given up after a while, as a failure of the disk, so that what waits for it goes
// on without; and however many hang, threads of the pool are left for others. Control plane.

import fs from "node:fs";

/** A disk on which no fsync of small files has ended for so long hangs: one that merely is slow ends one in less, as a rule. */
export const STALL_MS = 2_000;
/** Bytes that a slow disk writes in a millisecond: so much longer that of a large file may take. */
const SLOW_BYTES_PER_MS = 10_000;
/** Under way at once. Of the pool's threads, four unless the daemon asks for more, one is left to others. */
const AT_ONCE = 3;

const waiting = new Set<() => void>();
let underWay = 0;
/** When one ended last, or was started while there was none. */
let movedMs = 0;

/**
 * fsync(2) of a file that stays the caller's. Throws the system's error, or ETIMEDOUT when the disk hangs for `stallMs`, and as long again as
 * the file's bytes may take: it may happen yet. Infinity: waits however long it takes.
 */
export function flush(fd: number, stallMs: number): Promise<void> {
  const patienceMs = stallMs + fs.fstatSync(fd).size / SLOW_BYTES_PER_MS;
  return new Promise((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined;
    const begin = () => {
      waiting.delete(begin);
      if (underWay++ === 0) movedMs = performance.now();
      fs.fsync(fd, (error) => {
        clearTimeout(timer);
        underWay--;
        movedMs = performance.now();
        for (const next of waiting) if (underWay < AT_ONCE) next();
        if (error === null) resolve();
        else reject(error);
      });
    };
    const look = () => {
      const leftMs = movedMs + patienceMs - performance.now();
      if (leftMs > 0) {
        timer = setTimeout(look, leftMs);
        return;
      }
      waiting.delete(begin);
      reject(Object.assign(new Error("the disk hangs"), { code: "ETIMEDOUT", errno: -110 }));
    };
    if (underWay < AT_ONCE) begin();
    else waiting.add(begin);
    if (patienceMs < Number.POSITIVE_INFINITY) look();
  });
}
