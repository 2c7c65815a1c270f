// Profiles: learns what starts over a snapshot read, keeps it in the cache, and has it fetched as soon as the next one says HELLO:
// docs/design/0022-profiles.md, 0027-learned-starts.md. Nothing of it is waited for, and what goes wrong with it is no failure but a start as slow as the first.
// Control plane.

import { setImmediate as turn } from "node:timers/promises";
import { LRUCache } from "lru-cache";
import type { Digest } from "../base/digest.ts";
import { showDigest } from "../base/digest.ts";
import { explain } from "../base/error.ts";
import {
  DONATE_MAX_BYTES,
  PROFILE_FETCH_MAX_BYTES,
  PROFILE_FILE_MAX_BYTES,
} from "../base/limits.ts";
import type { Log } from "../cache/counters.ts";
import type { CacheDirectory } from "../cache/directory.ts";
import type { Fetcher } from "../cache/fetcher.ts";
import { readThrough } from "../cache/look.ts";
import type { Touch } from "../cache/mailbox-wire.ts";
import { type BlobTable, isLarge, pieceCount, type Source } from "../cache/pieces.ts";
import type { SnapshotSource } from "../gofer/mount.ts";
import { ANY_COMMAND, type PackageAsks, Profile, type ProfileAsk } from "../preload/profile.ts";
import type { SegmentRuns } from "../preload/segment-plan.ts";
import { type Lesson, StartNotes } from "../preload/start-notes.ts";
import { objectPath } from "../store/layout.ts";
import { type Ahead, type AheadBudget, type AheadFigures, newAheadFigures } from "./ahead.ts";
import { PackageStarts } from "./package-starts.ts";

/** What a start reads is kept this long after the first that isn't yet, or when it ends. */
const SAVE_MS = 3_000;
/** What is read later is no start's. */
const START_MS = 120_000;
/** A store is asked again for a snapshot's profile after this time. */
const STORE_ASKED_MS = 600_000;
const STORES_ASKED_MAX = 1_024;
/** Views whose starts are noted side by side for all their connections; of others each connection has its own. */
const STARTS_MAX = 256;
/** Of all snapshots; one more has its index read again. */
const UNSURE_MAX = 8_192;
/** Starts of one snapshot within this time need what the first of them is fetching. */
const AGAIN_MS = 10_000;

export interface ProfileFigures extends AheadFigures {
  /** Times that a start taught something new. */
  learned: number;
  /** Packages of which was fetched what others read, as a start came to them. */
  packages: number;
  /** Asks and touches that were noted and aren't kept yet. */
  unsaved: number;
}

/** Of one view, while it is connected. */
export interface Learner {
  /** Whether starts of its command are known, and what they ask for is fetched. Never rejects. */
  readonly isKnown: Promise<boolean>;
  /** What it asked for and isn't here: snapshot by number. */
  asked(snapshot: number, ask: ProfileAsk): void;
  /** What it is foreseen to need and isn't here. */
  note(snapshot: number, ask: ProfileAsk): void;
  /** What it read first. */
  touched(touches: readonly Touch[]): void;
  end(): void;
}

export interface ProfilesContext {
  readonly cache: CacheDirectory;
  readonly fetcher: Fetcher;
  readonly ahead: Ahead;
  readonly open: (of: SnapshotSource) => Promise<Source>;
  readonly log: Log;
  /** Whether large blobs that were asked for are completed in the background. */
  readonly background: boolean;
}

/** A start over one snapshot. */
interface Started extends Helped {
  readonly command: string;
  readonly packages: PackageStarts;
}

/** In whose name something is fetched, and what it may yet have: of all its snapshots and packages together. */
interface Helped {
  readonly mountId: string;
  readonly budget: AheadBudget;
}

/** What is heard of a view's start, by snapshot, and what it may yet have fetched. */
interface Start {
  readonly notes: readonly StartNotes[];
  readonly budget: AheadBudget;
}

export class Profiles {
  readonly figures: ProfileFigures = {
    ...newAheadFigures(),
    learned: 0,
    packages: 0,
    unsaved: 0,
  };
  readonly #context: ProfilesContext;
  /** When what was fetched last, by snapshot and command. */
  readonly #fetchedMs = new Map<string, number>();
  /** Changes of a snapshot's profile, one after the other. */
  readonly #saving = new Map<Digest, Promise<void>>();
  /** Snapshots whose store was asked for what others learned. */
  readonly #asked = new LRUCache<string, true>({ max: STORES_ASKED_MAX, ttl: STORE_ASKED_MS });
  readonly #starts = new LRUCache<string, Start>({
    max: STARTS_MAX,
    ttl: START_MS,
  });
  /**
   * Files, by snapshot and row, that starts found here whole and that are read by block where they aren't: not what of them is needed, which
   * starts on other nodes will learn.
   */
  readonly #unsure = new LRUCache<string, true>({ max: UNSURE_MAX });
  #isEnded = false;

  constructor(context: ProfilesContext) {
    this.#context = context;
  }

  /** A view is welcome: has what is known of its start fetched, and learns what it asks for. */
  begin(snapshots: readonly SnapshotSource[], command: string, mountId: string): Learner {
    const { notes: starts, budget } = this.#startOf(mountId, snapshots.length);
    const started = snapshots.map((of): Started => {
      const helped = { mountId, budget };
      const begin = (each: PackageAsks) => void this.#fetchPackage(of, each, helped);
      return { ...helped, command, packages: new PackageStarts(begin) };
    });
    const known = snapshots.map((each, i) => this.#fetchKnown(each, started[i]!));
    const isMissed = snapshots.map(() => false);
    const startedMs = performance.now();
    let isTold = false;
    let timer: NodeJS.Timeout | undefined;
    const save = (isEnded: boolean) => {
      clearTimeout(timer);
      timer = undefined;
      for (const [i, of] of snapshots.entries()) void this.#learn(of, command, starts[i]!, isEnded);
    };
    const isOfStart = (snapshot: number, ask: ProfileAsk) => {
      if (snapshot >= starts.length || performance.now() - startedMs > START_MS) return false;
      // Who has all that it needs asks nobody for anything.
      if (!isMissed[snapshot]) void this.#fetchShared(snapshots[snapshot]!, started[snapshot]!);
      isMissed[snapshot] = true;
      started[snapshot]!.packages.ask(ask.row);
      return true;
    };
    return {
      isKnown: Promise.all(known).then((each) => each.includes(true)),
      asked: (snapshot, ask) => {
        if (isOfStart(snapshot, ask)) this.figures.unsaved += starts[snapshot]!.ask(ask);
      },
      note: (snapshot, ask) => {
        if (isOfStart(snapshot, ask)) starts[snapshot]!.foresee(ask);
      },
      touched: (touches) => {
        isTold = true;
        for (const { snapshot, row, first, count, isLocal, atMs } of touches)
          if (atMs <= START_MS)
            this.figures.unsaved += starts[snapshot]?.touch({ row, first, count }, isLocal) ?? 0;
        timer ??= setTimeout(() => save(false), SAVE_MS).unref();
      },
      // Who only announced the view, or serves another part of it, doesn't know what all of it read.
      end: () => {
        save(isTold || !starts.some((start) => start.isTold));
        // The next one by the same mount is another start.
        if (isTold) this.#starts.delete(mountId);
      },
    };
  }

  /** What is heard of a view's start, by all that connect for it. */
  #startOf(mountId: string, count: number): Start {
    const known = this.#starts.get(mountId);
    if (known?.notes.length === count) return known;
    const notes = Array.from({ length: count }, () => new StartNotes());
    const start = { notes, budget: this.#context.ahead.budget(PROFILE_FETCH_MAX_BYTES) };
    this.#starts.set(mountId, start);
    return start;
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

  /** Has what this node has learned of a start fetched ahead of it: whether its command has a list of its own. */
  async #fetchKnown(of: SnapshotSource, started: Started): Promise<boolean> {
    const { command, packages } = started;
    const profile = await this.#read(of.snapshot);
    const isKnown = command !== ANY_COMMAND && profile.knows(command);
    if (!isKnown) packages.know(profile.packages);
    if (this.#isFirst(`${of.snapshot} ${of.origin} ${command}`))
      void this.#fetchAhead(of, profile.asks(command), started);
    return isKnown;
  }

  /** What others read of a package that a start has come to. */
  async #fetchPackage(
    of: SnapshotSource,
    { layer, asks }: PackageAsks,
    helped: Helped,
  ): Promise<void> {
    if (!this.#isFirst(`${of.snapshot} ${of.origin} ${layer}`)) return;
    this.figures.packages++;
    // Beside what is foreseen of the same start: one plan for both, or each would cut what the other brings.
    await this.#fetchAhead(of, asks, helped, this.#context.ahead.runsOf(helped.mountId));
  }

  /** Whether nobody has had the same fetched just now. */
  #isFirst(key: string): boolean {
    const now = performance.now();
    for (const [each, atMs] of this.#fetchedMs)
      if (now - atMs > AGAIN_MS) this.#fetchedMs.delete(each);
    if (this.#fetchedMs.has(key)) return false;
    this.#fetchedMs.set(key, now);
    return true;
  }

  /** What the store has, where this node has learned nothing: it is learned by that, and fetched. */
  async #fetchShared(of: SnapshotSource, started: Started): Promise<void> {
    const { command, packages } = started;
    const key = `${of.snapshot} ${of.origin}`;
    if (this.#asked.has(key)) return;
    this.#asked.set(key, true);
    const { cache, fetcher } = this.#context;
    let profile: Profile;
    try {
      if ((await this.#read(of.snapshot)).commandCount > 0) return;
      using deadline = fetcher.deadlineOf(of.origin);
      const { reader } = fetcher.origins.get(of.origin);
      const options = {
        signal: deadline.signal,
        maxBytes: PROFILE_FILE_MAX_BYTES,
        isUrgent: false,
      };
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
    if (!profile.knows(command)) packages.know(profile.packages);
    await this.#fetchAhead(of, profile.asks(command), started);
  }

  async #learn(
    of: SnapshotSource,
    command: string,
    start: StartNotes,
    isEnded: boolean,
  ): Promise<void> {
    const asks = start.lesson(isEnded);
    if (asks.length === 0) return;
    const unsaved = start.saved();
    const learn = (profile: Profile, some: readonly ProfileAsk[]) =>
      start.isTold ? profile.learnTouched(command, some, isEnded) : profile.learn(command, some);
    const { snapshot } = of;
    const keyOf = ({ row }: Lesson) => `${snapshot} ${row}`;
    const taught = (profile: Profile, isUnsure: (ask: Lesson) => boolean) => {
      const known = profile.rows(command);
      return asks.filter((ask) => ask.isUnseen !== true || known.has(ask.row) || !isUnsure(ask));
    };
    await this.#inTurn(snapshot, async () => {
      const { cache, log, open } = this.#context;
      // Each step takes some milliseconds of what starts of numpy and pandas read: the loop is others' between them.
      try {
        const before = await this.#read(snapshot);
        await turn();
        const some = taught(before, (ask) => this.#unsure.has(keyOf(ask)));
        if (!learn(before, some)) return;
        // Only now: who finds all that it needs has its index read for nothing. What a view says may be anything.
        const { table } = await open(of);
        const profile = await this.#read(snapshot);
        await turn();
        const isUnsure = (ask: Lesson) => {
          const isLong = ask.row < table.count && table.sizeOf(ask.row) > DONATE_MAX_BYTES;
          if (isLong) this.#unsure.set(keyOf(ask), true);
          return isLong;
        };
        const all = taught(profile, isUnsure).filter((ask) => isOf(table, ask));
        const isNew = learn(profile, all);
        if (this.#isEnded || !isNew) return;
        await turn();
        await cache.replaceHint("profiles", snapshot, profile.encode());
        this.figures.learned++;
      } catch (error) {
        log("profile not kept", { snapshot: showDigest(snapshot), error: explain(error) });
      } finally {
        this.figures.unsaved -= unsaved;
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
    { mountId, budget }: Helped,
    segments?: SegmentRuns,
  ): Promise<void> {
    if (asks.length === 0 || this.#isEnded) return;
    const { ahead, background, log } = this.#context;
    try {
      const onBegin = () => {
        this.figures.starts++;
      };
      const counted = { mountId, figures: this.figures, budget };
      if (segments !== undefined) {
        if (await ahead.fetch(of, asks, { ...counted, onBegin, segments })) this.figures.ended++;
        return;
      }
      using hold = background ? ahead.hold([of]) : undefined;
      for (const { row, count } of asks) if (count > 0) hold?.note(of, row);
      const job = { ...counted, onBegin, hold };
      if (!(await ahead.fetch(of, asks, job))) return;
      await ahead.complete([of], job);
      this.figures.ended++;
    } catch (error) {
      log("nothing fetched ahead", { snapshot: showDigest(of.snapshot), error: explain(error) });
    }
  }
}

/** Whether there is what an ask is for. */
function isOf(table: BlobTable, { row, first, count }: ProfileAsk): boolean {
  if (row >= table.count) return false;
  const size = table.sizeOf(row);
  return isLarge(size) ? first + count <= pieceCount(size) : first === 0 && count === 0;
}
