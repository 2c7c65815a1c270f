// Profiles: learns what starts over a snapshot wait for, keeps it in the cache, and has it fetched as soon as the next one says HELLO:
// docs/design/0022-profiles.md. Nothing of it is waited for, and what goes wrong with it is no failure but a start as slow as the first.
// Control plane.

import { LRUCache } from "lru-cache";
import type { Digest } from "../base/digest.ts";
import { showDigest } from "../base/digest.ts";
import { explain } from "../base/error.ts";
import {
  BLOCK_BYTES,
  PROFILE_ASKS_MAX,
  PROFILE_FETCH_MAX_BYTES,
  PROFILE_FILE_MAX_BYTES,
} from "../base/limits.ts";
import type { Log } from "../cache/counters.ts";
import type { CacheDirectory } from "../cache/directory.ts";
import type { Fetcher } from "../cache/fetcher.ts";
import { Gate } from "../cache/gate.ts";
import { readThrough } from "../cache/look.ts";
import { isLarge, type Source } from "../cache/pieces.ts";
import type { SnapshotSource } from "../gofer/mount.ts";
import { planOf, type Stretch } from "../preload/plan.ts";
import { Profile, type ProfileAsk } from "../preload/profile.ts";
import { objectPath } from "../store/layout.ts";
import { inParallel } from "../store/parallel.ts";
import type { Prefetched } from "./prefetched.ts";

/** Of the 8 requests to an origin at once, for all starts together: demand finds a free one. */
const REQUESTS_AT_ONCE = 4;
/** Of a cache's limit what is fetched ahead of one start, at most: it may be more than comes to be used, and others' files go for it. */
const CACHE_SHARE = 1 / 4;
/** A start's asks are kept this long after the first that isn't yet, or when it ends. */
const SAVE_MS = 3_000;
/** What is asked for later is no start's. */
const START_MS = 120_000;
/** A store is asked again for a snapshot's profile after this time. */
const STORE_ASKED_MS = 600_000;
const STORES_ASKED_MAX = 1_024;
/** Starts of one snapshot within this time need what the first of them is fetching. */
const AGAIN_MS = 10_000;

export interface ProfileFigures {
  /** Starts that were helped, and what was asked for ahead of them; of that what was here already, and what could not be had. */
  starts: number;
  /** Of those the ones for which nothing is left to do. */
  ended: number;
  asks: number;
  hits: number;
  failedAsks: number;
  /** Ranges of packs that were fetched for it, and their bytes. */
  requests: number;
  bytes: number;
  /** Times that a start taught something new. */
  learned: number;
  /** Asks that were noted and aren't kept yet. */
  unsaved: number;
}

/** Of one view, while it is connected. */
export interface Learner {
  /** What it asked for and isn't here: snapshot by number. */
  note(snapshot: number, ask: ProfileAsk): void;
  end(): void;
}

export interface ProfilesContext {
  readonly cache: CacheDirectory;
  readonly fetcher: Fetcher;
  readonly open: (of: SnapshotSource) => Promise<Source>;
  readonly log: Log;
  readonly deadlineMs: number;
  /** Whether large blobs that were asked for are completed in the background. */
  readonly background: boolean;
  readonly prefetched: Prefetched;
}

export class Profiles {
  readonly figures: ProfileFigures = {
    starts: 0,
    ended: 0,
    asks: 0,
    hits: 0,
    failedAsks: 0,
    requests: 0,
    bytes: 0,
    learned: 0,
    unsaved: 0,
  };
  readonly #context: ProfilesContext;
  /** When what was fetched last, by snapshot and command. */
  readonly #fetchedMs = new Map<string, number>();
  /** Changes of a snapshot's profile, one after the other. */
  readonly #saving = new Map<Digest, Promise<void>>();
  readonly #gates = new Map<string, Gate>();
  /** Snapshots whose store was asked for what others learned. */
  readonly #asked = new LRUCache<string, true>({ max: STORES_ASKED_MAX, ttl: STORE_ASKED_MS });
  #isEnded = false;

  constructor(context: ProfilesContext) {
    this.#context = context;
  }

  /** A view is welcome: has what is known of its start fetched, and learns what it asks for. */
  begin(snapshots: readonly SnapshotSource[], command: string, mountId: string): Learner {
    for (const each of snapshots) void this.#fetchKnown(each, command, mountId);
    const isMissed = snapshots.map(() => false);
    const asked = snapshots.map(() => new Map<string, ProfileAsk>());
    const startedMs = performance.now();
    let timer: NodeJS.Timeout | undefined;
    const save = () => {
      clearTimeout(timer);
      timer = undefined;
      for (const [i, each] of snapshots.entries()) {
        const asks = [...asked[i]!.values()];
        asked[i]!.clear();
        if (asks.length > 0) void this.#learn(each.snapshot, command, asks);
      }
    };
    return {
      note: (snapshot, ask) => {
        const asks = asked[snapshot];
        if (asks === undefined || asks.size >= PROFILE_ASKS_MAX) return;
        if (performance.now() - startedMs > START_MS) return;
        // Who has all that it needs asks nobody for anything.
        if (!isMissed[snapshot]) void this.#fetchShared(snapshots[snapshot]!, command, mountId);
        isMissed[snapshot] = true;
        const before = asks.size;
        asks.set(`${ask.row} ${ask.first}`, ask);
        this.figures.unsaved += asks.size - before;
        timer ??= setTimeout(save, SAVE_MS).unref();
      },
      end: save,
    };
  }

  stop(): void {
    this.#isEnded = true;
  }

  /** What is known of a snapshot; nothing, when that can't be read. */
  async #read(snapshot: Digest): Promise<Profile> {
    const { cache } = this.#context;
    try {
      const path = cache.path("profiles", snapshot);
      return Profile.decode(await readThrough(cache.disk, path, PROFILE_FILE_MAX_BYTES), snapshot);
    } catch {
      return new Profile(snapshot);
    }
  }

  /** What this node has learned of a start, fetched ahead of it. */
  async #fetchKnown(of: SnapshotSource, command: string, mountId: string): Promise<void> {
    const key = `${of.snapshot} ${of.origin} ${command}`;
    const now = performance.now();
    for (const [each, atMs] of this.#fetchedMs)
      if (now - atMs > AGAIN_MS) this.#fetchedMs.delete(each);
    if (this.#fetchedMs.has(key)) return;
    this.#fetchedMs.set(key, now);
    await this.#fetchAhead(of, (await this.#read(of.snapshot)).asks(command), mountId);
  }

  /** What the store has, where this node has learned nothing: it is learned by that, and fetched. */
  async #fetchShared(of: SnapshotSource, command: string, mountId: string): Promise<void> {
    const key = `${of.snapshot} ${of.origin}`;
    if (this.#asked.has(key)) return;
    this.#asked.set(key, true);
    const { cache, fetcher, deadlineMs } = this.#context;
    let profile: Profile;
    try {
      if ((await this.#read(of.snapshot)).commandCount > 0) return;
      const signal = AbortSignal.timeout(deadlineMs);
      const { reader } = fetcher.origins.get(of.origin);
      const options = { signal, maxBytes: PROFILE_FILE_MAX_BYTES, isUrgent: false };
      const bytes = await reader.get(objectPath("profiles", of.snapshot), options);
      profile = Profile.decode(bytes, of.snapshot);
      await this.#inTurn(of.snapshot, async () => {
        // What was learned meanwhile stays.
        profile.join(await this.#read(of.snapshot));
        await cache.replaceHint("profiles", of.snapshot, profile.encode());
      });
    } catch {
      return; // There is none, or it is none.
    }
    await this.#fetchAhead(of, profile.asks(command), mountId);
  }

  async #learn(snapshot: Digest, command: string, asks: readonly ProfileAsk[]): Promise<void> {
    await this.#inTurn(snapshot, async () => {
      const { cache, log } = this.#context;
      try {
        const profile = await this.#read(snapshot);
        if (this.#isEnded || !profile.learn(command, asks)) return;
        await cache.replaceHint("profiles", snapshot, profile.encode());
        this.figures.learned++;
      } catch (error) {
        log("profile not kept", { snapshot: showDigest(snapshot), error: explain(error) });
      } finally {
        this.figures.unsaved -= asks.length;
      }
    });
  }

  /** Has `work` done when nothing else changes a snapshot's profile: two at once would lose what one of them adds. */
  async #inTurn(snapshot: Digest, work: () => Promise<void>): Promise<void> {
    const before = this.#saving.get(snapshot);
    const saving = Promise.resolve(before)
      .catch(() => undefined)
      .then(work);
    this.#saving.set(snapshot, saving);
    try {
      await saving;
    } finally {
      if (this.#saving.get(snapshot) === saving) this.#saving.delete(snapshot);
    }
  }

  async #fetchAhead(
    of: SnapshotSource,
    asks: readonly ProfileAsk[],
    mountId: string,
  ): Promise<void> {
    if (asks.length === 0) return;
    const { fetcher, open, log, deadlineMs } = this.#context;
    try {
      const source = this.#metered(await open(of), mountId);
      const absent = await this.#absent(source, asks);
      if (absent.length === 0 || this.#isEnded) return;
      this.figures.starts++;
      const signal = AbortSignal.timeout(deadlineMs);
      const locator = await fetcher.origins.locator(of.origin, of.snapshot, signal);
      const whole = this.#streamed(source, absent);
      const { stretches, loose, rest } = await planOf(absent, source.table, locator, whole);
      const origin = fetcher.origins.get(of.origin);
      const byPath = new Map<string, Stretch[]>();
      for (const each of [...stretches, ...rest]) {
        const some = byPath.get(each.path);
        if (some === undefined) byPath.set(each.path, [each]);
        else some.push(each);
      }
      for (const [path, some] of byPath) origin.plan(path, some);
      await inParallel(stretches, REQUESTS_AT_ONCE, (each) => this.#bring(source, each));
      await inParallel(loose, REQUESTS_AT_ONCE, (ask) => this.#ask(source, ask));
      const wholly = [...whole].map((row) => ({ row, first: 0, count: 0 }));
      await inParallel(wholly, REQUESTS_AT_ONCE, (ask) => this.#ask(source, ask));
      this.figures.ended++;
    } catch (error) {
      log("nothing fetched ahead", { snapshot: showDigest(of.snapshot), error: explain(error) });
    }
  }

  /** Of asks those for what isn't here whole, as much as one start may have. */
  async #absent(source: Source, asks: readonly ProfileAsk[]): Promise<ProfileAsk[]> {
    const { cache } = this.#context;
    const known = asks.filter(({ row }) => row < source.table.count);
    const looked = known.map(({ row }) => {
      return {
        folder: "blobs" as const,
        digest: source.table.digestAt(row),
        size: source.table.sizeOf(row),
      };
    });
    const states = await cache.lookAll(looked);
    let left = this.#mostBytes;
    return known.filter(({ count }, i) => {
      const isHere = states[i] === "sealed";
      if (isHere) this.figures.hits++;
      const { size } = looked[i]!;
      const bytes = count === 0 ? size : Math.min(size, count * BLOCK_BYTES);
      if (isHere || left < bytes) return false;
      left -= bytes;
      return true;
    });
  }

  /** Large blobs that are completed behind what is asked of them: their other blocks come in as few requests. */
  #streamed({ table }: Source, asks: readonly ProfileAsk[]): Set<number> {
    const rows = new Set<number>();
    if (!this.#context.background) return rows;
    let left = this.#mostBytes;
    for (const { row } of asks) {
      const size = table.sizeOf(row);
      if (!isLarge(size) || size > left || rows.has(row)) continue;
      left -= size;
      rows.add(row);
    }
    return rows;
  }

  /** What one start may have fetched. */
  get #mostBytes(): number {
    // 0: none but the disk's end.
    const { limitBytes } = this.#context.cache.room.facts;
    const share = limitBytes === 0 ? Number.POSITIVE_INFINITY : CACHE_SHARE * limitBytes;
    return Math.min(PROFILE_FETCH_MAX_BYTES, share);
  }

  async #bring(source: Source, stretch: Stretch): Promise<void> {
    if (this.#isEnded) return;
    const { fetcher, deadlineMs } = this.#context;
    try {
      const signal = AbortSignal.timeout(deadlineMs);
      const origin = fetcher.origins.get(source.origin);
      const bring = () => origin.bring(stretch.path, stretch, signal);
      await this.#gateOf(source.origin).run(true, signal, bring);
      this.figures.requests++;
      this.figures.bytes += stretch.length;
    } catch {
      return; // Who needs it asks for it.
    }
    await Promise.all(stretch.asks.map((ask) => this.#ask(source, ask)));
  }

  /** Whatever comes for a source was brought ahead of a view. */
  #metered(source: Source, mountId: string): Source {
    const { prefetched } = this.#context;
    return {
      ...source,
      isAhead: true,
      onPrefetch: (blob, piece, bytes) => prefetched.brought(mountId, blob, piece, bytes),
    };
  }

  #gateOf(origin: string): Gate {
    const gate = this.#gates.get(origin) ?? new Gate(REQUESTS_AT_ONCE);
    this.#gates.set(origin, gate);
    return gate;
  }

  async #ask(source: Source, { row, first, count }: ProfileAsk): Promise<void> {
    if (this.#isEnded) return;
    this.figures.asks++;
    const isHere = await this.#context.fetcher.prefetch(source, row, first, count);
    if (!isHere) this.figures.failedAsks++;
  }
}
