// Prefetched: what was brought to this node before anybody asked for it, and what of that was used since: waste is the rest. Views tell
// what they touch (docs/design/0023-touches.md); what they say of a file is believed for figures alone. Control plane.

import { LRUCache } from "lru-cache";
import type { Digest } from "../base/digest.ts";
import { isLarge, pieceCount, pieceLength } from "../cache/pieces.ts";

/** Pieces whose use is awaited: of 256 KiB at most, so those of 16 GiB. One that is pushed out was not used. */
export const UNUSED_MAX = 65_536;
/** Large files that are used in ways that can't be seen. */
const UNSEEN_MAX = 8_192;

/** Only ever grows. */
export interface PrefetchFigures {
  /** Content that was brought before it was asked for. */
  prefetchedBytes: number;
  /** What of it was used since, of large files that are read by mapping them all of it. */
  usedBytes: number;
  /** Files, or ranges of large ones, when they were first read; those of them that were on this node by then. */
  touches: number;
  localTouches: number;
}

export function newPrefetchFigures(): PrefetchFigures {
  return { prefetchedBytes: 0, usedBytes: 0, touches: 0, localTouches: 0 };
}

interface Unused {
  readonly bytes: number;
  /** The view that it was brought for, which may be gone. */
  readonly mountId: string;
}

/** What views there are, and who watches one. */
export interface PrefetchHearers {
  figuresOf(mountId: string): PrefetchFigures;
  brought(mountId: string, blob: Digest, piece: number, bytes: number): void;
}

export class Prefetched {
  readonly #hearers: PrefetchHearers;
  readonly figures: PrefetchFigures = newPrefetchFigures();
  readonly #unused = new LRUCache<string, Unused>({ max: UNUSED_MAX });
  readonly #unseen = new LRUCache<Digest, true>({ max: UNSEEN_MAX });

  constructor(hearers: PrefetchHearers) {
    this.#hearers = hearers;
  }

  /** Whether anything awaits its use. */
  get isEmpty(): boolean {
    return this.#unused.size === 0;
  }

  /** A piece of a blob has come for the sake of a view. */
  brought(mountId: string, blob: Digest, piece: number, bytes: number): void {
    this.figures.prefetchedBytes += bytes;
    this.#hearers.figuresOf(mountId).prefetchedBytes += bytes;
    this.#hearers.brought(mountId, blob, piece, bytes);
    if (this.#unseen.has(blob)) this.#use({ bytes, mountId });
    else this.#unused.set(`${blob} ${piece}`, { bytes, mountId });
  }

  /**
   * Pieces [first, first + count) of a blob of so many bytes are read; when count is 0 all of it, from now on. Looks at `most` of them: at
   * how many is returned.
   */
  used(blob: Digest, size: number, first: number, count: number, most: number): number {
    const isWhole = count === 0 && isLarge(size);
    if (isWhole && this.#unseen.has(blob)) return 0;
    if (isWhole) this.#unseen.set(blob, true);
    const from = isWhole ? 0 : first;
    const wanted = isWhole ? pieceCount(size) : first + Math.max(1, count);
    const end = Math.min(pieceCount(size), wanted, from + most);
    for (let piece = from; piece < end; piece++) this.#take(blob, piece);
    return Math.max(0, end - from);
  }

  #take(blob: Digest, piece: number): void {
    const key = `${blob} ${piece}`;
    const unused = this.#unused.get(key);
    if (unused === undefined) return;
    this.#unused.delete(key);
    this.#use(unused);
  }

  #use({ bytes, mountId }: Unused): void {
    this.figures.usedBytes += bytes;
    this.#hearers.figuresOf(mountId).usedBytes += bytes;
  }
}

/** Bytes of the blocks [first, first + count) of a blob; of all of it when count is 0. */
export function bytesOf(size: number, first: number, count: number): number {
  if (count === 0) return size;
  let bytes = 0;
  for (let piece = first; piece < Math.min(pieceCount(size), first + count); piece++)
    bytes += pieceLength(size, piece);
  return bytes;
}
