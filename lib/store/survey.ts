// Survey: what of a store is referred to and what isn't. From the roots over locators to packs; removes nothing. docs/format/store.md,
// "Collection", says what a root is. Memory: some 500 B for each object but packs, 1.5 KiB for each pack. Control plane.

import { type Digest, parseDigest } from "../base/digest.ts";
import { explain } from "../base/error.ts";
import { baseOfDelta, type DeltaStore } from "./deltas.ts";
import { digestOfPath, objectPath } from "./layout.ts";
import { Locator } from "./locator.ts";
import { keepForLost, type LostPorts } from "./lost-locators.ts";
import { PackUse } from "./pack-use.ts";
import { inParallel } from "./parallel.ts";
import { classOf, isDamage, type SizedObject } from "./store.ts";

/** What only others know of a store's objects. */
export interface SurveyPorts extends LostPorts {
  /** What an index is. Throws for bytes that are none. */
  describe(index: Buffer): IndexFacts;
  /** Layers and snapshots that the document of an environment names. Throws for what is none. */
  namedBy(environment: Buffer): readonly Digest[];
  /** Snapshots in use that no object of the store names. */
  readonly inUse: readonly Digest[];
}

export interface IndexFacts {
  readonly isSnapshot: boolean;
  /** Of a snapshot: whether it is named by an environment's document, or not at all. */
  readonly isEnvironment: boolean;
}

export interface SurveyOptions {
  /** Objects that were put within so long are kept: ms. */
  readonly keepMs: number;
  /** Whether bases and layers that were imported by hand go too, unless they are pinned or an environment names them. */
  readonly isAll: boolean;
  /** Hears what is looked at, and how many of it were. */
  readonly onProgress?: (what: string, count: number) => void;
}

export interface Fault {
  /** Path of an object. */
  readonly what: string;
  readonly why: string;
}

export interface Survey {
  /** What nothing refers to and is old enough, in the order in which it may be removed. */
  readonly garbage: readonly SizedObject[];
  /** Packs that nothing refers to, but which are new. */
  readonly young: readonly SizedObject[];
  /** All objects, garbage and young packs too. */
  readonly all: Total;
  /** What is referred to and isn't there, and what can't be read or understood. */
  readonly faults: readonly Fault[];
  /** Digests of what is kept and has a locator. */
  readonly live: readonly Digest[];
  readonly packs: PackUse;
  /** Whether all is known that leads into packs. Else they may not be rewritten. */
  readonly isSure: boolean;
  /** Whether it may be that more packs are needed than could be found out. */
  readonly isBlind: boolean;
}

export interface Total {
  objects: number;
  bytes: number;
}

/** Where parts of a layer or snapshot lie, in the order in which they are removed. */
const UNIT_FOLDERS = ["deltas/locators", "locators", "deltas/indexes", "indexes"] as const;
const Part = { deltaLocator: 0, locator: 1, deltaIndex: 2, index: 3 } as const;
/** Where each half of a layer or snapshot lies: whole, or as a delta. */
const HALVES = [
  [Part.index, Part.deltaIndex, "indexes"],
  [Part.locator, Part.deltaLocator, "locators"],
] as const;

/** What comes of what may name anything, as a fault says it. */
const KEEPS_ALL = "; all layers and snapshots are kept until it can be read, or is removed";

const JSON_MAX_BYTES = 64 * 1024 * 1024;
/** Objects read at once. */
const PARALLEL = 8;
/** S3 knows whole seconds: what was put within two of a look's begin is read again by the next. */
const TICK_MS = 2_000;

interface Unit {
  readonly objects: (SizedObject | undefined)[];
  isLive: boolean;
  isNew: boolean;
}

interface NoteBody {
  readonly layer?: unknown;
  readonly near?: unknown;
  readonly facts?: object;
}

/** A note about a layer, or about one that is near others. */
interface Note {
  readonly layer: Digest | undefined;
  /** Whether facts stand beside the layer, as they do of packages. */
  readonly hasFacts: boolean;
}

/** Looks at a store once or more. What it has read before and was not put again it does not read again. */
export class Surveyor {
  readonly #store: DeltaStore;
  readonly #ports: SurveyPorts;
  readonly #options: SurveyOptions;
  readonly #packs = new PackUse();
  readonly #memo = new Map<string, { readonly modifiedMs: number; readonly value: unknown }>();
  #units = new Map<Digest, Unit>();
  #faults: Fault[] = [];
  #all: Total = { objects: 0, bytes: 0 };
  #isBlind = false;
  /** Whether something that is kept may be a delta of anything. */
  #isBaseUnknown = false;
  /** Kept, with a damaged locator. */
  #lost: Digest[] = [];
  #nowMs = 0;

  constructor(store: DeltaStore, ports: SurveyPorts, options: SurveyOptions) {
    this.#store = store;
    this.#ports = ports;
    this.#options = options;
  }

  /** Has the next look read all locators again: they were rewritten. */
  forget(): void {
    this.#memo.clear();
    this.#packs.clear();
  }

  /** `nowMs` is the store's time. */
  async look(nowMs: number): Promise<Survey> {
    this.#units = new Map();
    this.#faults = [];
    this.#all = { objects: 0, bytes: 0 };
    this.#isBlind = false;
    this.#isBaseUnknown = false;
    this.#lost = [];
    this.#nowMs = nowMs;
    this.#packs.beginListing();
    for await (const object of this.#listed("packs")) {
      const digest = digestOfPath(object.path);
      if (digest !== undefined) this.#packs.add({ ...object, digest });
    }
    const notes = await this.#notes("imports", (value) => value.layer);
    const near = await this.#notes("near", (value) => value.near);
    const beside = [...(await this.#gather("images")), ...(await this.#gather("profiles"))];
    await this.#gatherUnits();
    await this.#markRoots(notes);
    await this.#markUnknownBases();
    await this.#reportMissingPacks();
    for (const { pack, endBytes, from } of this.#packs.short()) {
      const why = `it ends at ${pack.bytes}, and ${from} refers to what ends at ${endBytes}`;
      this.#faults.push({ what: pack.path, why });
    }
    const onFault = (what: string, error: unknown) => this.#fault(what, error);
    if (this.#lost.length > 0)
      this.#isBlind ||= await keepForLost(
        this.#store,
        this.#ports,
        this.#lost,
        this.#packs,
        onFault,
      );
    const isOld = (object: SizedObject) => !this.#isNew(object);
    const isDead = (digest: Digest | undefined) =>
      digest !== undefined && !this.#units.get(digest)?.isLive;
    const garbage = [
      ...[...notes, ...near]
        .filter(([object, { layer }]) => isDead(layer) && isOld(object))
        .map(([object]) => object),
      ...this.#deadParts(),
      ...beside.filter((object) => isDead(digestOfPath(object.path)) && isOld(object)),
    ];
    const unused = this.#isBlind ? [] : [...this.#packs.unused()];
    const live = [...this.#units]
      .filter(([, { isLive, objects }]) => isLive && locatorOf(objects) !== undefined)
      .map(([digest]) => digest);
    return {
      garbage: [...garbage, ...unused.filter(isOld)],
      young: unused.filter((pack) => !isOld(pack)),
      all: this.#all,
      faults: this.#faults,
      live,
      packs: this.#packs,
      isSure: this.#lost.length === 0 && !this.#isBlind,
      isBlind: this.#isBlind,
    };
  }

  /** Keeps a layer or snapshot after all, by one of its objects. */
  async hold({ path }: SizedObject): Promise<void> {
    await this.#mark(digestOfPath(path)!, undefined);
    await this.#markUnknownBases();
  }

  /** Whether an object is part of what is held, or a pack that it refers to. */
  isNeeded({ path }: SizedObject): boolean {
    const digest = digestOfPath(path)!;
    if (path.startsWith("packs/")) return this.#isBlind || this.#packs.isUsed(digest);
    const unit = this.#units.get(digest);
    const delta = UNIT_FOLDERS.findIndex((folder) => path.startsWith(`${folder}/`));
    const isBeside = path.startsWith("deltas/") && unit?.objects[delta + 1] !== undefined;
    return unit?.isLive === true && !isBeside;
  }

  #isNew({ modifiedMs }: SizedObject): boolean {
    return modifiedMs > this.#nowMs - this.#options.keepMs;
  }

  /** What is in a folder, counted. */
  async *#listed(folder: string): AsyncIterable<SizedObject> {
    let count = 0;
    for await (const object of this.#store.whole.sizes(folder)) {
      this.#all.objects++;
      this.#all.bytes += object.bytes;
      this.#options.onProgress?.(folder, ++count);
      yield object;
    }
  }

  async #gather(folder: string): Promise<SizedObject[]> {
    const objects: SizedObject[] = [];
    for await (const object of this.#listed(folder)) objects.push(object);
    return objects;
  }

  async #gatherUnits(): Promise<void> {
    for (const [part, folder] of UNIT_FOLDERS.entries()) {
      for await (const object of this.#listed(folder)) {
        const digest = digestOfPath(object.path);
        if (digest === undefined) continue;
        const unit = this.#units.get(digest) ?? { objects: [], isLive: false, isNew: false };
        unit.objects[part] = object;
        unit.isNew ||= this.#isNew(object);
        this.#units.set(digest, unit);
      }
    }
  }

  /** What was read of an object, when it was not put again since. */
  async #once<T>(what: string, object: SizedObject, read: () => Promise<T>): Promise<T> {
    const key = `${what} ${object.path}`;
    const known = this.#memo.get(key);
    if (known?.modifiedMs === object.modifiedMs) return known.value as T;
    const value = await read();
    if (object.modifiedMs < this.#nowMs - TICK_MS)
      this.#memo.set(key, { modifiedMs: object.modifiedMs, value });
    return value;
  }

  /** Notes with the layer or snapshot that each names. One that can't be read names nothing, and stays. */
  async #notes(
    folder: string,
    named: (value: NoteBody) => unknown,
  ): Promise<[SizedObject, Note][]> {
    const objects = await this.#gather(folder);
    const notes: [SizedObject, Note][] = [];
    await inParallel(objects, PARALLEL, async (object) => {
      const read = async (): Promise<Note> => {
        const bytes = await this.#store.whole.get(object.path, { maxBytes: JSON_MAX_BYTES });
        const value = JSON.parse(bytes.toString("utf8")) as NoteBody;
        const layer = parseDigest(String(named(value)));
        if (layer === undefined) throw new Error("it names no layer or snapshot");
        return { layer, hasFacts: Object.keys(value.facts ?? {}).length > 0 };
      };
      try {
        notes.push([object, await this.#once("note", object, read)]);
      } catch (error) {
        this.#fault(object.path, error);
      }
    });
    return notes;
  }

  /** One that is gone by now is none. */
  #fault(what: string, error: unknown, consequence = ""): void {
    if (classOf(error) === "notFound") return;
    this.#faults.push({ what, why: `${explain(error)}${consequence}` });
  }

  async #markRoots(notes: readonly [SizedObject, Note][]): Promise<void> {
    // A document that can't be read may name anything.
    let keepsAll = false;
    for (const object of await this.#gather("pins")) {
      const digest = digestOfPath(object.path);
      if (digest !== undefined) await this.#mark(digest, object.path);
    }
    for (const digest of this.#ports.inUse)
      if (this.#units.has(digest)) await this.#mark(digest, "a mount of this node");
    for (const object of await this.#gather("environments")) {
      const digest = digestOfPath(object.path);
      if (digest === undefined) continue;
      const read = async () => this.#ports.namedBy(await this.#store.whole.get(object.path));
      let named: readonly Digest[] = [];
      try {
        named = await this.#once("named", object, read);
      } catch (error) {
        keepsAll ||= classOf(error) !== "notFound";
        this.#fault(object.path, error, KEEPS_ALL);
      }
      for (const each of [digest, ...named]) await this.#mark(each, object.path);
    }
    for (const [object, { layer }] of notes)
      if (layer !== undefined && this.#isNew(object) && this.#units.has(layer))
        await this.#mark(layer, object.path);
    const packages = new Set<Digest | undefined>();
    for (const [, { layer, hasFacts }] of notes) if (hasFacts) packages.add(layer);
    for (const [, { layer, hasFacts }] of notes) if (!hasFacts) packages.delete(layer);
    let count = 0;
    await inParallel([...this.#units], PARALLEL, async ([digest, unit]) => {
      this.#options.onProgress?.("layers and snapshots", ++count);
      if (unit.isLive) return;
      if (unit.isNew || (await this.#isRoot(digest, unit, packages, keepsAll)))
        await this.#mark(digest, undefined);
    });
  }

  /** Whether what nothing names is kept all the same. */
  async #isRoot(
    digest: Digest,
    { objects }: Unit,
    packages: ReadonlySet<Digest | undefined>,
    keepsAll: boolean,
  ): Promise<boolean> {
    const locator = locatorOf(objects);
    const index = objects[Part.index] ?? objects[Part.deltaIndex];
    // Half of what was never published, or of what is half removed.
    if (locator === undefined) return false;
    const path = objectPath("indexes", digest);
    // Never so by any order of writing or removing: its index was lost, and may be made again.
    if (index === undefined) {
      this.#faults.push({ what: path, why: `it is missing, and ${locator.path} is there` });
      return true;
    }
    let facts: IndexFacts;
    try {
      facts = await this.#once("facts", index, async () =>
        this.#ports.describe(await this.#store.get(path)),
      );
    } catch (error) {
      this.#fault(path, error);
      return true;
    }
    const isNeverNamed = facts.isSnapshot ? !facts.isEnvironment : !packages.has(digest);
    return keepsAll || (isNeverNamed && !this.#options.isAll);
  }

  /** Keeps a layer or snapshot with all that it needs. `from` says what names it, where something does. */
  async #mark(digest: Digest, from: string | undefined): Promise<void> {
    const waiting: [Digest, string | undefined][] = [[digest, from]];
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      const [each, source] = next;
      const unit = this.#units.get(each);
      if (unit?.isLive) continue;
      if (unit === undefined) {
        const why = `it is missing, and ${source ?? "a note"} names it`;
        this.#faults.push({ what: objectPath("locators", each), why });
        continue;
      }
      unit.isLive = true;
      const { objects } = unit;
      for (const [whole, delta, folder] of HALVES) {
        const object = objects[whole] ?? objects[delta];
        if (object === undefined) {
          // A new one may not be published yet.
          if (source !== undefined)
            this.#faults.push({
              what: objectPath(folder, each),
              why: `it is missing, and ${source} names it`,
            });
          continue;
        }
        if (objects[whole] === undefined) {
          const base = await this.#baseOf(objectPath(folder, each), object);
          if (base !== undefined) waiting.push([base, object.path]);
        }
        if (folder === "locators") await this.#markPacks(objectPath(folder, each), object);
      }
    }
  }

  /** Keeps all layers and snapshots, since what is kept may need any of them. */
  async #markUnknownBases(): Promise<void> {
    if (!this.#isBaseUnknown) return;
    await inParallel(this.#units.keys(), PARALLEL, (digest) => this.#mark(digest, undefined));
  }

  /** What a delta is made of; undefined when that can't be found out, which is a fault. */
  async #baseOf(path: string, delta: SizedObject): Promise<Digest | undefined> {
    try {
      return await this.#once("base", delta, () => baseOfDelta(this.#store.whole, path));
    } catch (error) {
      // A damaged one makes nothing any more; what is not to be had now may be of anything.
      const isUnknown = classOf(error) !== "notFound" && !isDamage(error);
      this.#isBaseUnknown ||= isUnknown;
      this.#fault(delta.path, error, isUnknown ? KEEPS_ALL : "");
      return undefined;
    }
  }

  async #markPacks(path: string, object: SizedObject): Promise<void> {
    try {
      await this.#once("packs", object, async () => {
        const locator = new Locator(await this.#store.get(path));
        if (locator.kind === "packs") this.#packs.mark(locator, path);
      });
    } catch (error) {
      if (classOf(error) === "notFound") return;
      // What is damaged stays so, and the index has the same content; what is not to be had now may lead anywhere.
      if (isDamage(error)) this.#lost.push(digestOfPath(path)!);
      else this.#isBlind = true;
      this.#fault(object.path, error);
    }
  }

  async #reportMissingPacks(): Promise<void> {
    for (const [digest, from] of this.#packs.missing) {
      const path = objectPath("packs", digest);
      // It may have been written since packs were listed.
      if (await this.#store.has(path)) continue;
      this.#faults.push({ what: path, why: `it is missing, and ${from} refers to it` });
    }
  }

  /** Of what is not kept all parts; of what is, deltas beside what they make. Locators first. */
  *#deadParts(): Iterable<SizedObject> {
    for (const part of UNIT_FOLDERS.keys()) {
      for (const { objects, isLive } of this.#units.values()) {
        const object = objects[part];
        if (object === undefined) continue;
        const isDelta = part === Part.deltaLocator || part === Part.deltaIndex;
        const isBeside = isDelta && objects[part + 1] !== undefined;
        if (!isLive || (isBeside && !this.#isNew(object))) yield object;
      }
    }
  }
}

function locatorOf(objects: Unit["objects"]): SizedObject | undefined {
  return objects[Part.locator] ?? objects[Part.deltaLocator];
}
