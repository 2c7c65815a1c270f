// Leases: how writers of a store and its collector know of each other: small objects that each puts, looks for and renews, on any store
// that shows a put to every later read. docs/format/store.md, "Collection", has the protocol. Control plane.

import { randomBytes } from "node:crypto";
import { uptime } from "node:os";
import { setTimeout as pause } from "node:timers/promises";
import { BurrowError } from "../base/error.ts";
import { hasEnded, isOfHere, ownOwner } from "../sys/owner.ts";
import { classOf, type SizedObject, timeoutError, type WritableBackend } from "./store.ts";

const LEASES = "leases";
const COLLECTORS = "collectors";
/** Of each lease and collector an object that is put once and never again: once gone, it stays gone. */
const HOLDS = "holds";
const FORMAT = 1;
const BODY_MAX_BYTES = 64 * 1024 * 1024;

/** What isn't renewed for so long, by the store's clock, has ended: a machine that hangs, or sleeps. */
export const LEASE_MS = 3_600_000;
/** Sixty renewals may fail before that. */
const RENEW_MS = LEASE_MS / 60;
/**
 * What isn't renewed for so long has ended, if its process isn't seen where it should be. That alone proves nothing: clones of one memory
 * snapshot have the same boot and other processes, so a live one of theirs isn't seen here.
 */
export const UNSEEN_MS = 3 * RENEW_MS;
/** A collector looks whether it is still the one before what it does later than this after the last look. */
const CONFIRM_MS = 10_000;
/** Looks for the end of a sweep, which takes seconds. */
const LOOK_MS = 500;

/** This machine's time: for how long something was not done, never for when something of the store was made. */
export interface Clock {
  now(): number;
  sleep(ms: number): Promise<void>;
}

/** Time since boot, in which this machine slept included: wall clocks are put back. */
export const CLOCK: Clock = { now: () => uptime() * 1000, sleep: (ms) => pause(ms) };

/** What a writer says of itself. */
export interface LeaseBody {
  /** For people: the command. */
  readonly what: string;
  /** Garbage lists that it has read: it relies on nothing in them. */
  readonly avoids: readonly string[];
  /** Objects in these lists that it makes again. */
  readonly keeps: readonly string[];
}

/** A lease that is in force. */
export interface LiveLease extends LeaseBody, SizedObject {}

/** An object that says that somebody is at work, renewed until it is closed. */
class Mark<Body> {
  readonly path: string;
  readonly #hold: string;
  readonly #store: WritableBackend;
  readonly #clock: Clock;
  readonly #timer: NodeJS.Timeout;
  #body: Body;
  #puts: Promise<void> = Promise.resolve();
  /** When the last put that was done had begun. */
  #renewedMs = Number.NEGATIVE_INFINITY;

  constructor(store: WritableBackend, folder: string, body: Body, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
    this.#body = body;
    this.path = `${folder}/${ownOwner()}@${randomBytes(12).toString("hex")}`;
    this.#hold = holdOf(this.path);
    // One that fails is made good by the next, or found by check().
    this.#timer = setInterval(() => void this.put().catch(() => undefined), RENEW_MS);
    this.#timer.unref();
  }

  get body(): Body {
    return this.#body;
  }

  /** Puts both objects. In this order: one without its hold is of nobody who is at work. */
  async open(): Promise<void> {
    await this.#store.put(this.#hold, Buffer.from(`${JSON.stringify({ format: FORMAT })}\n`));
    await this.put();
  }

  /**
   * BURROW_LEASE when others took its owner for ended, whatever all clocks say: a renewal brings the object back, but not its hold, which
   * they removed first.
   */
  async confirm(): Promise<void> {
    if (!(await this.#store.has(this.#hold))) throw goneError(this.#store, this.path);
  }

  /** Writes the object anew: the last body put is the last in the store. */
  put(body: Body = this.#body): Promise<void> {
    this.#body = body;
    const put = async () => {
      const begunMs = this.#clock.now();
      const text = `${JSON.stringify({ format: FORMAT, ...this.#body })}\n`;
      await this.#store.put(this.path, Buffer.from(text));
      this.#renewedMs = begunMs;
    };
    this.#puts = this.#puts.then(put, put);
    return this.#puts;
  }

  /** Whether it is in force for half its time at least. */
  get isFresh(): boolean {
    return this.#clock.now() - this.#renewedMs < LEASE_MS / 2;
  }

  /** Renews it when it should be. BURROW_TIMEOUT when others may think by now that its owner has ended. */
  async check(): Promise<void> {
    if (this.isFresh) return;
    const idleMs = this.#clock.now() - this.#renewedMs;
    if (idleMs < LEASE_MS) await this.put();
    if (this.isFresh && idleMs < LEASE_MS) return;
    const minutes = Math.round(idleMs / 60_000);
    throw timeoutError(
      `the lease on the store was not renewed for ${minutes} minutes; run it again`,
      { lease: this.path, store: this.#store.origin },
    );
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#puts.catch(() => undefined);
    // Who may not remove them leaves them to run out.
    for (const path of [this.path, this.#hold])
      await this.#store.remove(path).catch(() => undefined);
  }
}

/** A writer's. Taken before it looks at what the store has; from then on nothing goes that it may find. */
export class Lease {
  readonly #mark: Mark<LeaseBody>;
  readonly #store: WritableBackend;
  readonly #clock: Clock;

  private constructor(store: WritableBackend, what: string, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
    this.#mark = new Mark(store, LEASES, { what, avoids: [], keeps: [] }, clock);
  }

  static async open(store: WritableBackend, what: string, clock: Clock = CLOCK): Promise<Lease> {
    const lease = new Lease(store, what, clock);
    try {
      await lease.#mark.open();
    } catch (error) {
      await lease.close();
      throw error;
    }
    return lease;
  }

  /** Says that it relies on nothing in these lists, read after it was opened. */
  async avoid(lists: readonly string[]): Promise<void> {
    if (lists.length > 0) await this.#mark.put({ ...this.#mark.body, avoids: lists });
  }

  /** From its return on no object at `path` is removed that is put while the lease lasts. Waits for the end of a sweep. */
  async keep(path: string): Promise<void> {
    const { body } = this.#mark;
    await this.#mark.put({ ...body, keeps: [...body.keeps, path] });
    await this.whenSwept();
  }

  /** Waits while a sweep that may not have seen this lease goes on. */
  async whenSwept(): Promise<void> {
    for (;;) {
      const nowMs = await timeOf(this.#store, this.#mark.path);
      const marks = await liveMarks<CollectorBody>(this.#store, COLLECTORS, nowMs);
      // What can't be read may be one.
      if (marks.every(({ body }) => body?.stage === "mark")) return;
      await this.#clock.sleep(LOOK_MS);
      await this.#mark.put();
    }
  }

  /** To be called before anything is put. BURROW_TIMEOUT. */
  check(): Promise<void> {
    return this.#mark.check();
  }

  /** To be called before and after anything is put that others believe in. BURROW_LEASE: what it leads to may be gone. */
  confirm(): Promise<void> {
    return this.#mark.confirm();
  }

  close(): Promise<void> {
    return this.#mark.close();
  }
}

interface CollectorBody {
  /** Removing begins after "sweep" has been put, and leases are read between. */
  readonly stage: "mark" | "sweep";
}

/** The collector's. One at a time. */
export class Collector {
  readonly #mark: Mark<CollectorBody>;
  readonly #store: WritableBackend;
  readonly #clock: Clock;
  #confirmedMs = Number.NEGATIVE_INFINITY;

  private constructor(store: WritableBackend, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
    this.#mark = new Mark<CollectorBody>(store, COLLECTORS, { stage: "mark" }, clock);
  }

  /** BURROW_BUSY when another one is at work. Of two that begin at once both may be refused. */
  static async open(store: WritableBackend, clock: Clock = CLOCK): Promise<Collector> {
    const collector = new Collector(store, clock);
    try {
      await collector.#mark.open();
      const { path } = collector.#mark;
      const marks = await liveMarks(store, COLLECTORS, await collector.now());
      const other = marks.find((mark) => mark.path !== path);
      if (other === undefined) return collector;
      throw new BurrowError("BURROW_BUSY", "another collection of this store is at work", {
        class: "transient",
        context: { store: store.origin, collector: other.path },
      });
    } catch (error) {
      await collector.close();
      throw error;
    }
  }

  /** The store's time, when this was last put. */
  now(): Promise<number> {
    return timeOf(this.#store, this.#mark.path);
  }

  /** From now on writers that make something again which may be removed wait. The leases that are in force, read after that. */
  async beginSweep(): Promise<LiveLease[]> {
    await this.#mark.put({ stage: "sweep" });
    const leases = await this.leases();
    await this.#removeLeftHolds();
    await this.#mark.confirm();
    return leases;
  }

  /** Those whose lease or collector was never put, or went without them. */
  async #removeLeftHolds(): Promise<void> {
    const nowMs = await this.now();
    for await (const { path, modifiedMs } of this.#store.sizes(HOLDS)) {
      if (nowMs - modifiedMs <= LEASE_MS) continue;
      const name = path.slice(HOLDS.length + 1);
      const isOf = (folder: string) => this.#store.has(`${folder}/${name}`);
      if (!(await isOf(LEASES)) && !(await isOf(COLLECTORS))) await this.#store.remove(path);
    }
  }

  /** The leases that are in force. */
  async leases(): Promise<LiveLease[]> {
    const marks = await liveMarks<LeaseBody>(this.#store, LEASES, await this.now());
    return marks.map(({ body, ...object }) => ({ ...object, ...knownBody(body) }));
  }

  /** To be called before each removal. BURROW_TIMEOUT; BURROW_LEASE when another collector may be at work by now. */
  async check(): Promise<void> {
    await this.#mark.check();
    const nowMs = this.#clock.now();
    if (nowMs - this.#confirmedMs < CONFIRM_MS) return;
    await this.#mark.confirm();
    this.#confirmedMs = nowMs;
  }

  close(): Promise<void> {
    return this.#mark.close();
  }
}

function knownBody(body: LeaseBody | undefined): LeaseBody {
  const texts = (value: unknown) =>
    Array.isArray(value) ? value.filter((each) => typeof each === "string") : [];
  const what = typeof body?.what === "string" ? body.what : "unknown";
  return { what, avoids: texts(body?.avoids), keeps: texts(body?.keeps) };
}

function holdOf(path: string): string {
  return `${HOLDS}/${path.slice(path.indexOf("/") + 1)}`;
}

function goneError(store: WritableBackend, lease: string): BurrowError {
  const what = "a collection of the store took this command for ended; run it again";
  const context = { lease, store: store.origin };
  return new BurrowError("BURROW_LEASE", what, { class: "transient", context });
}

/** When an object was put. BURROW_LEASE when it is gone: somebody took its owner for ended. */
async function timeOf(store: WritableBackend, path: string): Promise<number> {
  const folder = path.slice(0, path.lastIndexOf("/"));
  for await (const object of store.sizes(folder))
    if (object.path === path) return object.modifiedMs;
  throw goneError(store, path);
}

interface LiveMark<Body> extends SizedObject {
  /** undefined for what can't be understood. */
  readonly body: Body | undefined;
}

/** What is in force in a folder; what has ended is removed before it is passed over. */
async function liveMarks<Body>(
  store: WritableBackend,
  folder: string,
  nowMs: number,
): Promise<LiveMark<Body>[]> {
  let objects = await all(store.sizes(folder));
  const ended = objects.filter((object) => isOver(object, nowMs));
  for (const object of ended) {
    // Its hold first: whoever is at work after all and renews it from here on either is seen below, or finds the hold gone.
    await store.remove(holdOf(object.path));
    await store.remove(object.path);
  }
  if (ended.length > 0) objects = await all(store.sizes(folder));
  const marks: LiveMark<Body>[] = [];
  for (const object of objects) {
    const body = await readBody<Body>(store, object.path);
    if (body !== "gone") marks.push({ ...object, body });
  }
  return marks;
}

async function all(objects: AsyncIterable<SizedObject>): Promise<SizedObject[]> {
  const list: SizedObject[] = [];
  for await (const object of objects) list.push(object);
  return list;
}

/** Whether a lease or collector has ended, as far as can be seen: who is taken for ended finds it out by its hold. */
function isOver({ path, modifiedMs }: SizedObject, nowMs: number): boolean {
  const idleMs = nowMs - modifiedMs;
  const owner = path.slice(path.indexOf("/") + 1).split("@")[0]!;
  return idleMs > (isOfHere(owner) && hasEnded(owner) ? UNSEEN_MS : LEASE_MS);
}

async function readBody<Body>(
  store: WritableBackend,
  path: string,
): Promise<Body | undefined | "gone"> {
  try {
    const bytes = await store.get(path, { maxBytes: BODY_MAX_BYTES });
    const value = JSON.parse(bytes.toString("utf8")) as (Body & { format?: unknown }) | null;
    return value?.format === FORMAT ? value : undefined;
  } catch (error) {
    if (classOf(error) === "notFound") return "gone";
    if (error instanceof SyntaxError) return undefined;
    throw new BurrowError("BURROW_IO", `can't read ${path}`, { cause: error });
  }
}
