// Profiles: learns what starts over a snapshot wait for, keeps it in the cache, and has it fetched as soon as the next one says HELLO:
// docs/design/0022-profiles.md. Nothing of it is waited for, and what goes wrong with it is no failure but a start as slow as the first.
// Control plane.

import { LRUCache } from "lru-cache";
import type { Digest } from "../base/digest.ts";
import { showDigest } from "../base/digest.ts";
import { explain } from "../base/error.ts";
import {
  PROFILE_ASKS_MAX,
  PROFILE_FETCH_MAX_BYTES,
  PROFILE_FILE_MAX_BYTES,
} from "../base/limits.ts";
import type { Log } from "../cache/counters.ts";
import type { CacheDirectory } from "../cache/directory.ts";
import type { Fetcher } from "../cache/fetcher.ts";
import { readThrough } from "../cache/look.ts";
import type { SnapshotSource } from "../gofer/mount.ts";
import { ANY_COMMAND, Profile, type ProfileAsk } from "../preload/profile.ts";
import { objectPath } from "../store/layout.ts";
import { type Ahead, type AheadFigures, newAheadFigures } from "./ahead.ts";

/** A start's asks are kept this long after the first that isn't yet, or when it ends. */
const SAVE_MS = 3_000;
/** What is asked for later is no start's. */
const START_MS = 120_000;
/** A store is asked again for a snapshot's profile after this time. */
const STORE_ASKED_MS = 600_000;
const STORES_ASKED_MAX = 1_024;
/** Starts of one snapshot within this time need what the first of them is fetching. */
const AGAIN_MS = 10_000;

export interface ProfileFigures extends AheadFigures {
  /** Times that a start taught something new. */
  learned: number;
  /** Asks that were noted and aren't kept yet. */
  unsaved: number;
}

/** Of one view, while it is connected. */
export interface Learner {
  /** Whether starts of its command are known, and what they ask for is fetched. Never rejects. */
  readonly isKnown: Promise<boolean>;
  /** What it asked for and isn't here: snapshot by number. */
  note(snapshot: number, ask: ProfileAsk): void;
  end(): void;
}

export interface ProfilesContext {
  readonly cache: CacheDirectory;
  readonly fetcher: Fetcher;
  readonly ahead: Ahead;
  readonly log: Log;
  readonly deadlineMs: number;
  /** Whether large blobs that were asked for are completed in the background. */
  readonly background: boolean;
}

export class Profiles {
  readonly figures: ProfileFigures = {
    ...newAheadFigures(),
    learned: 0,
    unsaved: 0,
  };
  readonly #context: ProfilesContext;
  /** When what was fetched last, by snapshot and command. */
  readonly #fetchedMs = new Map<string, number>();
  /** Changes of a snapshot's profile, one after the other. */
  readonly #saving = new Map<Digest, Promise<void>>();
  /** Snapshots whose store was asked for what others learned. */
  readonly #asked = new LRUCache<string, true>({ max: STORES_ASKED_MAX, ttl: STORE_ASKED_MS });
  #isEnded = false;

  constructor(context: ProfilesContext) {
    this.#context = context;
  }

  /** A view is welcome: has what is known of its start fetched, and learns what it asks for. */
  begin(snapshots: readonly SnapshotSource[], command: string, mountId: string): Learner {
    const known = snapshots.map((each) => this.#fetchKnown(each, command, mountId));
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
      isKnown: Promise.all(known).then((each) => each.includes(true)),
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

  /** Has what this node has learned of a start fetched ahead of it: whether its command has a list of its own. */
  async #fetchKnown(of: SnapshotSource, command: string, mountId: string): Promise<boolean> {
    const profile = await this.#read(of.snapshot);
    const key = `${of.snapshot} ${of.origin} ${command}`;
    const now = performance.now();
    for (const [each, atMs] of this.#fetchedMs)
      if (now - atMs > AGAIN_MS) this.#fetchedMs.delete(each);
    if (!this.#fetchedMs.has(key)) {
      this.#fetchedMs.set(key, now);
      void this.#fetchAhead(of, profile.asks(command), mountId);
    }
    return command !== ANY_COMMAND && profile.knows(command);
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
    if (asks.length === 0 || this.#isEnded) return;
    const { ahead, background, log } = this.#context;
    try {
      const budget = ahead.budget(PROFILE_FETCH_MAX_BYTES);
      const onBegin = () => {
        this.figures.starts++;
      };
      const job = { mountId, figures: this.figures, budget, isCompleted: background, onBegin };
      if (await ahead.fetch(of, asks, job)) this.figures.ended++;
    } catch (error) {
      log("nothing fetched ahead", { snapshot: showDigest(of.snapshot), error: explain(error) });
    }
  }
}
