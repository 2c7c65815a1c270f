// The view that burrow explain looks into: snapshots at their places with their indexes, of a bundle's mounts or of one digest, and what
// their stores say of them, each read once and only when it is asked for. Control plane.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Digest } from "../base/digest.ts";
import { BurrowError, explain } from "../base/error.ts";
import { showName } from "../base/name.ts";
import { heldWhole, openCache } from "../cache/cache.ts";
import type { CacheDirectory } from "../cache/directory.ts";
import { CACHE_MARKER } from "../cache/layout.ts";
import { isMountId, mountDirectory, readMount, type ViewMount } from "../gofer/mount.ts";
import { rootEntry } from "../layer/entries.ts";
import type { Index } from "../layer/index.ts";
import { readLocator } from "../store/known.ts";
import { Locator } from "../store/locator.ts";
import { type OpenedOrigin, openOrigin } from "../store/open.ts";
import { classOf } from "../store/store.ts";
import type { Context } from "./context.ts";
import { findDigest } from "./digests.ts";
import { PREFIX_XATTR } from "./env-root.ts";
import { type Owners, ownersOf } from "./owners.ts";
import { readIndex, soundIndex } from "./read-index.ts";
import type { Graft } from "./view-path.ts";

/** A snapshot at its place. */
export interface ExplainedPlace extends Graft {
  readonly snapshot: Digest;
  readonly store: OpenedOrigin;
  readonly origin: string;
}

export class ExplainedView implements Disposable {
  readonly places: readonly ExplainedPlace[];
  /** Undefined where this node has none. */
  readonly cache: CacheDirectory | undefined;
  /** What couldn't be had, for people. */
  readonly notes: string[] = [];
  readonly #known = new Map<string, Promise<unknown>>();

  constructor(places: readonly ExplainedPlace[], cache: CacheDirectory | undefined) {
    this.places = places;
    this.cache = cache;
  }

  /** Undefined of what is no environment, and where that can't be told. */
  async owners(place: ExplainedPlace): Promise<Owners | undefined> {
    const { store, snapshot, origin, index } = place;
    if (prefixOf(index) === undefined) return undefined;
    return await this.#once(`owners ${snapshot}`, origin, () => ownersOf(store, snapshot));
  }

  /** Where a snapshot's bytes lie; undefined where that can't be told. */
  locator({ store, snapshot, origin }: ExplainedPlace): Promise<Locator | undefined> {
    return this.#once(`locator ${snapshot}`, origin, async () => {
      const held = this.cache?.path("locators", snapshot);
      if (held !== undefined && existsSync(held)) return new Locator(readFileSync(held));
      return await readLocator(store, snapshot);
    });
  }

  /** As `read` has it, read once; what a store can't give is noted, and undefined. */
  async #once<T>(key: string, origin: string, read: () => Promise<T>): Promise<T | undefined> {
    const known = this.#known.get(key) as Promise<T | undefined> | undefined;
    if (known !== undefined) return await known;
    const reading = this.attempt(origin, read);
    this.#known.set(key, reading);
    return await reading;
  }

  /** What a store has; undefined, and a note, where it hasn't or can't be reached. Throws for what is wrong with it. */
  async attempt<T>(origin: string, read: () => Promise<T>): Promise<T | undefined> {
    try {
      return await read();
    } catch (error) {
      if (!(error instanceof BurrowError) || classOf(error) === "permanent") throw error;
      const note = `${origin} doesn't say all: ${explain(error)}`;
      if (!this.notes.includes(note)) this.notes.push(note);
      return undefined;
    }
  }

  [Symbol.dispose](): void {
    for (const { store } of this.places) store.close();
  }
}

/** Opens what a text names. BURROW_NOT_FOUND, BURROW_USAGE; what the store throws for an index that isn't here. */
export async function openExplained(context: Context, text: string): Promise<ExplainedView> {
  const isMount = isMountId(text) && existsSync(mountDirectory(context.state, text));
  const mount = isMount ? viewOf(context, text) : undefined;
  const root = mount?.cache ?? context.cache;
  const cache = existsSync(join(root, CACHE_MARKER)) ? openCache(root) : undefined;
  const sources =
    mount === undefined
      ? [{ at: undefined, snapshot: await digestOf(context, text), origin: context.store }]
      : [{ at: "/", ...mount.base }, ...mount.grafts];
  const places: ExplainedPlace[] = [];
  try {
    for (const { at, snapshot, origin } of sources) {
      const store = openOrigin(origin);
      const held = cache === undefined ? undefined : await heldWhole(cache, "indexes", snapshot);
      const index =
        held === undefined
          ? await readIndex(store, snapshot)
          : soundIndex(held, snapshot, context.cache);
      places.push({ at: at ?? prefixOf(index) ?? "/", index, snapshot, store, origin });
    }
    return new ExplainedView(places, cache);
  } catch (error) {
    for (const { store } of places) store.close();
    throw error;
  }
}

async function digestOf(context: Context, text: string): Promise<Digest> {
  try {
    return await findDigest(context, text);
  } catch (error) {
    if (!(error instanceof BurrowError) || error.code !== "BURROW_USAGE" || !isMountId(text))
      throw error;
    const what = `no mounts of the id ${text}, and it is no digest`;
    const advice = "burrow env ls and burrow layer ls list snapshots";
    throw new BurrowError("BURROW_NOT_FOUND", `${what}; ${advice}`, {
      context: { state: context.state },
    });
  }
}

function viewOf({ state }: Context, id: string): ViewMount {
  const mount = readMount(state, id);
  if (mount.kind === "view") return mount;
  throw new BurrowError(
    "BURROW_USAGE",
    `the mount ${id} is scratch space: no snapshot shows in it`,
  );
}

/** Where an environment is seen; undefined for all else. */
function prefixOf(index: Index): string | undefined {
  const prefix = rootEntry(index).xattrs?.get(PREFIX_XATTR);
  return prefix === undefined ? undefined : showName(prefix);
}
