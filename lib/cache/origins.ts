// Origins: one backend, gate and meter per origin, opened on first use; and the locators read from them, kept by bytes.
// Control plane.

import { LRUCache } from "lru-cache";
import type { Digest } from "../base/digest.ts";
import { objectPath } from "../store/layout.ts";
import { Locator } from "../store/locator.ts";
import { type Meter, newMeter } from "../store/meter.ts";
import { type OpenOptions, openOrigin } from "../store/open.ts";
import type { Backend, ByteRange } from "../store/store.ts";
import type { CacheDirectory } from "./directory.ts";
import { Gate, type GateFigures } from "./gate.ts";
import { readRegular } from "./regular-file.ts";

/** Parallel requests to one origin. */
const REQUESTS_MAX = 8;
/** Locators held open: about 75 bytes a blob, so a hundred large environments. */
const LOCATORS_MAX_BYTES = 256 * 1024 * 1024;

export class Origin {
  readonly name: string;
  readonly meter: Meter;
  readonly #backend: Backend;
  readonly #gate: Gate;

  constructor(name: string, options: OpenOptions, requests: number) {
    this.name = name;
    this.meter = newMeter();
    this.#backend = openOrigin(name, { ...options, meter: this.meter });
    this.#gate = new Gate(requests);
  }

  get queue(): GateFigures {
    return this.#gate.figures;
  }

  /** Bytes of a range: a demand waits for its turn; what runs inBackground has it. */
  range(path: string, range: ByteRange, isDemand: boolean, signal: AbortSignal): Promise<Buffer> {
    const get = () => this.#backend.get(path, { range, signal });
    return isDemand ? this.#gate.run(true, signal, get) : get();
  }

  /** Runs work when background work has its turn; its ranges are asked for with isDemand false. */
  inBackground(signal: AbortSignal, work: () => Promise<void>): Promise<void> {
    return this.#gate.run(false, signal, work);
  }

  /** A whole object. */
  whole(path: string, signal: AbortSignal): Promise<Buffer> {
    return this.#gate.run(true, signal, () => this.#backend.get(path, { signal }));
  }

  close(): void {
    this.#backend.close();
  }
}

export interface OriginsOptions extends OpenOptions {
  readonly requests?: number;
  readonly locatorBytes?: number;
}

export class Origins {
  readonly #cache: CacheDirectory;
  readonly #options: OriginsOptions;
  readonly #origins = new Map<string, Origin>();
  readonly #locators: LRUCache<string, Locator>;
  readonly #reading = new Map<string, Promise<Locator>>();

  constructor(cache: CacheDirectory, options: OriginsOptions = {}) {
    this.#cache = cache;
    this.#options = options;
    this.#locators = new LRUCache({ maxSize: options.locatorBytes ?? LOCATORS_MAX_BYTES });
  }

  get(name: string): Origin {
    let origin = this.#origins.get(name);
    if (origin === undefined) {
      origin = new Origin(name, this.#options, this.#options.requests ?? REQUESTS_MAX);
      this.#origins.set(name, origin);
    }
    return origin;
  }

  /** Meters by origin, for STATUS. */
  meters(): Record<string, Meter> {
    return Object.fromEntries([...this.#origins].map(([name, origin]) => [name, origin.meter]));
  }

  /** Requests under way and waiting, by origin, for STATUS. */
  queues(): Record<string, GateFigures> {
    return Object.fromEntries([...this.#origins].map(([name, origin]) => [name, origin.queue]));
  }

  /** The locator of a snapshot: from memory, the cache, or its origin. `stale` is passed over wherever it is met. */
  locator(name: string, snapshot: Digest, signal: AbortSignal, stale?: Locator): Promise<Locator> {
    const key = `${snapshot} ${name}`;
    const held = this.#locators.get(key);
    if (held !== undefined && held !== stale) return Promise.resolve(held);
    const reading = this.#reading.get(key);
    if (reading !== undefined) return reading;
    const read = this.#read(name, snapshot, signal, stale !== undefined)
      .then((locator) => {
        this.#locators.set(key, locator, { size: locator.bytes.length });
        return locator;
      })
      .finally(() => this.#reading.delete(key));
    this.#reading.set(key, read);
    return read;
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
        return new Locator(readRegular(this.#cache.path("locators", snapshot)));
      } catch {
        // Missing, cut off, or no file at all: the origin has it.
      }
    }
    const bytes = await this.get(name).whole(objectPath("locators", snapshot), signal);
    const locator = new Locator(bytes);
    try {
      this.#cache.writeHint("locators", snapshot, bytes);
    } catch {
      // A full disk: the hint is good in memory.
    }
    return locator;
  }
}
