// Flipper: a thread that rewrites a channel's shared memory without pause, as a hostile sandbox can: the datagram's length, the
// MID and the first bytes of the payload. Run as a worker; ends when `stop` is 1. Tests only.

import { fileURLToPath } from "node:url";
import { isMainThread, Worker, workerData } from "node:worker_threads";
import { native } from "../../lib/sys/native.ts";

interface FlipperData {
  readonly memoryFd: number;
  readonly offset: number;
  readonly length: number;
  /** Bytes of the window that are rewritten: [start, end). */
  readonly ranges: readonly (readonly [number, number])[];
  readonly stop: Int32Array;
}

/** Starts to flip; the function it returns ends it. */
export function startFlipper(
  memoryFd: number,
  offset: number,
  length: number,
  ranges: readonly (readonly [number, number])[],
): () => Promise<void> {
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const data: FlipperData = { memoryFd, offset, length, ranges, stop };
  const worker = new Worker(fileURLToPath(import.meta.url), { workerData: data });
  const ended = new Promise<void>((resolve, reject) => {
    worker.once("exit", () => resolve());
    worker.once("error", reject);
  });
  return () => {
    Atomics.store(stop, 0, 1);
    return ended;
  };
}

function flip({ memoryFd, offset, length, ranges, stop }: FlipperData): void {
  const mapped = native.map(memoryFd, offset, length, true);
  if (typeof mapped === "number") throw new Error(`can't map: ${mapped}`);
  const bytes = new Uint8Array(mapped);
  // Values that matter as lengths, counts and ids, besides random ones.
  const special = [0, 1, 2, 4, 8, 20, 0x7f, 0x80, 0xfe, 0xff];
  let state = 12_345;
  while (Atomics.load(stop, 0) === 0) {
    for (let i = 0; i < 1000; i++) {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      const [start, end] = ranges[(state >>> 24) % ranges.length]!;
      const at = start + ((state >>> 8) % (end - start));
      bytes[at] = (state & 1) === 0 ? special[(state >>> 3) % special.length]! : state >>> 16;
    }
  }
}

if (!isMainThread && (workerData as FlipperData | null)?.stop !== undefined) {
  flip(workerData as FlipperData);
}
