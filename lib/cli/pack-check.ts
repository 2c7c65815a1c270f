// Pack check: what a store's locators say of content, kept by pack, so that each pack is read once and every chunk in it compared with
// its digest. Memory: some 200 bytes a chunk, and the packs that are being read. Control plane.

import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import type { Origin } from "../cache/origins.ts";
import {
  getPieces,
  openPiece,
  type Piece,
  pieceAt,
  pieceCount,
  runLength,
} from "../cache/pieces.ts";
import type { Index } from "../layer/index.ts";
import type { Locator } from "../store/locator.ts";
import { type Backend, classOf, type Sender } from "../store/store.ts";
import { counted } from "./output.ts";

const DEADLINE_MS = 60_000;
/** Chunks of one file that lie next to each other are read together, up to this. */
const RUN_BYTES = 1024 * 1024;

/** Whose chunks they are: there is no other to ask. */
const THE_STORE: Sender = { name: "the store", blame: () => undefined };

/** A chunk of a file, and what it must be. */
interface Wanted {
  readonly blob: Digest;
  readonly digest: Digest;
  readonly piece: Piece;
}

/** `files`: what of a pack is wrong or can't be had by it. */
export type OnFault = (what: string, error: unknown, files?: readonly Digest[]) => void;

export class PackCheck {
  /** Distinct files. */
  get files(): number {
    return this.#places.size;
  }

  readonly #origin: Origin;
  readonly #onFault: OnFault;
  /** Where each file was first said to lie, and where else. */
  readonly #places = new Map<Digest, string>();
  readonly #otherPlaces = new Set<string>();
  readonly #wanted = new Map<string, Wanted[]>();
  readonly #needed = new Set<string>();

  constructor(origin: Origin, onFault: OnFault) {
    this.#origin = origin;
    this.#onFault = onFault;
  }

  /**
   * Takes in the files of an index: whether its locator has a place for each. Chunks that are deltas are read at once, since they
   * are few and lead to several packs.
   */
  async add(index: Index, locator: Locator): Promise<boolean> {
    let isWhole = true;
    for (let row = 0; row < index.blobCount; row++) {
      const blob = index.blobDigest(row);
      try {
        const wanted = this.#wantedOf(index, row, locator);
        for (const { piece } of wanted) this.#needed.add(piece.path);
        const deltas = wanted.filter(({ piece }) => piece.near !== undefined);
        for (const each of wanted) if (each.piece.near === undefined) this.#keep(each);
        await this.#read(deltas);
      } catch (error) {
        isWhole = false;
        this.#onFault(showDigest(blob), error);
      }
    }
    return isWhole;
  }

  /** Whether a locator leads to a pack. */
  needs(pack: string): boolean {
    return this.#needed.has(pack);
  }

  /** Packs that locators name. */
  packs(): Iterable<string> {
    return this.#wanted.keys();
  }

  /** Reads a pack and compares it with its name, and what was taken in of it with its digest. */
  async check(pack: string, reader: Backend): Promise<void> {
    const wanted = this.#wanted.get(pack) ?? [];
    this.#wanted.delete(pack);
    let bytes: Buffer;
    try {
      bytes = await reader.get(pack);
    } catch (error) {
      const needed = [...new Set(wanted.map(({ blob }) => blob))];
      if (classOf(error) === "notFound")
        this.#onFault(pack, lost(pack, needed.length, error), needed);
      else if (!isMismatch(error)) this.#onFault(pack, error);
      else {
        // Which of its files are wrong is worth knowing; where it can't be read at all, nothing more is.
        const wrong = await eachBlob(wanted, (one) => this.#read([one]));
        this.#onFault(pack, damaged(wrong.size), [...wrong.keys()]);
      }
      return;
    }
    const wrong = await eachBlob(wanted, async ({ piece, digest }) => {
      const end = piece.offset + piece.stored;
      if (end > bytes.length) throw beyond(piece, bytes.length);
      openPiece(piece, { stored: bytes.subarray(piece.offset, end), sender: THE_STORE }, digest);
    });
    for (const [blob, error] of wrong) this.#onFault(showDigest(blob), error);
  }

  /** The chunks of a file; none where they are known already. BURROW_CORRUPT when the locator contradicts the index. */
  #wantedOf(index: Index, row: number, locator: Locator): Wanted[] {
    const blob = index.blobDigest(row);
    const size = index.blobSize(row);
    if (!this.#isNew(blob, size, locator) || size === 0) return [];
    const isWhole = index.blockCount(row) === 0;
    return Array.from({ length: pieceCount(size) }, (_, k) => ({
      blob,
      digest: isWhole ? blob : index.blockDigest(row, k),
      piece: pieceAt(locator, blob, size, k),
    }));
  }

  #isNew(blob: Digest, size: number, locator: Locator): boolean {
    const row = size === 0 ? -1 : locator.find(blob);
    const first = row < 0 || locator.chunkCount(row) === 0 ? undefined : locator.chunkAt(row, 0);
    const place = first === undefined ? "" : `${first.pack.slice(0, 16)} ${first.offset}`;
    const known = this.#places.get(blob);
    if (known === undefined) this.#places.set(blob, place);
    if (known === undefined || known === place) return known === undefined;
    const other = `${blob} ${place}`;
    const isNew = !this.#otherPlaces.has(other);
    this.#otherPlaces.add(other);
    return isNew;
  }

  #keep(one: Wanted): void {
    const { path } = one.piece;
    const all = this.#wanted.get(path);
    if (all === undefined) this.#wanted.set(path, [one]);
    else all.push(one);
  }

  /** Reads chunks as the daemon does, those that lie next to each other together. */
  async #read(wanted: readonly Wanted[]): Promise<void> {
    const signal = AbortSignal.timeout(DEADLINE_MS);
    for (let at = 0; at < wanted.length; ) {
      const left = wanted.slice(at).map(({ piece }) => piece);
      const run = left.slice(0, runLength(left, RUN_BYTES));
      const got = await getPieces(this.#origin, run, true, signal);
      for (const [i, piece] of run.entries()) openPiece(piece, got[i]!, wanted[at + i]!.digest);
      at += run.length;
    }
  }
}

function isMismatch(error: unknown): boolean {
  return error instanceof BurrowError && error.code === "BURROW_DIGEST_MISMATCH";
}

/** Files of which a chunk is wrong, with the first fault of each. */
async function eachBlob(
  wanted: readonly Wanted[],
  work: (one: Wanted) => Promise<void>,
): Promise<Map<Digest, unknown>> {
  const wrong = new Map<Digest, unknown>();
  for (const one of wanted) {
    if (wrong.has(one.blob)) continue;
    try {
      await work(one);
    } catch (error) {
      wrong.set(one.blob, error);
    }
  }
  return wrong;
}

function damaged(files: number): BurrowError {
  const what = `it is not what its name says: ${counted(files, "file")} in it can't be had`;
  return new BurrowError("BURROW_DIGEST_MISMATCH", what);
}

function lost(pack: string, files: number, cause: unknown): BurrowError {
  return new BurrowError("BURROW_CORRUPT", `it is not there, and ${files} files need it`, {
    cause,
    context: { path: pack },
  });
}

function beyond({ path, offset }: Piece, length: number): BurrowError {
  return new BurrowError("BURROW_CORRUPT", `the pack ends at ${length}, before the chunk does`, {
    context: { path, offset },
  });
}

/** The packs that a locator leads to. */
export function packsOf(locator: Locator): Set<string> {
  const packs = new Set<string>();
  if (locator.kind !== "packs") return packs;
  for (let row = 0; row < locator.blobCount; row++) {
    for (let k = 0; k < locator.chunkCount(row); k++) packs.add(locator.chunkAt(row, k).path);
  }
  return packs;
}
