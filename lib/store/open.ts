// From what a person writes ("/dir", "http://…", "s3://…", "memory:") to a backend with its wrappers, and the marker that
// says a place is a store. Control plane.

import { BurrowError } from "../base/error.ts";
import { sweepAside } from "./aside.ts";
import { type DeltaStore, resolving, resolvingStore } from "./deltas.ts";
import { distrusting } from "./distrust.ts";
import type { ExchangeOptions } from "./exchange.ts";
import { httpBackend } from "./http.ts";
import { STORE_FORMAT, STORE_MARKER } from "./layout.ts";
import { localBackend } from "./local.ts";
import { type Meter, metered, newMeter } from "./meter.ts";
import { type RetryOptions, retrying, retryingStore } from "./retry.ts";
import { s3Backend } from "./s3.ts";
import { isS3 } from "./s3-place.ts";
import { type Backend, classOf, type WritableBackend } from "./store.ts";
import { verified } from "./verify.ts";

export interface OpenOptions extends ExchangeOptions, RetryOptions {
  readonly meter?: Meter;
}

/** A reader of an origin, metered, verified and retried, which makes what is a delta there. Makes no request. */
export function openOrigin(origin: string, options: OpenOptions = {}): Backend {
  const bare = bareBackend(origin, options);
  const read = verified(metered(bare, options.meter ?? newMeter()));
  return retrying(resolving(read), options);
}

/** Throws BURROW_UNSUPPORTED for an origin that openStore can't open: for who would find out after long work. Makes nothing. */
export function refuseReadOnly(origin: string): void {
  if (!origin.startsWith("http:") && !origin.startsWith("https:")) return;
  throw new BurrowError("BURROW_UNSUPPORTED", "an HTTP origin can't be written", {
    context: { origin },
  });
}

/**
 * A store that can be written, made when it is not there yet. Throws for one of another format. What is in `damaged` is written again, and taken
 * out of it.
 */
export async function openStore(origin: string, damaged?: Set<string>): Promise<DeltaStore> {
  refuseReadOnly(origin);
  const store = await bareStore(origin);
  if (!(await isStore(store))) {
    await store.put(STORE_MARKER, Buffer.from(`${JSON.stringify({ format: STORE_FORMAT })}\n`));
  }
  const opened = resolvingStore(checking(store));
  return damaged === undefined || damaged.size === 0 ? opened : distrusting(opened, damaged);
}

/** A store whose packs and indexes are compared with their names when they are read whole: what a disk changed goes into nothing new. */
function checking(store: WritableBackend): WritableBackend {
  return {
    ...verified(store),
    put: (path, bytes) => store.put(path, bytes),
    list: (folder) => store.list(folder),
    sizes: (folder) => store.sizes(folder),
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
  if (origin === "memory:") return await memory();
  if (isS3(origin)) return retryingStore(s3Backend(origin));
  sweepAside(pathOf(origin));
  return localBackend(pathOf(origin));
}

function formatOf(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && "format" in value
      ? value.format
      : undefined;
  } catch {
    return undefined;
  }
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
