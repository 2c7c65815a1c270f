// Health: whether a place that objects are read from may be asked now. One that fails rests for a grace that grows with each rest, and
// is then asked by one request, the probe; one that says Retry-After is left alone for that long. Who is asked when all rest is
// mirrors.ts's to say. Control plane.

/** Failures, one after the other, until it rests: a single broken connection proves nothing. */
const FAILURES = 2;
/** Times, one after the other, that another was asked later and answered before it, or had what it lacked. */
const LAGS = 3;
export const GRACE_MS = 1_000;
const GRACE_MAX_MS = 60_000;
/** Who waits for the end of a rest waits up to this part longer, so that not all come back at once. */
const JITTER = 0.2;

/** How a request was let through: as any, as the one that finds out, or because all others rest too. */
export type Leave = "use" | "probe" | "lastResort";

export interface HealthOptions {
  readonly graceMs?: number;
  readonly graceMaxMs?: number;
  /** Milliseconds of a clock that never goes back. */
  readonly now?: () => number;
}

export interface HealthFigures {
  readonly state: "up" | "resting" | "probed" | "stopped";
  /** Until it may be asked again; 0 when it may. */
  readonly restMs: number;
  /** How often it began to rest. */
  readonly rests: number;
  /** How often it said Retry-After. */
  readonly stops: number;
  /** Why it rests or did last. */
  readonly why: string;
}

export class Health {
  readonly #graceMs: number;
  readonly #graceMaxMs: number;
  readonly #now: () => number;
  readonly #watchers = new Set<() => void>();
  #isResting = false;
  #isProbed = false;
  #untilMs = 0;
  #stoppedUntilMs = 0;
  #upSinceMs = 0;
  #nextGraceMs: number;
  #failures = 0;
  #lags = 0;
  #rests = 0;
  #stops = 0;
  #why = "";

  constructor(options: HealthOptions = {}) {
    this.#graceMs = options.graceMs ?? GRACE_MS;
    this.#graceMaxMs = options.graceMaxMs ?? GRACE_MAX_MS;
    this.#now = options.now ?? (() => performance.now());
    this.#nextGraceMs = this.#graceMs;
  }

  /** Leave to send a request now; undefined while it rests, is stopped, or is probed by another request. */
  admit(): Leave | undefined {
    const nowMs = this.#now();
    if (nowMs < this.#stoppedUntilMs) return undefined;
    if (!this.#isResting) return "use";
    if (this.#isProbed || nowMs < this.#untilMs) return undefined;
    this.#isProbed = true;
    return "probe";
  }

  /** Milliseconds until it has rested. */
  get restMs(): number {
    const untilMs = this.#isResting
      ? Math.max(this.#untilMs, this.#stoppedUntilMs)
      : this.#stoppedUntilMs;
    return Math.max(0, untilMs - this.#now());
  }

  /** Milliseconds that a request has to wait even as the last resort: what Retry-After said, and a bit. */
  get stopMs(): number {
    const leftMs = this.#stoppedUntilMs - this.#now();
    return leftMs <= 0 ? 0 : leftMs * (1 + JITTER * Math.random());
  }

  get figures(): HealthFigures {
    const isStopped = this.#now() < this.#stoppedUntilMs;
    const resting = this.#isProbed ? "probed" : "resting";
    return {
      state: isStopped ? "stopped" : this.#isResting ? resting : "up",
      restMs: Math.round(this.restMs),
      rests: this.#rests,
      stops: this.#stops,
      why: this.#why,
    };
  }

  /** Calls back once when it begins to rest; gives what takes that back. */
  onRest(watcher: () => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /** What it sent was taken. Of one that rests only a probe or a last resort proves something. */
  succeeded(leave: Leave): void {
    if (leave === "probe") this.#isProbed = false;
    if (this.#isResting && leave === "use") return;
    this.#failures = 0;
    this.#lags = 0;
    if (!this.#isResting) return;
    this.#isResting = false;
    this.#upSinceMs = this.#now();
  }

  /** It sent nothing, or what can't be taken. */
  failed(leave: Leave, why: string): void {
    if (leave === "probe") this.#isProbed = false;
    this.#failures++;
    if (leave !== "use" || this.#failures >= FAILURES) this.#rest(leave, why);
  }

  /** It was slower than another that was asked later, or lacks what others have. */
  lagged(leave: Leave, why: string): void {
    if (leave === "probe") this.failed(leave, why);
    else if (++this.#lags >= LAGS) this.#rest(leave, why);
  }

  /** Its bytes had another digest: no line does that, so once is enough (pitfalls B5). */
  condemned(leave: Leave, why: string): void {
    if (leave === "probe") this.#isProbed = false;
    this.#rest(leave, why);
  }

  /** The request was ended by us, which says nothing of it. */
  released(leave: Leave): void {
    if (leave === "probe") this.#isProbed = false;
  }

  /** It asked to be left alone: all requests are meant, not the one that was told. */
  stop(ms: number): void {
    this.#stops++;
    this.#stoppedUntilMs = Math.max(this.#stoppedUntilMs, this.#now() + ms);
  }

  #rest(leave: Leave, why: string): void {
    const nowMs = this.#now();
    // What was under way when it came to rest is no news; a last resort is: others are to be the next.
    if (this.#isResting && nowMs < this.#untilMs && leave !== "lastResort") return;
    // Up for as long as it rested: what was is forgotten.
    const isProven = !this.#isResting && nowMs - this.#upSinceMs >= this.#nextGraceMs;
    if (isProven) this.#nextGraceMs = this.#graceMs;
    this.#isResting = true;
    this.#untilMs = nowMs + this.#nextGraceMs * (1 - JITTER * Math.random());
    this.#nextGraceMs = Math.min(this.#graceMaxMs, 2 * this.#nextGraceMs);
    this.#failures = 0;
    this.#lags = 0;
    this.#rests++;
    this.#why = why;
    for (const watcher of [...this.#watchers]) watcher();
  }
}
