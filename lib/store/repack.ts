// Repack: moves what is still needed out of packs: copied into new packs, locators rewritten. What starts are known to read comes first, pack
// by pack in the order of its use, so that it lies in few long ranges. The old packs stay until nobody can look for them.
// docs/format/store.md, "Collection". Memory: two packs, and 150 B for each chunk that is moved at a time. Control plane.

import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError, explain } from "../base/error.ts";
import { PACK_TARGET_BYTES } from "../base/limits.ts";
import { Codec, expandChunk } from "./codec.ts";
import { type DeltaStore, locatorsByBase, replaceLocator } from "./deltas.ts";
import { digestOf } from "./hash.ts";
import { readLocator } from "./known.ts";
import { objectPath } from "./layout.ts";
import type { ChunkPlace } from "./locator.ts";
import { encodeLocator, placeAt } from "./locator-writer.ts";
import {
  chunkBytesOf,
  PACK_FOOTER_BYTES,
  PackBuilder,
  type PackRow,
  readPackRows,
} from "./pack.ts";
import type { Pack } from "./pack-use.ts";
import { inParallel } from "./parallel.ts";
import type { Fault } from "./survey.ts";

/** Packs that are moved before locators are rewritten: what is known of their chunks is held meanwhile. */
const BATCH_PACKS = 64;
const PARALLEL = 8;

/** The place of a blob's block among what starts read, the first 0; undefined of what none is known to. */
export type ReadOrder = (blob: Digest, block: number) => number | undefined;

export interface RepackOptions {
  /** What comes first in new packs; the order of the old ones without. */
  readonly order?: ReadOrder;
  /** What comes behind all of that. */
  readonly others?: ReadOrder;
  /** Bytes at which a new pack is closed. */
  readonly packBytes?: number;
  /** Called before anything is written. */
  check(): Promise<void>;
  /** Called with packs whose content has been copied, before any locator says so. */
  onReplaced(packs: readonly Pack[]): Promise<void>;
  readonly onProgress?: (done: number, count: number) => void;
}

export interface Repacked {
  packs: number;
  /** Of the old packs, and of the new ones that have what was needed of them. */
  oldBytes: number;
  newBytes: number;
  readonly faults: Fault[];
}

/** Which locators lead into which of some packs. */
export type PackUsers = ReadonlyMap<Digest, readonly Digest[]>;

/** The locators among `live` that lead into `packs`. What can't be read is left out: what it needs is not moved, so see the survey's faults first. */
export async function usersOf(
  store: DeltaStore,
  live: readonly Digest[],
  packs: readonly Pack[],
): Promise<PackUsers> {
  const users = new Map<Digest, Digest[]>(packs.map(({ digest }) => [digest, []]));
  await inParallel(live, PARALLEL, async (digest) => {
    const locator = await readLocator(store, digest);
    for (let number = 0; number < locator.packCount; number++)
      users.get(locator.packAt(number))?.push(digest);
  });
  return users;
}

/** Those of `packs` of whose chunks less than `share` is needed, by their bytes; and how many bytes are. Tables of packs count for nothing. */
export async function sparseAmong(
  store: DeltaStore,
  packs: readonly Pack[],
  users: PackUsers,
  share: number,
  faults: Fault[],
): Promise<{ pack: Pack; liveBytes: number }[]> {
  const sparse: { pack: Pack; liveBytes: number }[] = [];
  for (let at = 0; at < packs.length; at += BATCH_PACKS) {
    const batch = packs.slice(at, at + BATCH_PACKS);
    const needed = await neededOf(store, locatorsOf(batch, users), batch);
    await inParallel(batch, PARALLEL, async (pack) => {
      let liveBytes = 0;
      for (const stored of needed.get(pack.digest)!.values()) liveBytes += stored;
      const range = { offset: pack.bytes - PACK_FOOTER_BYTES, length: PACK_FOOTER_BYTES };
      try {
        const chunkBytes = chunkBytesOf(await store.get(pack.path, { range }));
        if (liveBytes < chunkBytes * share) sparse.push({ pack, liveBytes });
      } catch (error) {
        faults.push({ what: pack.path, why: explain(error) });
      }
    });
  }
  return sparse;
}

function locatorsOf(packs: readonly Pack[], users: PackUsers): Set<Digest> {
  return new Set(packs.flatMap(({ digest }) => users.get(digest) ?? []));
}

/**
 * Moves what is needed of `packs`, whose locators are `users`. No writer may make deltas of these meanwhile. A pack that is not what
 * its name says, or not as a locator says, is left as it is, and a fault.
 */
export async function repack(
  store: DeltaStore,
  packs: readonly Pack[],
  users: PackUsers,
  options: RepackOptions,
): Promise<Repacked> {
  const repacked: Repacked = { packs: 0, oldBytes: 0, newBytes: 0, faults: [] };
  const dependents = await locatorsByBase(store, (what, error) =>
    repacked.faults.push({ what, why: explain(error) }),
  );
  for (let at = 0; at < packs.length; at += BATCH_PACKS) {
    const batch = packs.slice(at, at + BATCH_PACKS);
    const locators = locatorsOf(batch, users);
    const needed = await neededOf(store, locators, batch);
    const mover = new Mover(store, options);
    const whole = await moveAll(mover, batch, needed, repacked.faults, (done) =>
      options.onProgress?.(at + done, packs.length),
    );
    await mover.close();
    const moved = whole.filter(({ digest }) => !mover.made.has(digest));
    if (moved.length === 0) continue;
    await options.check();
    await options.onReplaced(moved);
    for (const locator of locators) {
      await options.check();
      await rewrite(store, locator, mover.places, dependents.get(locator) ?? []);
    }
    repacked.packs += moved.length;
    for (const { bytes } of moved) repacked.oldBytes += bytes;
    const kept = whole.filter(({ digest }) => mover.made.has(digest));
    repacked.newBytes += mover.bytes - kept.reduce((sum, { bytes }) => sum + bytes, 0);
  }
  return repacked;
}

/** What of packs is needed into new ones; those of which all was moved. */
async function moveAll(
  mover: Mover,
  packs: readonly Pack[],
  needed: ReadonlyMap<Digest, ReadonlyMap<number, number>>,
  faults: Fault[],
  onProgress: (done: number) => void,
): Promise<Pack[]> {
  const whole = new Set(packs);
  const move = async (pack: Pack, part: Part) => {
    try {
      await mover.take(pack.digest, needed.get(pack.digest)!, part);
    } catch (error) {
      whole.delete(pack);
      faults.push({ what: pack.path, why: explain(error) });
    }
  };
  // Each pack is read once more for each part: then no more than one is held.
  for (const part of mover.parts)
    for (const pack of packs) if (whole.has(pack)) await move(pack, part);
  for (const [i, pack] of packs.entries()) {
    onProgress(i);
    if (whole.has(pack)) await move(pack, "rest");
  }
  return packs.filter((pack) => whole.has(pack));
}

/** Chunks that locators lead to, by pack and offset: their bytes in the pack. */
async function neededOf(
  store: DeltaStore,
  locators: Iterable<Digest>,
  packs: readonly Pack[],
): Promise<Map<Digest, Map<number, number>>> {
  const needed = new Map<Digest, Map<number, number>>(
    packs.map(({ digest }) => [digest, new Map()]),
  );
  await inParallel(locators, PARALLEL, async (digest) => {
    const locator = await readLocator(store, digest);
    const maps = Array.from({ length: locator.packCount }, (_, number) =>
      needed.get(locator.packAt(number)),
    );
    locator.eachChunk((number, offset, stored) => maps[number]?.set(offset, stored));
  });
  return needed;
}

/** Where a chunk lies, as a key. */
function keyOf(pack: Digest, offset: number): string {
  return `${pack} ${offset}`;
}

type Place = Pick<ChunkPlace, "pack" | "offset" | "isOfStart">;

/** Of a pack: what starts read, in that order; what others read; or all else. */
type Part = "order" | "others" | "rest";

/** Copies chunks into new packs. */
class Mover {
  readonly places = new Map<string, Place>();
  /** New packs. One may be an old one that came out as it was. */
  readonly made = new Set<Digest>();
  bytes = 0;
  readonly #store: DeltaStore;
  readonly #options: RepackOptions;
  #builder = new PackBuilder();
  #open: { readonly from: string; readonly offset: number; readonly isOfStart: boolean }[] = [];

  constructor(store: DeltaStore, options: RepackOptions) {
    this.#store = store;
    this.#options = options;
  }

  /** Those that come before the rest. */
  get parts(): Part[] {
    return (["order", "others"] as const).filter((part) => this.#options[part] !== undefined);
  }

  /** Takes a part of the chunks at `offsets` of a pack; none when one of them isn't right. */
  async take(pack: Digest, offsets: ReadonlyMap<number, number>, part: Part): Promise<void> {
    // Read whole, it is compared with its name.
    const bytes = await this.#store.get(objectPath("packs", pack));
    const rows = readPackRows(bytes).filter(({ offset }) => offsets.has(offset));
    if (rows.length !== offsets.size)
      throw new BurrowError("BURROW_CORRUPT", "a locator leads to no chunk of the pack");
    const { order, others } = this.#options;
    const wanted = rows.flatMap((row) => {
      const first = order?.(row.blob, row.block);
      const behind = first === undefined ? others?.(row.blob, row.block) : undefined;
      const own: Part = first !== undefined ? "order" : behind !== undefined ? "others" : "rest";
      return own === part ? [{ row, place: first ?? behind ?? 0 }] : [];
    });
    // What is the rest stays as it is.
    wanted.sort((a, b) => a.place - b.place);
    for (const { row } of wanted) verify(bytes, row);
    for (const group of byBlob(wanted.map(({ row }) => row)))
      await this.#append(pack, bytes, group, part !== "rest");
  }

  async #append(
    pack: Digest,
    bytes: Buffer,
    group: readonly PackRow[],
    isOfStart: boolean,
  ): Promise<void> {
    const { blob, blobSize } = group[0]!;
    const chunks = group.map(({ chunk, block, length, codec, offset, stored }) => {
      const packed = { codec: codec as Codec, bytes: bytes.subarray(offset, offset + stored) };
      return { chunk, block, length, packed };
    });
    const made = this.#builder.append(blob, blobSize, chunks);
    for (const [i, { offset }] of made.entries())
      this.#open.push({ from: keyOf(pack, group[i]!.offset), offset, isOfStart });
    if (this.#builder.bytes >= (this.#options.packBytes ?? PACK_TARGET_BYTES)) await this.close();
  }

  /** Puts what is open into the store. */
  async close(): Promise<void> {
    if (this.#builder.isEmpty) return;
    const { digest, bytes } = this.#builder.seal();
    await this.#options.check();
    // Also where it is there: an old one may be about to be removed.
    await this.#store.put(objectPath("packs", digest), bytes);
    this.made.add(digest);
    for (const { from, ...place } of this.#open) this.places.set(from, { pack: digest, ...place });
    this.bytes += bytes.length;
    this.#builder = new PackBuilder();
    this.#open = [];
  }
}

/** A delta's chunk is vouched for by the pack's name alone: its base may lie anywhere. */
function verify(pack: Buffer, { chunk, codec, offset, stored, length }: PackRow): void {
  if (codec === Codec.delta) return;
  const content = expandChunk(codec, pack.subarray(offset, offset + stored), length);
  if (digestOf(content) === chunk) return;
  throw new BurrowError("BURROW_DIGEST_MISMATCH", "a chunk of the pack is not what it should be", {
    context: { chunk: showDigest(chunk) },
  });
}

/** Neighbours of one blob together, in their order. */
function byBlob(rows: readonly PackRow[]): PackRow[][] {
  const groups: PackRow[][] = [];
  for (const row of rows) {
    const last = groups.at(-1);
    if (last?.[0]?.blob === row.blob) last.push(row);
    else groups.push([row]);
  }
  return groups;
}

/** Writes a locator anew with the places that chunks have now. */
async function rewrite(
  store: DeltaStore,
  digest: Digest,
  places: ReadonlyMap<string, Place>,
  dependents: readonly Digest[],
): Promise<void> {
  const locator = await readLocator(store, digest);
  const blobs = Array.from({ length: locator.blobCount }, (_, row) => {
    const place = placeAt(locator, row);
    const chunks = place.chunks.map((chunk) => {
      const moved = places.get(keyOf(chunk.pack, chunk.offset));
      return moved === undefined ? chunk : { ...chunk, ...moved };
    });
    return { ...place, chunks };
  });
  const bytes = encodeLocator(blobs);
  if (!bytes.equals(locator.bytes)) await replaceLocator(store, digest, bytes, dependents);
}
