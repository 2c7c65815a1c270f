// Fetching small blobs: one range request brings the blob asked for and its neighbours in the pack, each verified and kept on
// its own, so a bad neighbour hurts nobody. Control plane.

import type { Digest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { FETCH_RUN_BYTES } from "../base/limits.ts";
import { CHUNK_MAX_BYTES, Codec } from "../store/codec.ts";
import { digestOf } from "../store/hash.ts";
import type { Locator } from "../store/locator.ts";
import { type ByteRange, classOf, isAstray } from "../store/store.ts";
import { Doubts } from "./doubts.ts";
import type { FetchContext } from "./fetch-context.ts";
import type { GiveBack } from "./intake.ts";
import {
  getPieces,
  isWithin,
  openPiece,
  type Piece,
  pieceOfNeighbour,
  plannedAround,
  type Source,
  type StoredPiece,
  spanOf,
} from "./pieces.ts";
import { expectedCost, type Reservation } from "./room.ts";
import type { Shelf } from "./shelf.ts";

/** Requests for a blob whose content is wrong, the run included. */
const TRIES = 3;

/** A run may take this part of a cache's limit. */
const RUN_SHARE = 1 / 4;

/** A neighbour that comes along: whoever asks for it meanwhile waits for `settle`. */
export interface Neighbour {
  readonly digest: Digest;
  settle(isHere: boolean): void;
}

/** Takes a neighbour that isn't on the disk into the run, unless it is in memory or on its way. */
export type Enlist = (digest: Digest) => Neighbour | undefined;

/** Called once, right before a flight sends its request: the outcome of a run that took the blob along meanwhile. */
export type Claim = () => Promise<boolean> | undefined;

export interface SmallFetch {
  readonly source: Source;
  readonly digest: Digest;
  readonly size: number;
  /** Undefined: none come along. */
  readonly enlist: Enlist | undefined;
  readonly claim: Claim;
  /** Whether nobody waits for a blob that comes with it, or for itself, by now. */
  readonly isAhead: (digest: Digest) => boolean;
}

interface RunItem {
  readonly digest: Digest;
  readonly piece: Piece;
  /** undefined: the blob asked for, or one that is here already and lies between others. */
  readonly neighbour: Neighbour | undefined;
}

/**
 * Fetches a small blob and keeps it; resolves when it is in blobs/. Its neighbours follow after; `finished` of the result
 * resolves, never rejects, when they are settled too.
 */
export async function fetchSmall(
  shelf: Shelf,
  context: FetchContext,
  wanted: SmallFetch,
): Promise<{ finished: Promise<void> }> {
  const { source, digest, size, enlist, claim, isAhead } = wanted;
  using deadline = context.deadline(source);
  const { signal } = deadline;
  if (size === 0) {
    await keepEmpty(shelf, context, digest, signal);
    return { finished: Promise.resolve() };
  }
  let { origin, pieces, locator } = await context.locate(source, digest, size, [0], signal);
  const around =
    enlist === undefined
      ? new Set<Digest>()
      : await absentAround(shelf, locator, digest, pieces[0]!);
  // Not a tick may pass between an empty claim and the run: asks side by side would each fetch what the first brings along.
  const adopted = claim();
  if (adopted !== undefined && (await adopted)) return { finished: Promise.resolve() };
  let piece = pieces[0]!;
  let run: RunItem[] = [];
  let isRefreshed = false;
  const doubts = new Doubts();
  for (let attempt = 1; ; attempt++) {
    let space: Reservation | undefined;
    let giveBack: GiveBack = () => undefined;
    const release = () => {
      space?.release();
      giveBack();
    };
    try {
      run =
        attempt === 1 && enlist !== undefined
          ? runOf(locator, digest, piece, plannedAround(origin, piece), (blob) =>
              around.has(blob) ? enlist(blob) : undefined,
            )
          : [{ digest, piece, neighbour: undefined }];
      giveBack = await origin.takeIn(bytesOf(run), signal);
      ({ run, space } = await reserveRun(shelf, run, digest, signal));
      const stored = await getPieces(
        origin,
        run.map((item) => item.piece),
        true,
        signal,
        doubts.avoid,
      );
      const at = run.findIndex((item) => item.digest === digest);
      const { content, sum } = await context.share.run(opening(doubts, piece, stored[at]!, digest));
      await keep(shelf, context, digest, content, space, sum, () => isAhead(digest));
      if (source.isAhead) source.onPrefetch?.(digest, 0, size);
      const kept = keepNeighbours(shelf, context, wanted, run, stored, space);
      return { finished: kept.finally(release) };
    } catch (error) {
      release();
      for (const item of run) item.neighbour?.settle(false);
      if (isMismatch(error)) context.noteMismatch(digest, source, error);
      // A neighbour's place may be what is wrong with a run.
      const isOfRun = isAstray(error) && classOf(error) !== "notFound" && run.length > 1;
      const isTriedAgain = isMismatch(error) || isOfRun;
      if (isTriedAgain && attempt < TRIES) continue;
      const fresh = isRefreshed ? undefined : await context.refresh(source, locator, error, signal);
      if (fresh === undefined) throw error;
      isRefreshed = true;
      ({ origin, pieces, locator } = await context.locate(source, digest, size, [0], signal));
      piece = pieces[0]!;
      attempt = 0;
    }
  }
}

/** Verifies the blob asked for: its content, and what that comes to. */
function opening(doubts: Doubts, piece: Piece, stored: StoredPiece, digest: Digest) {
  return () => {
    const content = doubts.open(piece, stored, piece.sum ?? digest);
    return { content, sum: piece.pin === undefined ? piece.sum : digestOf(content) };
  };
}

/** Blobs around one that aren't on the disk: what a run may bring along. */
async function absentAround(
  shelf: Shelf,
  locator: Locator,
  digest: Digest,
  piece: Piece,
): Promise<ReadonlySet<Digest>> {
  if (isAlone(locator, piece)) return new Set();
  const blobs = locator.runAround(locator.find(digest), FETCH_RUN_BYTES).map(({ blob }) => blob);
  const looked = blobs.map((blob) => ({ folder: "blobs" as const, digest: blob, size: -1 }));
  const states = await shelf.cache.lookAll(looked);
  return new Set(blobs.filter((_, i) => states[i] === "missing"));
}

/** A delta's neighbours are deltas, too: each needs a request for its base, and its own time. */
function isAlone(locator: Locator, piece: Piece): boolean {
  return locator.kind !== "packs" || piece.codec === Codec.delta;
}

/**
 * The run to ask for: whole small blobs next to the asked one, without those at its ends that are here already. Of what comes in a
 * planned range only that.
 */
function runOf(
  locator: Locator,
  digest: Digest,
  piece: Piece,
  planned: ByteRange | undefined,
  enlist: Enlist,
): RunItem[] {
  const asked: RunItem = { digest, piece, neighbour: undefined };
  if (isAlone(locator, piece)) return [asked];
  const around = locator.runAround(locator.find(digest), FETCH_RUN_BYTES);
  const at = around.findIndex((chunk) => chunk.blob === digest);
  const isTaken = (i: number) => {
    const chunk = around[i];
    return (
      chunk?.isWhole === true &&
      (planned === undefined || isWithin(spanOf(chunk), planned)) &&
      chunk.codec !== Codec.delta &&
      chunk.stored <= chunk.length &&
      chunk.length <= CHUNK_MAX_BYTES
    );
  };
  let first = at;
  let last = at;
  while (isTaken(first - 1)) first--;
  while (isTaken(last + 1)) last++;
  const items = around.slice(first, last + 1).map((chunk, i): RunItem => {
    if (first + i === at) return asked;
    return {
      digest: chunk.blob,
      piece: pieceOfNeighbour(locator, chunk),
      neighbour: enlist(chunk.blob),
    };
  });
  const isWanted = (item: RunItem) => item === asked || item.neighbour !== undefined;
  return items.slice(items.findIndex(isWanted), items.findLastIndex(isWanted) + 1);
}

/** What a run has in memory at most: as it comes, and the content of what is kept of it. */
function bytesOf(run: readonly RunItem[]): number {
  return run.reduce((sum, { piece }) => sum + piece.stored + piece.length, 0);
}

/** Space for a run before it is asked for; where there is too little for all of it, none, so that it goes to memory; or, without memory, for the blob asked for alone. */
async function reserveRun(
  shelf: Shelf,
  run: RunItem[],
  digest: Digest,
  signal: AbortSignal,
): Promise<{ run: RunItem[]; space: Reservation | undefined }> {
  if (shelf.isInMemoryOnly) return { run, space: undefined };
  const isKept = (item: RunItem) => item.digest === digest || item.neighbour !== undefined;
  const costOf = (items: readonly RunItem[]) =>
    items.filter(isKept).reduce((sum, { piece }) => sum + expectedCost(piece.length), 0);
  try {
    const files = run.filter(isKept).length;
    return { run, space: await shelf.cache.room.reserve(costOf(run), signal, files) };
  } catch (error) {
    if (!isFull(error)) throw error;
    const isModest = costOf(run) <= shelf.cache.room.limitBytes * RUN_SHARE;
    if (shelf.hasMemory && isModest) return { run, space: undefined };
  }
  for (const { neighbour } of run) neighbour?.settle(false);
  const alone = run.filter((item) => item.digest === digest);
  return { run: alone, space: await shelf.reserve(costOf(alone), signal) };
}

async function keepNeighbours(
  shelf: Shelf,
  context: FetchContext,
  { source, isAhead }: SmallFetch,
  run: readonly RunItem[],
  stored: readonly StoredPiece[],
  space: Reservation | undefined,
): Promise<void> {
  await Promise.all(
    run.map(async ({ digest, piece, neighbour }, i) => {
      if (neighbour === undefined) return;
      try {
        const content = await context.share.run(() => openPiece(piece, stored[i]!, digest));
        await keep(shelf, context, digest, content, space, digest, () => isAhead(digest));
        context.counters.neighbours++;
        source.onPrefetch?.(digest, 0, piece.length);
        neighbour.settle(true);
      } catch (error) {
        if (isMismatch(error)) context.noteMismatch(digest, source, error);
        neighbour.settle(false);
      }
    }),
  );
}

async function keep(
  shelf: Shelf,
  context: FetchContext,
  digest: Digest,
  content: Uint8Array,
  space: Reservation | undefined,
  sum: Digest = digest,
  isAhead = () => false,
): Promise<void> {
  if (!(await shelf.keep(digest, content, space, sum, isAhead))) return;
  context.counters.blobs++;
  context.counters.blobBytes += content.length;
}

/** What has no bytes is asked for nowhere. */
async function keepEmpty(
  shelf: Shelf,
  context: FetchContext,
  digest: Digest,
  signal: AbortSignal,
): Promise<void> {
  const space = await shelf.reserve(expectedCost(0), signal);
  try {
    await keep(shelf, context, digest, Buffer.alloc(0), space);
  } finally {
    space?.release();
  }
}

function isMismatch(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "BURROW_DIGEST_MISMATCH";
}

function isFull(error: unknown): boolean {
  return error instanceof BurrowError && error.code === "BURROW_NO_SPACE";
}
