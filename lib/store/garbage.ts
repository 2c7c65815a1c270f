// Garbage lists: what a collector has found that nothing refers to, told to writers before it is removed; and the store as a writer with
// a lease sees it: without what is in the lists that it has read. docs/format/store.md, "Collection". Control plane.

import { randomBytes } from "node:crypto";
import { BurrowError } from "../base/error.ts";
import { type DeltaStore, resolvingStore } from "./deltas.ts";
import { CLOCK, type Clock, Lease } from "./lease.ts";
import {
  backendError,
  checkPath,
  classOf,
  type GetOptions,
  type SizedObject,
  type WritableBackend,
} from "./store.ts";

const GARBAGE = "garbage";
const FORMAT = 1;
/** Paths of one list: some 20 MB of JSON. */
export const LIST_PATHS_MAX = 250_000;
const LIST_MAX_BYTES = 256 * 1024 * 1024;

export interface GarbageList {
  readonly path: string;
  /** When it was made, by the store's clock. */
  readonly sinceMs: number;
  /** Whether content was moved elsewhere: nodes may still look here, until the grace is over. */
  readonly isReplaced: boolean;
  readonly paths: readonly string[];
}

/**
 * All lists of a store that can be understood; `onBad` hears of the others. To pass one over is safe for either side: a collector removes
 * nothing by it, and a writer doesn't say that it avoids it, and waits for a sweep that began before its lease.
 */
export async function readGarbage(
  store: WritableBackend,
  onBad: (path: string, error: unknown) => void = () => undefined,
): Promise<GarbageList[]> {
  const lists: GarbageList[] = [];
  for await (const path of store.list(GARBAGE)) {
    try {
      lists.push(parseList(path, await store.get(path, { maxBytes: LIST_MAX_BYTES })));
    } catch (error) {
      if (isCorrupt(error)) onBad(path, error);
      else if (classOf(error) !== "notFound") throw error;
    }
  }
  return lists;
}

function isCorrupt(error: unknown): boolean {
  return error instanceof BurrowError && error.code === "BURROW_CORRUPT";
}

function parseList(path: string, bytes: Buffer): GarbageList {
  const fail = (cause?: unknown) =>
    new BurrowError(
      "BURROW_CORRUPT",
      "a garbage list can't be understood; remove it while no store gc is at work",
      {
        cause,
        context: { path },
      },
    );
  let value: Partial<GarbageList> & { readonly format?: unknown };
  try {
    value = JSON.parse(bytes.toString("utf8")) as typeof value;
  } catch (cause) {
    throw fail(cause);
  }
  const { format, sinceMs, isReplaced, paths } = value ?? {};
  const isRight =
    format === FORMAT &&
    typeof sinceMs === "number" &&
    typeof isReplaced === "boolean" &&
    Array.isArray(paths) &&
    paths.every((each) => typeof each === "string");
  if (!isRight) throw fail();
  try {
    for (const each of paths as readonly string[]) checkPath(each);
  } catch (cause) {
    throw fail(cause);
  }
  return { path, sinceMs, isReplaced, paths: paths as readonly string[] };
}

/** A list that nobody has read yet. */
export async function putGarbage(
  store: WritableBackend,
  list: Omit<GarbageList, "path">,
): Promise<GarbageList> {
  const made = { ...list, path: `${GARBAGE}/${randomBytes(16).toString("hex")}` };
  await writeList(store, made);
  return made;
}

/** The same list with some of its paths alone: who has read it avoids more than it must. */
export async function shrinkGarbage(
  store: WritableBackend,
  list: GarbageList,
  paths: readonly string[],
): Promise<void> {
  if (paths.length === 0) await store.remove(list.path);
  else if (paths.length < list.paths.length) await writeList(store, { ...list, paths });
}

async function writeList(store: WritableBackend, list: GarbageList): Promise<void> {
  const { path, ...body } = list;
  await store.put(path, Buffer.from(`${JSON.stringify({ format: FORMAT, ...body })}\n`));
}

/** A lease that is in force, as those see it who work under it: its holder, and threads that work for the holder. */
export interface HeldLease {
  /** What is taken for missing: it is in a list that the lease avoids, and was not put again under it. */
  readonly hidden: ReadonlySet<string>;
  /** To be called before anything is put or removed. BURROW_TIMEOUT. */
  check(): Promise<void>;
  /** To be called before and after anything is put that others believe in. BURROW_LEASE: what it leads to may be gone. */
  confirm(): Promise<void>;
  /** To be called before anything hidden is put: from its return on that is not removed while the lease lasts. */
  keep(path: string): Promise<void>;
  /** Says that something hidden was put. */
  show(path: string): void;
}

/** Has `work` done with the store as a writer may use it, under a lease of its own, which is in force until the end. */
export async function withLease<T>(
  inner: WritableBackend,
  what: string,
  work: (store: DeltaStore, held: HeldLease) => Promise<T>,
  clock: Clock = CLOCK,
): Promise<T> {
  const lease = await Lease.open(inner, what, clock);
  try {
    let hasBad = false;
    const lists = await readGarbage(inner, () => {
      hasBad = true;
    });
    await lease.avoid(lists.map(({ path }) => path));
    // For a list that it doesn't avoid nothing goes, but by a sweep that didn't see this lease.
    if (hasBad) await lease.whenSwept();
    const hidden = new Set(lists.flatMap(({ paths }) => paths));
    const held: HeldLease = {
      hidden,
      check: () => lease.check(),
      confirm: () => lease.confirm(),
      keep: (path) => lease.keep(path),
      show: (path) => void hidden.delete(path),
    };
    return await work(resolvingStore(heldStore(inner, held)), held);
  } finally {
    await lease.close();
  }
}

/** Whether others take what an object leads to for there when they see it: no pack and no index alone. */
function isBelieved(path: string): boolean {
  return /^(locators|deltas\/locators|environments|imports|pins)\//.test(path);
}

/** `inner` as one may use it who works under a lease. */
export function heldStore(inner: WritableBackend, held: HeldLease): WritableBackend {
  const { hidden } = held;
  const refuse = (path: string) => {
    const what = "the object is being collected";
    if (hidden.has(path)) throw backendError("notFound", what, { path, origin: inner.origin });
  };
  const publish = async (path: string, bytes: Uint8Array) => {
    const [wasThere] = await Promise.all([inner.has(path), held.confirm()]);
    await inner.put(path, bytes);
    try {
      await held.confirm();
    } catch (error) {
      // A collection may not have seen it, and removed what it leads to.
      if (!wasThere) await inner.remove(path);
      throw error;
    }
  };
  async function* seen(objects: AsyncIterable<SizedObject>): AsyncIterable<SizedObject> {
    for await (const object of objects) if (!hidden.has(object.path)) yield object;
  }
  return {
    origin: inner.origin,
    async get(path: string, options?: GetOptions): Promise<Buffer> {
      refuse(path);
      return await inner.get(path, options);
    },
    has: async (path, signal) => !hidden.has(path) && (await inner.has(path, signal)),
    async put(path: string, bytes: Uint8Array): Promise<void> {
      await held.check();
      const isHidden = hidden.has(path);
      // A hint, which is hidden while locators are rewritten: to have none costs space alone.
      if (isHidden && path.startsWith("near/")) return;
      if (isHidden) await held.keep(path);
      await (isBelieved(path) ? publish(path, bytes) : inner.put(path, bytes));
      if (isHidden) held.show(path);
    },
    async *list(folder: string): AsyncIterable<string> {
      for await (const path of inner.list(folder)) if (!hidden.has(path)) yield path;
    },
    sizes: (folder) => seen(inner.sizes(folder)),
    async remove(path: string): Promise<void> {
      await held.check();
      await inner.remove(path);
    },
    close: () => inner.close(),
  };
}
