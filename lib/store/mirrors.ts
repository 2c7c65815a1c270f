// Mirrors: one store that lies at several places, as one backend. Each read is asked of the first place that is well; of the next when
// that fails; and of one more beside it when it takes longer than such reads do. A place is asked once a read, so there are no loops:
// reading again is retry.ts's. docs/origins.md has what users see. Control plane.

import { BurrowError } from "../base/error.ts";
import { Budget } from "./budget.ts";
import { Health, type HealthFigures, type HealthOptions, type Leave } from "./health.ts";
import { Latencies } from "./latency.ts";
import { isNamedByContent } from "./layout.ts";
import type { Meter } from "./meter.ts";
import { placeName } from "./origins-file.ts";
import { pause } from "./pause.ts";
import { AllFailed, type End, type Reason, type Runner, race } from "./race.ts";
import {
  type Backend,
  backendError,
  classOf,
  type GetOptions,
  type Sender,
  timeoutError,
} from "./store.ts";

/** A place, with what else wraps it: resolving, verified, metered. Its backend's `origin` is its name. */
export interface Place {
  readonly backend: Backend;
  readonly meter: Meter;
  /** A cache before the others: asked for what is named by its content, and for nothing else. */
  readonly isTier: boolean;
  /** Behind a network, which may be slow for a moment: worth asking twice. */
  readonly isRemote: boolean;
}

export interface MirrorOptions extends HealthOptions {
  /** Hears of what the tier lacks, or has wrong. */
  readonly onTierMiss?: (path: string, isWrong: boolean) => void;
}

/** What STATUS says of a place. */
export interface PlaceFigures extends Meter, HealthFigures {
  readonly name: string;
  readonly isTier: boolean;
}

/** Reads that are sent a second time for their slowness: one in twenty, and a few at the start. */
const HEDGES = { share: 0.05, perSecond: 0, most: 5 };
/** So much of a body is an answer that comes: a second request would share the link with it. A drip is none. */
const COMING_BYTES = 32 * 1024;
/** Places that a read asks when all rest: more would make an outage of all of them a storm. */
const LAST_RESORTS = 2;

export class Mirrors implements Backend {
  readonly origin: string;
  readonly #members: readonly Member[];
  readonly #options: MirrorOptions;
  readonly #latencies = new Latencies();
  readonly #hedges = new Budget(HEDGES);

  /** Places in the order in which they are asked; `origin` is the name that all of them go by. */
  constructor(origin: string, places: readonly Place[], options: MirrorOptions = {}) {
    this.origin = origin;
    this.#options = options;
    this.#members = places.map((place) => ({ ...place, health: new Health(options) }));
  }

  async get(path: string, options: GetOptions = {}): Promise<Buffer> {
    const members = options.pin === undefined ? this.#membersFor(path) : this.#own(path);
    return this.#get(path, options, members);
  }

  /** Past the tier. */
  getFromOrigin(path: string, options: GetOptions = {}): Promise<Buffer> {
    return this.#get(path, options, this.#members.filter(isNoTier));
  }

  async has(path: string, signal?: AbortSignal): Promise<boolean> {
    const call = async ({ backend }: Member, ended: AbortSignal) => {
      if (await backend.has(path, ended)) return true;
      throw backendError("notFound", "no such object", { path, origin: backend.origin });
    };
    try {
      await this.#read({ path, members: this.#membersFor(path), call, signal });
      return true;
    } catch (error) {
      if (classOf(error) === "notFound") return false;
      throw error;
    }
  }

  close(): void {
    for (const { backend } of this.#members) backend.close();
  }

  figures(): PlaceFigures[] {
    return this.#members.map(({ backend, isTier, meter, health }) => ({
      name: backend.origin,
      isTier,
      ...meter,
      ...health.figures,
    }));
  }

  async #get(path: string, options: GetOptions, members: readonly Member[]): Promise<Buffer> {
    const length = options.range?.length;
    let renew = () => {};
    let bytesSince = 0;
    const onBytes = (count: number) => {
      bytesSince += count;
      if (bytesSince >= COMING_BYTES) {
        bytesSince = 0;
        renew();
      }
      options.onBytes?.(count);
    };
    const call = async (member: Member, ended: AbortSignal, isAgain: boolean) => {
      const startedMs = performance.now();
      const anew = isAgain ? { isAnew: true } : {};
      const bytes = await member.backend.get(path, { ...options, ...anew, onBytes, signal: ended });
      if (length !== undefined) this.#latencies.note(length, performance.now() - startedMs);
      return { member, bytes };
    };
    const { avoid } = options;
    const isHedged = options.isUrgent === true && length !== undefined && avoid === undefined;
    const { member, bytes } = await this.#read({
      path,
      members,
      call,
      signal: options.signal,
      patienceMs: isHedged ? this.#latencies.patienceMs(length) : undefined,
      onRenewal: (again) => {
        renew = again;
      },
      avoid,
    });
    options.onSender?.(this.#senderOf(member, path));
    return bytes;
  }

  #membersFor(path: string): readonly Member[] {
    return isNamedByContent(path) ? this.#members : this.#members.filter(isNoTier);
  }

  /** The place that is the origin itself: a copy elsewhere has other ETags and versions, or knows of none. */
  #own(path: string): readonly Member[] {
    const { origin } = this;
    const name = placeName(origin);
    const own = this.#members.filter(
      ({ isTier, backend }) => !isTier && placeName(backend.origin) === name,
    );
    if (own.length > 0) return own;
    const what = "a listed stage is read from its own bucket, which isn't among its places";
    throw new BurrowError("BURROW_UNSUPPORTED", what, { context: { path, origin } });
  }

  #senderOf(member: Member, path: string): Sender {
    return {
      name: member.backend.origin,
      blame: (why) => {
        member.meter.mismatches++;
        member.health.condemned("use", why);
        if (member.isTier) this.#options.onTierMiss?.(path, true);
      },
    };
  }

  async #read<T>(read: Read<T>): Promise<T> {
    this.#hedges.earn();
    const round = new Round(read, () => this.#hedges.take());
    const { signal, patienceMs, onRenewal } = read;
    try {
      const next = (why: Reason) => round.next(why);
      const value = await race({ next, patienceMs, onRenewal, signal });
      if (round.isMissedByTier) this.#options.onTierMiss?.(read.path, round.isWrongInTier);
      return value;
    } catch (failed) {
      throw failed instanceof AllFailed ? this.#failure(read, round, failed.errors) : failed;
    }
  }

  /**
   * What the failures of the places come to. What the origin itself lacks isn't there; what only its mirrors lack may be there later, as
   * may what failed for a while.
   */
  #failure<T>({ path }: Read<T>, round: Round<T>, errors: readonly unknown[]): unknown {
    const { origin } = this;
    const own = placeName(origin);
    const missing = errors.find((error) => classOf(error) === "notFound");
    const passing = errors.find((error) => classOf(error) === "transient");
    const first = round.lacks(own) ? missing : (passing ?? missing ?? errors[0]);
    if (first === undefined) {
      return timeoutError("gave up reading from the origin", { path, origin });
    }
    if (!(first instanceof BurrowError) || this.#members.length === 1) return first;
    const isUnsure = first === missing && !round.lacks(own);
    const { retryAfterMs: _, ...context } = first.context;
    return new BurrowError(isUnsure ? "BURROW_ORIGIN" : first.code, first.message, {
      class: isUnsure ? "transient" : first.class,
      ...(first.errno === undefined ? {} : { errno: first.errno }),
      cause: first.cause,
      context: { ...context, origin, places: round.report },
    });
  }
}

interface Member extends Place {
  readonly health: Health;
}

interface Read<T> {
  readonly path: string;
  readonly members: readonly Member[];
  /** isAgain: it was asked the same already, and hasn't answered. */
  readonly call: (member: Member, signal: AbortSignal, isAgain: boolean) => Promise<T>;
  readonly signal: AbortSignal | undefined;
  readonly patienceMs?: number | undefined;
  readonly onRenewal?: (renew: () => void) => void;
  readonly avoid?: ReadonlySet<string> | undefined;
}

/** One read on its way round the places. */
class Round<T> {
  readonly #read: Read<T>;
  readonly #takeHedge: () => boolean;
  readonly #asked: Asked<T>[] = [];

  constructor(read: Read<T>, takeHedge: () => boolean) {
    this.#read = read;
    this.#takeHedge = takeHedge;
  }

  /** Whether the tier was asked and lacks it, or has it wrong. */
  get isMissedByTier(): boolean {
    return this.#asked.some((one) => one.member.isTier && (one.lacks || one.isWrong));
  }

  get isWrongInTier(): boolean {
    return this.#asked.some(({ member, isWrong }) => member.isTier && isWrong);
  }

  /** Whether the place of that name was asked and lacks it. */
  lacks(name: string): boolean {
    return this.#asked.some(
      ({ member, lacks }) => lacks && placeName(member.backend.origin) === name,
    );
  }

  /** What came of each place, in a line. */
  get report(): string {
    const told = this.#read.members.map((member) => {
      const asked = this.#asked.find((one) => one.member === member);
      const why = asked?.failure ?? `not asked, since it rests (${member.health.figures.why})`;
      return `${member.backend.origin}: ${why}`;
    });
    return told.join("; ");
  }

  next(why: Reason): Runner<T> | undefined {
    const asked = this.#asked.map(({ member }) => member);
    const { members, avoid } = this.#read;
    const unasked = members.filter((member) => !asked.includes(member));
    const trusted = unasked.filter(({ backend }) => avoid?.has(backend.origin) !== true);
    const others = trusted.length > 0 ? trusted : unasked;
    // The same once more, by another connection, where nobody else is there.
    const isAgain = why === "slow" && others.length === 0 && asked.length === 1;
    const found = firstWell(isAgain ? asked : others);
    if (why === "slow" && found !== undefined) {
      if (!found.member.isRemote || !this.#takeHedge()) {
        found.member.health.released(found.leave);
        return undefined;
      }
      found.member.meter.hedges++;
    }
    if (found !== undefined) return this.#ask(found.member, found.leave, why === "slow");
    // All rest, or did when this read began.
    const isNeeded = why === "first" || why === "failed";
    const isLast = isNeeded && this.#asked.every(({ leave }) => leave === "lastResort");
    if (!isLast || asked.length >= LAST_RESORTS || others.length === 0) return undefined;
    return this.#ask(soonest(others), "lastResort", false);
  }

  #ask(member: Member, leave: Leave, isHedge: boolean): Runner<T> {
    const asked = new Asked(this.#read, this.#asked, member, leave, isHedge);
    this.#asked.push(asked);
    return asked;
  }
}

/** A place that is asked, and the judgement of what comes of it. */
class Asked<T> implements Runner<T> {
  readonly member: Member;
  lacks = false;
  isWrong = false;
  failure = "gave up waiting";
  readonly #read: Read<T>;
  readonly #all: readonly Asked<T>[];
  readonly leave: Leave;
  readonly #isHedge: boolean;

  constructor(
    read: Read<T>,
    all: readonly Asked<T>[],
    member: Member,
    leave: Leave,
    isHedge: boolean,
  ) {
    this.#read = read;
    this.#all = all;
    this.member = member;
    this.leave = leave;
    this.#isHedge = isHedge;
  }

  async run(signal: AbortSignal): Promise<T> {
    const { path, call } = this.#read;
    const { backend, health } = this.member;
    // Of a place that asked to be left alone even the last resort waits.
    if (!(await pause(health.stopMs, signal))) {
      const facts = { path, origin: backend.origin };
      throw timeoutError("gave up waiting as long as the origin asked to (Retry-After)", facts);
    }
    const isAgain = this.#all.some((one) => one !== this && one.member === this.member);
    return await call(this.member, signal, isAgain);
  }

  onDoubt(watcher: () => void): () => void {
    return this.member.health.onRest(watcher);
  }

  ended(how: End, error?: unknown): void {
    const { health, meter } = this.member;
    if (how === "failed") {
      this.#failed(error);
    } else if (how === "won") {
      if (this.#isHedge) meter.hedgesWon++;
      health.succeeded(this.leave);
      for (const asked of this.#all) if (asked.lacks) asked.#lagged("lacks what others have");
    } else if (this.#all.at(-1) !== this && !this.#isHedge) {
      this.#lagged("answers later than others that are asked after it");
    } else {
      health.released(this.leave);
    }
  }

  #lagged(why: string): void {
    const { health, isTier } = this.member;
    const isAlone = this.#all.every(({ member }) => member === this.member);
    if (isAlone || (isTier && this.lacks)) health.released(this.leave);
    else health.lagged(this.leave, why);
  }

  #failed(error: unknown): void {
    const { health, meter } = this.member;
    const why = error instanceof Error ? error.message : String(error);
    this.failure = why;
    this.lacks = classOf(error) === "notFound";
    if (this.lacks || this.#read.signal?.aborted) {
      health.released(this.leave);
      return;
    }
    const { code, context = {} } = error instanceof BurrowError ? error : {};
    if (code === "BURROW_STALE" || context["code"] === "InvalidObjectState") {
      // Of one object, not of the place.
      health.released(this.leave);
      return;
    }
    const stopMs = Number(context["retryAfterMs"] ?? 0);
    if (stopMs > 0) {
      health.released(this.leave);
      health.stop(stopMs);
    } else if (code === "BURROW_DIGEST_MISMATCH") {
      this.isWrong = true;
      meter.mismatches++;
      health.condemned(this.leave, why);
    } else health.failed(this.leave, why);
  }
}

function isNoTier({ isTier }: Member): boolean {
  return !isTier;
}

function firstWell(members: readonly Member[]): { member: Member; leave: Leave } | undefined {
  for (const member of members) {
    const leave = member.health.admit();
    if (leave !== undefined) return { member, leave };
  }
  return undefined;
}

/** The place whose rest ends first; of those that are no tier, if there are any. */
function soonest(members: readonly Member[]): Member {
  const places = members.some(isNoTier) ? members.filter(isNoTier) : members;
  return places.reduce((a, b) => (b.health.restMs < a.health.restMs ? b : a));
}
