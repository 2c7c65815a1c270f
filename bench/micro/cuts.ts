// Cuts: ways to cut content into chunks, for the bench that compares them. Each gives the lengths of the chunks in order.

export type Cutter = (bytes: Uint8Array) => Iterable<number>;

/** All of it, whatever its length: what is stored is shared by whole file alone. */
export function* whole(bytes: Uint8Array): Iterable<number> {
  if (bytes.length > 0) yield bytes.length;
}

/** Blocks of one length, from the start. */
export function fixed(blockBytes: number): Cutter {
  return function* (bytes) {
    for (let at = 0; at < bytes.length; at += blockBytes)
      yield Math.min(blockBytes, bytes.length - at);
  };
}

/** A random word for each byte value: splitmix32 from a fixed seed, so that every run cuts alike. */
const GEAR = Int32Array.from({ length: 256 }, (_, i) => {
  let word = Math.imul(i + 1, 0x9e3779b9);
  word = Math.imul(word ^ (word >>> 16), 0x21f0aaad);
  word = Math.imul(word ^ (word >>> 15), 0x735a2d97);
  return word ^ (word >>> 15);
});
/** Normalized chunking: cuts are this many bits rarer before the average length and commoner after it. */
const NORMAL_BITS = 2;

/**
 * Content-defined, as FastCDC: a cut where the top bits of a gear hash of the last 32 bytes are zero; none before a quarter of
 * the average (a power of two), one at four times the average at the latest.
 */
export function contentDefined(averageBytes: number): Cutter {
  const bits = Math.log2(averageBytes);
  const rare = 32 - bits - NORMAL_BITS;
  const common = 32 - bits + NORMAL_BITS;
  return function* (bytes) {
    let start = 0;
    while (start < bytes.length) {
      const end = Math.min(bytes.length, start + averageBytes * 4);
      const middle = Math.min(end, start + averageBytes);
      const from = Math.min(end, start + (averageBytes >> 2));
      const length = cutAt(bytes, from, middle, end, rare, common) - start;
      yield length;
      start += length;
    }
  };
}

function cutAt(
  bytes: Uint8Array,
  from: number,
  middle: number,
  end: number,
  rare: number,
  common: number,
): number {
  let hash = 0;
  let at = from;
  for (; at < middle; at++) {
    hash = ((hash << 1) + GEAR[bytes[at]!]!) | 0;
    if (hash >>> rare === 0) return at + 1;
  }
  for (; at < end; at++) {
    hash = ((hash << 1) + GEAR[bytes[at]!]!) | 0;
    if (hash >>> common === 0) return at + 1;
  }
  return end;
}
