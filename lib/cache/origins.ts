// Origins: one backend, gate, budget and tier per origin, opened on first use; and the locators read from them, kept by bytes.
// Control plane.

import { LRUCache } from "lru-cache";
import type { Digest } from "../base/digest.ts";
import { Budget } from "../store/budget.ts";
import { objectPath } from "../store/layout.ts";
import { Locator } from "../store/locator.ts";
import { type Meter, newMeter, sumOf } from "../store/meter.ts";
import type { PlaceFigures } from "../store/mirrors.ts";
import { type OpenedOrigin, type OpenOptions, openOrigin } from "../store/open.ts";
import type { OriginTable } from "../store/origins-file.ts";
import type { Backend, ByteRange, ObjectPin, Sender } from "../store/store.ts";
import type { Log } from "./counters.ts";
import { inOwnTime } from "./deadlines.ts";
import type { CacheDirectory } from "./directory.ts";
import { Gate, type GateFigures } from "./gate.ts";
import { type GiveBack, Intake } from "./intake.ts";
import { readThrough } from "./look.ts";
import { Places } from "./places.ts";
import { Progress } from "./progress.ts";
import { Segments, type Sent } from "./segments.ts";
import { type TierFigures, TierFilling } from "./tier.ts";

/** Parallel requests to one origin. */
const REQUESTS_MAX = 8;
/** Locators held open: about 75 bytes a blob, so a hundred large environments. */
const LOCATORS_MAX_BYTES = 256 * 1024 * 1024;

/** Asks at once that make a crowd: more than the threads of a sandbox that imports. */
const CROWD = 16;
/** How long they are one after that: of those that wait for the same, one goes ahead of the others when it comes. */
const CROWD_MS = 2_000;
const CROWD_BACKGROUND_BYTES = 1024 * 1024;
/** For how long after something was fetched ahead of a start it is one that is helped. */
const STARTED_MS = 30_000;
/** Tries of one request: they ride out an origin that starts anew, which takes a few seconds. */
const TRIES = 8;
/** Tries after the first: one in ten, and one a second when nothing is earned. */
const RETRIES = { share: 0.1, perSecond: 1, most: 20 };

/** A locator that the origin had no other of is not asked for again for so long by who finds content wrong: many may at once. */
const CONFIRMED_MS = 2_000;
const CONFIRMED_MAX = 1_024;

/** A locator that led astray. */
export interface Stale {
  readonly locator: Locator;
  /** Whether what it leads to is gone: then no earlier look says that there is no other. */
  readonly isGone: boolean;
}

export interface RangeOptions {
  /** What it lies in, to be fetched and kept for others whole. */
  readonly segment?: ByteRange | undefined;
  /** The state of the object that is meant. */
  readonly pin?: ObjectPin | undefined;
  /** Places to be asked after all others. */
  readonly avoid?: ReadonlySet<string> | undefined;
}

/** Requests under way and in line, and bytes that demands wait for or that wait for the disk. */
export interface QueueFigures extends GateFigures {
  readonly intakeBytes: number;
}

/** One request for bytes of an object, when it has ended: times are performance.now()'s. */
export interface RequestFacts {
  readonly origin: string;
  readonly path: string;
  /** Undefined: all of it. */
  readonly range: ByteRange | undefined;
  readonly isDemand: boolean;
  readonly startMs: number;
  /** That came; -1: it failed. */
  readonly bytes: number;
}

/** What STATUS says of an origin: the sum over its places, and each of them. */
export interface OriginFigures extends Meter {
  readonly places: readonly PlaceFigures[];
  /** What was put into the tier; undefined where none is filled from here. */
  readonly tier?: TierFigures;
}

export class Origin {
  readonly name: string;
  readonly #places: Places;
  readonly #gate: Gate;
  readonly #intake: Intake;
  readonly #meter: Meter = newMeter();
  /** Of all places that it has had: counters only ever grow. */
  readonly #meters = new Map<string, Meter>();
  readonly #budget = new Budget(RETRIES);
  readonly #segments = new Segments();
  #plannedMs = Number.NEGATIVE_INFINITY;
  readonly #progress = new Progress();
  readonly #isCrowded: () => boolean;
  #tier: TierFilling | undefined;
  readonly #onRequest: (request: RequestFacts) => void;

  constructor(name: string, options: OriginsOptions, requests: number, isCrowded = () => false) {
    this.name = name;
    this.#isCrowded = isCrowded;
    this.#onRequest = options.onRequest ?? (() => undefined);
    this.#places = new Places(this.opened(options));
    this.#gate = new Gate(requests);
    this.#intake = new Intake(options.intakeBytes);
    this.#fillTier(options);
  }

  /** It is to be read as these options say: asks nobody, and changes nothing yet. BURROW_USAGE for places that can't be. */
  opened(options: OriginsOptions): OpenedOrigin {
    const onRetry = () => {
      this.#meter.retries++;
    };
    const onTierMiss = (path: string, isWrong: boolean) => this.#tier?.note(path, isWrong);
    const meterOf = (at: string, isTier: boolean) => {
      const key = `${isTier} ${at}`;
      const meter = this.#meters.get(key) ?? newMeter();
      this.#meters.set(key, meter);
      return meter;
    };
    const own = { tries: TRIES, budget: this.#budget, onRetry, onTierMiss, meterOf };
    return openOrigin(this.name, { ...own, ...options });
  }

  /** Takes what `opened` gave, and reads there from now on. */
  reopen(origin: OpenedOrigin, options: OriginsOptions): void {
    this.#places.replace(origin);
    this.#tier?.close();
    this.#fillTier(options);
  }

  #fillTier({ log = () => undefined }: OriginsOptions): void {
    const { tier } = this.#places.now.plan;
    const read = (path: string, signal: AbortSignal) =>
      this.#gate.run(false, signal, () =>
        this.#places.read(signal, ({ mirrors }, either) =>
          mirrors.getFromOrigin(path, { signal: either }),
        ),
      );
    this.#tier = tier?.isFilled === true ? new TierFilling({ at: tier.at, read, log }) : undefined;
  }

  get queue(): QueueFigures {
    return { ...this.#gate.figures, intakeBytes: this.#intake.takenBytes };
  }

  /**
   * Leave for a demand to have so many bytes come, until they are put away; asked for before anything else is reserved for them.
   * Background work has its turn until then, and needs none.
   */
  takeIn(bytes: number, signal: AbortSignal): Promise<GiveBack> {
    return this.#intake.take(bytes, signal);
  }

  /** Reads past the gate: of what must be here before anything can be asked. */
  get reader(): Backend {
    return this.#progress.through(this.#places.backend);
  }

  /** When it last sent something, by performance.now(). */
  get heardMs(): number {
    return this.#progress.heardMs;
  }

  get figures(): OriginFigures {
    const places = this.#places.now.mirrors.figures();
    const tier = this.#tier?.figures;
    const sum = sumOf([this.#meter, ...this.#meters.values()]);
    return { ...sum, places, ...(tier ? { tier } : {}) };
  }

  /** Whether so many ask that whole segments are worth fetching. */
  get isCrowded(): boolean {
    return this.#isCrowded();
  }

  /**
   * Bytes of a range: a demand waits for its turn; what runs inBackground has it. With a segment that it lies in, all of that is fetched
   * and kept for others; with a pin only that state of the object will do.
   */
  range(
    path: string,
    range: ByteRange,
    isDemand: boolean,
    signal: AbortSignal,
    { segment, ...options }: RangeOptions = {},
  ): Promise<Sent> {
    const get = (asked: ByteRange) => {
      const work = () => this.#get(path, asked, isDemand, signal, options);
      return isDemand ? this.#gate.run(true, signal, work) : work();
    };
    if (segment === undefined) return this.#segments.apart(path, range, get);
    return this.#segments.take(path, segment, range, get);
  }

  /** Ranges of a pack that bring() will be asked for: who needs a part of one takes it from there. */
  plan(path: string, ranges: readonly ByteRange[]): void {
    this.#plannedMs = performance.now();
    this.#segments.plan(path, ranges);
  }

  /** Whether a start reads a pack, or did a moment ago; or is about to, as one that is helped. */
  isStarted(path: string): boolean {
    return this.#segments.hasPlan(path) || performance.now() - this.#plannedMs < STARTED_MS;
  }

  /** The planned range that this one lies in. */
  planned(path: string, range: ByteRange): ByteRange | undefined {
    return this.#segments.planned(path, range);
  }

  /** Of a segment that is worth fetching around a range what isn't planned: it is from now on. */
  claim(path: string, segment: ByteRange, range: ByteRange): ByteRange | undefined {
    return this.#segments.claim(path, segment, range);
  }

  /** Has all of a range here for those who need parts of it in the next seconds: what of it was fetched for that, with what else its plans have. */
  async bring(path: string, range: ByteRange, signal: AbortSignal): Promise<readonly ByteRange[]> {
    this.#segments.plan(path, [range]);
    const planned = this.#segments.covering(path, range);
    const absent = planned.filter((each) => !this.#segments.has(path, each));
    await Promise.all(
      planned.map((each) => this.range(path, each, true, signal, { segment: each })),
    );
    return absent;
  }

  /** How much background work should ask for at once. For a crowd few requests are worth more than short ones. */
  get backgroundBytes(): number {
    return this.isCrowded ? CROWD_BACKGROUND_BYTES : this.#gate.backgroundBytes;
  }

  /** Whether nobody has demanded anything of it for a while. */
  get isCalm(): boolean {
    return this.#gate.isCalm;
  }

  /** Runs work when background work has its turn; its ranges are asked for with isDemand false. */
  inBackground(signal: AbortSignal, work: () => Promise<void>): Promise<void> {
    return this.#gate.run(false, signal, work);
  }

  /** A whole object. */
  whole(path: string, signal: AbortSignal): Promise<Buffer> {
    // What came may be shorter than what it makes: a stream, or a delta.
    let came = 0;
    const onBytes = (bytes: number) => {
      came += bytes;
    };
    const get = () => this.reader.get(path, { signal, onBytes });
    return this.#gate.run(true, signal, () => this.#told(path, undefined, true, get, () => came));
  }

  close(): void {
    this.#tier?.close();
    this.#places.close();
  }

  async #get(
    path: string,
    range: ByteRange,
    isUrgent: boolean,
    signal: AbortSignal,
    { pin, avoid }: RangeOptions,
  ): Promise<Sent> {
    let sender: Sender | undefined;
    const onSender = (who: Sender) => {
      sender = who;
    };
    const options = {
      range,
      signal,
      isUrgent,
      onSender,
      ...(pin && { pin }),
      ...(avoid && { avoid }),
    };
    const get = () => this.reader.get(path, options);
    const bytes = await this.#told(path, range, isUrgent, get);
    return { bytes, sender: sender ?? { name: this.name, blame: () => undefined } };
  }

  /** Has whoever listens know of a request, whatever becomes of it. `came`: its bytes, where they were counted. */
  async #told(
    path: string,
    range: ByteRange | undefined,
    isDemand: boolean,
    get: () => Promise<Buffer>,
    came = () => 0,
  ): Promise<Buffer> {
    const request = { origin: this.name, path, range, isDemand, startMs: performance.now() };
    let bytes = -1;
    try {
      const got = await get();
      bytes = came() || got.length;
      return got;
    } finally {
      this.#onRequest({ ...request, bytes });
    }
  }
}

export interface OriginsOptions extends OpenOptions {
  readonly log?: Log;
  /** Hears of each request for bytes when it has ended. */
  readonly onRequest?: (request: RequestFacts) => void;
  readonly requests?: number;
  readonly locatorBytes?: number;
  /** What demands may have on their way to the disk, of each origin. */
  readonly intakeBytes?: number;
}

export class Origins {
  #asks = 0;
  #crowdedUntilMs = 0;
  readonly #cache: CacheDirectory;
  #options: OriginsOptions;
  readonly #origins = new Map<string, Origin>();
  readonly #locators: LRUCache<string, Locator>;
  readonly #reading = new Map<string, Promise<Locator>>();
  /** Those that were asked for in place of stale ones, in vain. */
  readonly #confirmed = new LRUCache<string, true>({ max: CONFIRMED_MAX, ttl: CONFIRMED_MS });

  constructor(cache: CacheDirectory, options: OriginsOptions = {}) {
    this.#cache = cache;
    this.#options = options;
    this.#locators = new LRUCache({ maxSize: options.locatorBytes ?? LOCATORS_MAX_BYTES });
  }

  /** An ask begins. */
  enter(): void {
    if (++this.#asks >= CROWD) this.#crowdedUntilMs = performance.now() + CROWD_MS;
  }

  leave(): void {
    this.#asks--;
  }

  get isCrowded(): boolean {
    return performance.now() < this.#crowdedUntilMs;
  }

  get(name: string): Origin {
    let origin = this.#origins.get(name);
    if (origin === undefined) {
      origin = new Origin(
        name,
        this.#options,
        this.#options.requests ?? REQUESTS_MAX,
        () => this.isCrowded,
      );
      this.#origins.set(name, origin);
    }
    return origin;
  }

  /**
   * From now on origins lie where `table` says. Nothing that is here, asked for or on its way is lost by it. BURROW_USAGE, and nothing
   * has changed, when one of those that are open can't lie there.
   */
  reload(table: OriginTable): void {
    const options = { ...this.#options, origins: table };
    const opened: [Origin, OpenedOrigin][] = [];
    try {
      for (const origin of this.#origins.values()) opened.push([origin, origin.opened(options)]);
    } catch (error) {
      for (const [, unused] of opened) unused.close();
      throw error;
    }
    this.#options = options;
    for (const [origin, now] of opened) origin.reopen(now, options);
  }

  /** When an origin last sent something, by performance.now(). */
  heardMs(name: string): number {
    return this.#origins.get(name)?.heardMs ?? Number.NEGATIVE_INFINITY;
  }

  /** By origin, for STATUS. */
  figures(): Record<string, OriginFigures> {
    return Object.fromEntries([...this.#origins].map(([name, { figures }]) => [name, figures]));
  }

  /** Requests under way and waiting, by origin, for STATUS. */
  queues(): Record<string, QueueFigures> {
    return Object.fromEntries([...this.#origins].map(([name, origin]) => [name, origin.queue]));
  }

  /**
   * The locator of a snapshot: from memory, the cache, or its origin. A stale one is passed over wherever it is met; it is returned
   * itself when the origin has no other.
   */
  locator(name: string, snapshot: Digest, signal: AbortSignal, stale?: Stale): Promise<Locator> {
    const key = `${snapshot} ${name}`;
    const held = this.#locators.get(key);
    if (held !== undefined && held !== stale?.locator) return Promise.resolve(held);
    if (stale?.isGone === false && this.#confirmed.has(key)) return Promise.resolve(stale.locator);
    const confirm = () => void (stale && this.#confirmed.set(key, true));
    const begin = () => {
      const read = this.#read(name, snapshot, signal, stale !== undefined)
        .then((fresh) => {
          const isSame = stale?.locator.bytes.equals(fresh.bytes) === true;
          if (isSame) confirm();
          const locator = isSame ? stale.locator : fresh;
          this.#locators.set(key, locator, { size: locator.bytes.length });
          return locator;
        })
        .catch((error: unknown) => {
          confirm();
          throw error;
        })
        .finally(() => this.#reading.delete(key));
      this.#reading.set(key, read);
      return read;
    };
    return inOwnTime(signal, () => this.#reading.get(key), begin);
  }

  close(): void {
    for (const origin of this.#origins.values()) origin.close();
  }

  async #read(
    name: string,
    snapshot: Digest,
    signal: AbortSignal,
    isStale: boolean,
  ): Promise<Locator> {
    if (!isStale) {
      try {
        return new Locator(
          await readThrough(this.#cache.disk, this.#cache.path("locators", snapshot)),
        );
      } catch {
        // Missing, cut off, or no file at all: the origin has it.
      }
    }
    const bytes = await this.get(name).whole(objectPath("locators", snapshot), signal);
    const locator = new Locator(bytes);
    try {
      await this.#cache.writeHint("locators", snapshot, bytes);
    } catch {
      // A full disk: the hint is good in memory.
    }
    return locator;
  }
}
