// From what a person writes ("/dir", "http://…", "s3://…", "memory:") to a backend with its wrappers, and the marker that
// says a place is a store. Control plane.

import type { Digest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { sweepAside } from "./aside.ts";
import { compressing, expanding } from "./compressed.ts";
import { type DeltaStore, resolving, resolvingStore } from "./deltas.ts";
import { distrusting } from "./distrust.ts";
import type { ExchangeOptions } from "./exchange.ts";
import { type HeldLease, heldStore, withLease } from "./garbage.ts";
import { httpBackend } from "./http.ts";
import { formatOf, STORE_FORMAT, STORE_MARKER } from "./layout.ts";
import { Lease } from "./lease.ts";
import { localBackend } from "./local.ts";
import { type Meter, metered, newMeter } from "./meter.ts";
import { type MirrorOptions, Mirrors, type Place } from "./mirrors.ts";
import {
  environmentOrigins,
  type OriginPlan,
  type OriginTable,
  placeName,
} from "./origins-file.ts";
import { pin } from "./pins.ts";
import { type RetryOptions, retrying, retryingStore } from "./retry.ts";
import { s3Backend } from "./s3.ts";
import { isS3 } from "./s3-place.ts";
import { type Backend, classOf, type WritableBackend } from "./store.ts";
import { verified } from "./verify.ts";

export interface OpenOptions extends ExchangeOptions, RetryOptions, MirrorOptions {
  /** Counts what all places of the origin are asked for. */
  readonly meter?: Meter;
  /** Counts what one place is asked for; a new meter each when missing. */
  readonly meterOf?: (at: string, isTier: boolean) => Meter;
  /** Where origins lie besides; what $BURROW_ORIGINS says when missing. */
  readonly origins?: OriginTable;
}

/** An origin that is open for reading, with the places where it lies. */
export interface OpenedOrigin extends Backend {
  readonly mirrors: Mirrors;
  readonly plan: OriginPlan;
}

/** A reader of an origin, wherever it lies, metered, verified and retried, which makes what is a delta there. Makes no request. */
export function openOrigin(origin: string, options: OpenOptions = {}): OpenedOrigin {
  const name = placeName(origin);
  const table = options.origins ?? environmentOrigins();
  const plan = table.get(name) ?? { places: [origin], tier: undefined };
  const tier = plan.tier === undefined ? [] : [placeAt(plan.tier.at, true, options)];
  const places = plan.places.map((at) => placeAt(at, false, options));
  const mirrors = new Mirrors(origin, [...tier, ...places], options);
  return { ...retrying(mirrors, options), mirrors, plan };
}

function placeAt(at: string, isTier: boolean, options: OpenOptions): Place {
  const meter = options.meterOf?.(at, isTier) ?? newMeter();
  const own = metered(bareBackend(at, options), meter);
  const counted = options.meter ? metered(own, options.meter) : own;
  const backend = resolving(verified(expanding(counted)));
  return { backend, meter, isTier, isRemote: isS3(at) || /^https?:/.test(at) };
}

/** A tier, to put into what was read elsewhere. It has no marker: it is no store, but what is left of one at times. */
export async function openTier(at: string): Promise<WritableBackend> {
  refuseReadOnly(at);
  return await bareStore(at);
}

/** Throws BURROW_UNSUPPORTED for an origin that openStore can't open: for who would find out after long work. Makes nothing. */
export function refuseReadOnly(origin: string): void {
  if (!origin.startsWith("http:") && !origin.startsWith("https:")) return;
  throw new BurrowError("BURROW_UNSUPPORTED", "an HTTP origin can't be written", {
    context: { origin },
  });
}

/** A store that can be written, made when it is not there yet. Throws for one of another format. */
export async function openStore(origin: string): Promise<DeltaStore> {
  refuseReadOnly(origin);
  const store = await bareStore(origin);
  if (!(await isStore(store))) {
    await store.put(STORE_MARKER, Buffer.from(`${JSON.stringify({ format: STORE_FORMAT })}\n`));
  }
  return resolvingStore(checking(store));
}

/**
 * Has `work` done with a store that can be written, made when it is not there yet. Meanwhile nothing is removed that the work may find in it;
 * `what` says to people who is at work. All that is written into a store is written so. What is in `damaged` is written again, and taken out
 * of it.
 */
export async function writingStore<T>(
  origin: string,
  what: string,
  work: (store: DeltaStore, held: HeldLease) => Promise<T>,
  damaged: Set<string> = new Set(),
): Promise<T> {
  const { whole } = await openStore(origin);
  return await withLease(whole, what, (store, held) => work(distrusting(store, damaged), held));
}

/** The store of a writer that is at work, for who works under its lease elsewhere. */
export async function joinedStore(
  origin: string,
  held: HeldLease,
  damaged: Set<string>,
): Promise<DeltaStore> {
  const { whole } = await openStore(origin);
  return distrusting(resolvingStore(heldStore(whole, held)), damaged);
}

/** Pins a layer or snapshot of a store, whole as it is now. BURROW_NOT_FOUND when it isn't there, or has been collected meanwhile. */
export async function pinIn(origin: string, digest: Digest): Promise<void> {
  const store = await openStore(origin);
  // It avoids no list: what lies on one stays from here on, but for a sweep that is under way.
  const lease = await Lease.open(store.whole, "store pin");
  try {
    await lease.whenSwept();
    await pin(store, digest);
    await lease.confirm();
  } finally {
    await lease.close();
  }
}

/** A store whose packs and indexes are compared with their names when they are read whole: what a disk changed goes into nothing new. */
function checking(store: WritableBackend): WritableBackend {
  return {
    ...verified(store),
    put: (path, bytes) => store.put(path, bytes),
    list: (folder) => store.list(folder),
    sizes: (folder) => store.sizes(folder),
    remove: (path) => store.remove(path),
  };
}

/** Whether there is a store at a backend. Throws BURROW_UNSUPPORTED when it is of a format that is not known. */
export async function isStore(backend: Backend, signal?: AbortSignal): Promise<boolean> {
  let text: string;
  try {
    const options = { maxBytes: 4096, ...(signal ? { signal } : {}) };
    text = (await backend.get(STORE_MARKER, options)).toString("utf8");
  } catch (error) {
    if (classOf(error) === "notFound") return false;
    throw error;
  }
  if (formatOf(text) !== STORE_FORMAT) {
    throw new BurrowError("BURROW_UNSUPPORTED", "the store has a format this program can't read", {
      context: { origin: backend.origin, marker: text.slice(0, 80) },
    });
  }
  return true;
}

async function bareStore(origin: string): Promise<WritableBackend> {
  if (origin === "memory:") return compressing(await memory());
  if (isS3(origin)) return retryingStore(compressing(s3Backend(origin)));
  sweepAside(pathOf(origin));
  return compressing(localBackend(pathOf(origin)));
}

/** memfs takes a while to load and nothing but tests and dry runs wants it. */
async function memory(): Promise<WritableBackend> {
  return (await import("./memory.ts")).memoryBackend();
}

function bareBackend(origin: string, options: ExchangeOptions): Backend {
  if (origin.startsWith("http://") || origin.startsWith("https://")) {
    return httpBackend(origin, options);
  }
  return isS3(origin) ? s3Backend(origin, options) : localBackend(pathOf(origin));
}

function pathOf(origin: string): string {
  const path = origin.startsWith("file://") ? decodeURI(origin.slice("file://".length)) : origin;
  if (path.startsWith("/")) return path === "/" ? path : path.replace(/\/+$/, "");
  throw new BurrowError("BURROW_USAGE", "an origin is an absolute path or an http(s) or s3 URL", {
    context: { origin },
  });
}
