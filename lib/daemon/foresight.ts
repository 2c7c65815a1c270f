// Foresight: what a start that nobody has learned will read is foreseen by its files (preload/foresee.ts) and fetched ahead of it, as soon as
// its view says HELLO: docs/design/0024-foresight.md. Nothing of it is waited for, and what goes wrong with it is no failure but a start
// as slow as without. Control plane.

import { setTimeout as sleep } from "node:timers/promises";
import { explain } from "../base/error.ts";
import { BLOCK_BYTES, FORESEEN_FETCH_MAX_BYTES, FORESEEN_TURN_MS } from "../base/limits.ts";
import type { Log } from "../cache/counters.ts";
import type { Fetcher } from "../cache/fetcher.ts";
import { isLarge, type Source } from "../cache/pieces.ts";
import type { SnapshotSource } from "../gofer/mount.ts";
import type { FileRange } from "../preload/elf-start.ts";
import { type Bringer, foresee } from "../preload/foresee.ts";
import type { ProfileAsk } from "../preload/profile.ts";
import type { Start } from "../preload/start.ts";
import { type ViewFile, ViewFiles } from "../preload/view-files.ts";
import { LoopShare } from "../store/loop-share.ts";
import { type Ahead, type AheadFigures, type AheadJob, newAheadFigures } from "./ahead.ts";
import type { Learner } from "./profiles.ts";
import type { DescribedView, IndexSource } from "./sources.ts";

/** Files are asked for together that come to be known within this time: on a far origin a fraction of a round trip. */
const GATHER_MS = 3;
/** Starts of one view's snapshots by the same words within this time need what the first of them is fetching. */
const AGAIN_MS = 10_000;
/** Starts that are looked at side by side; others do without. */
const STARTS_MAX = 64;
/** Who has missed nothing for so long after the first look has all that it needs. */
const DORMANT_MS = 20_000;

export interface ForesightContext {
  readonly ahead: Ahead;
  readonly fetcher: Fetcher;
  readonly open: (of: SnapshotSource) => Promise<IndexSource>;
  readonly log: Log;
  /** Whether large blobs that were asked for are completed in the background. */
  readonly background: boolean;
}

/** Of starts by the same words. */
export interface Foreseeing {
  /** One of them asked for what isn't here: it hasn't all that it needs. */
  miss(): void;
}

/** One of a view. */
interface Starting {
  readonly mountId: string;
  readonly learner: Learner | undefined;
  readonly isMissing: Promise<boolean>;
}

interface Begun extends Foreseeing {
  readonly atMs: number;
}

export class Foresight {
  readonly figures: AheadFigures = newAheadFigures();
  readonly #context: ForesightContext;
  readonly #begun = new Map<string, Begun>();
  readonly #share = new LoopShare(FORESEEN_TURN_MS);
  #running = 0;

  constructor(context: ForesightContext) {
    this.#context = context;
  }

  /** A view is welcome: who learns of it hears what is fetched ahead of it, or knows better. */
  begin(view: DescribedView, mountId: string, learner: Learner | undefined): Foreseeing {
    const now = performance.now();
    for (const [each, { atMs }] of this.#begun) if (now - atMs > AGAIN_MS) this.#begun.delete(each);
    const key = JSON.stringify([view.start, view.snapshots]);
    const known = this.#begun.get(key);
    if (known !== undefined) return known;
    if (view.start === undefined || this.#running >= STARTS_MAX) return { miss: () => undefined };
    let miss = () => {};
    const isMissing = new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => resolve(false), DORMANT_MS).unref();
      miss = () => {
        clearTimeout(timer);
        resolve(true);
      };
    });
    const begun = { atMs: now, miss };
    this.#begun.set(key, begun);
    void this.#foresee(view, view.start, { mountId, learner, isMissing });
    return begun;
  }

  async #foresee(
    { snapshots, places }: DescribedView,
    start: Start,
    { mountId, learner, isMissing }: Starting,
  ): Promise<void> {
    const { ahead, open, log, background } = this.#context;
    this.#running++;
    try {
      if ((await learner?.isKnown) === true) return;
      using hold = background ? ahead.hold(snapshots) : undefined;
      const sources = await Promise.all(snapshots.map(open));
      const files = new ViewFiles(
        sources.map(({ table }, i) => ({ at: pathOf(places[i]!), index: table.index })),
      );
      const budget = ahead.budget(FORESEEN_FETCH_MAX_BYTES);
      const counted = { mountId, figures: this.figures, budget };
      const job = { ...counted, hold, segments: ahead.runsOf(mountId) };
      const gathering = new Gathering(this.#context, snapshots, sources, {
        job,
        learner,
        isMissing,
      });
      await foresee(start, files, gathering, this.#share);
      await gathering.ended();
      await ahead.complete(snapshots, job);
      if (gathering.hasFetched) this.figures.ended++;
    } catch (error) {
      log("nothing foreseen", { program: start.program, error: explain(error) });
    } finally {
      this.#running--;
    }
  }
}

/** Names are bytes. */
function pathOf(at: string): string {
  return Buffer.from(at).toString("latin1");
}

interface Wish extends ProfileAsk {
  readonly answer: (isHere: boolean) => void;
}

interface GatheringOf {
  readonly job: AheadJob;
  readonly learner: Learner | undefined;
  readonly isMissing: Promise<boolean>;
}

/** Gathers what is wished for in a moment into one plan for each snapshot. */
class Gathering implements Bringer {
  hasFetched = false;
  readonly #context: ForesightContext;
  readonly #snapshots: readonly SnapshotSource[];
  readonly #sources: readonly Source[];
  readonly #job: AheadJob;
  readonly #learner: Learner | undefined;
  #wishes: Wish[][];
  #timer: NodeJS.Timeout | undefined;
  readonly #fetching = new Set<Promise<void>>();
  #isFirst = true;
  /** Called when something is found to be absent. */
  #onAbsent: () => void = () => undefined;
  /** Whether more is to be looked at. */
  readonly #goesOn: Promise<boolean>;

  constructor(
    context: ForesightContext,
    snapshots: readonly SnapshotSource[],
    sources: readonly Source[],
    of: GatheringOf,
  ) {
    this.#context = context;
    this.#snapshots = snapshots;
    this.#sources = sources;
    this.#job = of.job;
    this.#learner = of.learner;
    this.#wishes = snapshots.map(() => []);
    const isAbsent = new Promise<boolean>((resolve) => {
      this.#onAbsent = () => resolve(true);
    });
    this.#goesOn = Promise.race([isAbsent, of.isMissing]);
  }

  async read(file: ViewFile, range: FileRange): Promise<Buffer | undefined> {
    const bounded = { offset: range.offset, end: Math.min(range.end, file.size) };
    if (bounded.offset >= bounded.end && file.size > 0) return undefined;
    const isHere = await new Promise<boolean>((answer) => this.#wish(file, bounded, answer));
    if (!isHere) return undefined;
    const { offset, end } = bounded;
    return await this.#context.fetcher.read(this.#sources[file.snapshot]!, file.row, offset, end);
  }

  bring(file: ViewFile, ranges: readonly FileRange[]): void {
    for (const { offset, end } of ranges) {
      const bounded = { offset, end: Math.min(end, file.size) };
      if (offset < bounded.end) this.#wish(file, bounded, () => undefined);
    }
  }

  /** When all has come that was wished for. */
  async ended(): Promise<void> {
    while (this.#timer !== undefined || this.#fetching.size > 0) {
      await Promise.all(this.#fetching);
      if (this.#timer !== undefined) await sleep(GATHER_MS);
    }
  }

  #wish(file: ViewFile, { offset, end }: FileRange, answer: (isHere: boolean) => void): void {
    const isPart = isLarge(file.size) && (offset > 0 || end < file.size);
    if (isPart) this.#job.hold?.note(this.#snapshots[file.snapshot]!, file.row);
    const first = isPart ? Math.floor(offset / BLOCK_BYTES) : 0;
    const count = isPart ? Math.ceil(end / BLOCK_BYTES) - first : 0;
    this.#wishes[file.snapshot]!.push({ row: file.row, first, count, answer });
    this.#timer ??= setTimeout(() => this.#send(), GATHER_MS);
  }

  #send(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    // Where it would only stand in line, what comes to be known meanwhile comes along.
    if (
      this.#snapshots.some(
        (each, i) => this.#wishes[i]!.length > 0 && this.#context.ahead.isBusy(each),
      )
    ) {
      this.#timer = setTimeout(() => this.#send(), GATHER_MS);
      return;
    }
    const wishes = this.#wishes;
    this.#wishes = wishes.map(() => []);
    const sent = this.#fetchAll(wishes).finally(() => this.#fetching.delete(sent));
    this.#fetching.add(sent);
  }

  async #fetchAll(wishes: readonly Wish[][]): Promise<void> {
    // Where the first things are all here this start was had before: nobody looks further until it misses something.
    const goesOn = this.#isFirst || (await this.#goesOn);
    this.#isFirst = false;
    if (goesOn) await Promise.all(wishes.map((some, i) => this.#fetch(i, some)));
    else for (const wish of wishes.flat()) wish.answer(false);
  }

  /** Never rejects. */
  async #fetch(snapshot: number, wishes: readonly Wish[]): Promise<void> {
    if (wishes.length === 0) return;
    const byKey = new Map<string, Wish[]>();
    for (const wish of wishes) {
      const key = `${wish.row} ${wish.first} ${wish.count}`;
      const same = byKey.get(key);
      if (same === undefined) byKey.set(key, [wish]);
      else same.push(wish);
    }
    const asks = [...byKey.values()].map(([{ row, first, count } = wishes[0]!]) => {
      return { row, first, count };
    });
    const answer = ({ row, first, count }: ProfileAsk, isHere: boolean) => {
      for (const wish of byKey.get(`${row} ${first} ${count}`) ?? []) wish.answer(isHere);
    };
    try {
      await this.#context.ahead.fetch(this.#snapshots[snapshot]!, asks, {
        ...this.#job,
        onAbsent: (ask) => {
          if (!this.hasFetched) this.#job.figures.starts++;
          this.hasFetched = true;
          this.#onAbsent();
          this.#learner?.note(snapshot, ask);
        },
        onAnswer: answer,
      });
    } catch (error) {
      this.#context.log("nothing foreseen", { error: explain(error) });
    } finally {
      // What has no answer by now gets none.
      for (const ask of asks) answer(ask, false);
    }
  }
}
