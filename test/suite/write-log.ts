// The log of dm-log-writes (linux, drivers/md/dm-log-writes.c and Documentation/admin-guide/device-mapper/log-writes.rst): every write of a
// disk in the order in which it became durable, and what a disk may hold after a power cut at any point of it. Test support.

import fs from "node:fs";

const MAGIC = 0x6a736677736872n;
const FLUSH = 1;
const FUA = 2;
const DISCARD = 4;
const MARK = 8;

export interface LoggedWrite {
  /** Where on the disk, bytes. */
  readonly offset: number;
  readonly length: number;
  /** Where its content is in the log. */
  readonly at: number;
  /** All before it is durable. */
  readonly isFlush: boolean;
  /** It is durable itself. */
  readonly isForced: boolean;
}

/** The writes of a log. Discards and marks are left out. */
export function readWriteLog(path: string): LoggedWrite[] {
  const fd = fs.openSync(path, "r");
  try {
    const head = Buffer.alloc(40);
    fs.readSync(fd, head, 0, head.length, 0);
    if (head.readBigUInt64LE(0) !== MAGIC) throw new Error("no log of writes");
    const entries = Number(head.readBigUInt64LE(16));
    const sector = head.readUInt32LE(24);
    const writes: LoggedWrite[] = [];
    for (let i = 0, at = sector; i < entries; i++) {
      fs.readSync(fd, head, 0, 32, at);
      const [start, sectors, flags, dataBytes] = [0, 8, 16, 24].map((from) =>
        Number(head.readBigUInt64LE(from)),
      ) as [number, number, number, number];
      at += sector;
      if ((flags & MARK) !== 0) {
        // Its name stands in the sector of the entry.
        if (dataBytes > sector - 32) throw new Error("a mark with too long a name");
        continue;
      }
      const length = sectors * sector;
      if ((flags & DISCARD) !== 0) continue;
      const isFlush = (flags & FLUSH) !== 0;
      const isForced = (flags & FUA) !== 0;
      writes.push({ offset: start * sector, length, at, isFlush, isForced });
      at += length;
    }
    return writes;
  } finally {
    fs.closeSync(fd);
  }
}

/**
 * Brings a disk's image from before a log to what it may be when the power goes after its first `count` writes: with all up to the last
 * flush, and of those after it with what was forced, and with others as `isKept` says. How many were lost.
 */
export function replay(
  log: string,
  writes: readonly LoggedWrite[],
  image: string,
  count: number,
  isKept: () => boolean,
): number {
  const done = writes.slice(0, count);
  const flush = done.findLastIndex(({ isFlush }) => isFlush);
  const source = fs.openSync(log, "r");
  const target = fs.openSync(image, "r+");
  let lost = 0;
  try {
    for (const [i, { offset, length, at, isForced }] of done.entries()) {
      // A flush makes durable what came before it, not what it brings.
      const isDurable = i < flush || isForced;
      if (length === 0) continue;
      if (!isDurable && !isKept()) {
        lost++;
        continue;
      }
      const content = Buffer.alloc(length);
      fs.readSync(source, content, 0, length, at);
      fs.writeSync(target, content, 0, length, offset);
    }
    return lost;
  } finally {
    fs.closeSync(source);
    fs.closeSync(target);
  }
}
