// Preloader: brings packages into a store ahead of their use: fetched, compared with their hashes, made into layers, many at once.
// One that fails is reported and stops no other, but for a full disk. Whoever has lists of (URL, hash, size) can use it: locks,
// arguments, a solver. How things are fetched and noted is the caller's. Control plane.

import type { Digest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { distOf, nameOfArchive } from "../ingest/conda/dist.ts";
import { isPython, type PackageFacts, packageKey } from "../ingest/conda/environment.ts";
import type { ExplicitPackage } from "../ingest/conda/explicit.ts";
import { type PythonTarget, pythonTarget } from "../ingest/conda/noarch.ts";
import { plainUrl } from "../ingest/conda/record.ts";
import type { WorkerPool } from "./pool.ts";
import { Chains, Turns } from "./turns.ts";
import type { Ingested, Inspected, JobProgress } from "./work.ts";

/** The packages of one environment, in its order. */
export interface PackageList {
  readonly items: readonly ExplicitPackage[];
  readonly prefix: string;
  /** Instead of that of the list's python package. */
  readonly pythonVersion?: string;
}

/** An archive on this machine. */
export interface FetchedArchive {
  readonly path: string;
  readonly bytes: number;
  /** Of them, those that came over the network now. */
  readonly fetchedBytes: number;
  /** Whether all of it was fetched now: wrong bytes are then the server's. */
  readonly isFresh: boolean;
}

export interface PreloadPorts {
  readonly pool: WorkerPool;
  /** The layer that was made of a key before. */
  find(
    key: readonly string[],
  ): Promise<{ readonly layer: Digest; readonly facts: PackageFacts } | undefined>;
  note(key: readonly string[], layer: Digest, facts: PackageFacts): Promise<void>;
  fetch(item: ExplicitPackage, onBytes: (bytes: number) => void): Promise<FetchedArchive>;
  /** Called once for each archive that was fetched: isWrong when it was not what its item says. */
  release(archive: FetchedArchive, isWrong: boolean): void;
  readonly onEvent: (event: PreloadEvent) => void;
}

/** What happens to a package; `item` is its own in each event. */
export type PreloadEvent = { readonly item: ExplicitPackage } & (
  | { readonly event: "fetching"; readonly bytes: number }
  | { readonly event: "fetched"; readonly archive: FetchedArchive }
  | ({ readonly event: "ingesting" } & JobProgress)
  | ({ readonly event: "ingested" } & Ingested)
  | { readonly event: "present"; readonly layer: Digest }
  | { readonly event: "failed"; readonly error: unknown }
);

/** A package that is in the store. */
interface Done {
  readonly sha256: string;
}

/** Downloads at once: more gain nothing and annoy servers. */
const FETCHES = 4;
/** Archives on disk that wait for a worker, besides those at work. */
const AHEAD = 16;

interface SharedArchive {
  readonly fetched: Promise<FetchedArchive>;
  users: number;
}

export class Preloader {
  readonly #ports: PreloadPorts;
  readonly #fetches = new Turns(FETCHES);
  readonly #ahead: Turns;
  readonly #sameName = new Chains();
  readonly #archives = new Map<string, SharedArchive>();
  readonly #layers = new Map<string, Promise<Ingested>>();
  /** Why nothing more is begun. */
  #stop: BurrowError | undefined;

  constructor(ports: PreloadPorts, jobs: number) {
    this.#ports = ports;
    this.#ahead = new Turns(jobs + AHEAD);
  }

  /**
   * Has a layer in the store for each package of a list: the list with the sha256 of each, or undefined when one of them failed,
   * which onEvent heard of. Lists may be done at once: what they share is done once.
   */
  async load(list: PackageList): Promise<ExplicitPackage[] | undefined> {
    const python = this.#pythonOf(list);
    python.catch(() => undefined);
    const done = await Promise.all(
      list.items.map(async (item) => {
        try {
          const { sha256 } = await this.#one(item, list.prefix, python);
          return { ...item, sha256 };
        } catch (error) {
          this.#ports.onEvent({ event: "failed", item, error });
          if (error instanceof BurrowError && error.code === "BURROW_NO_SPACE")
            this.#stop ??= error;
          return undefined;
        }
      }),
    );
    const items = done.filter((item) => item !== undefined);
    return items.length === list.items.length ? items : undefined;
  }

  /** The Python of a list: known of the store, or read out of its archive, so that the others need not wait for its layer. */
  async #pythonOf({
    items,
    prefix,
    pythonVersion,
  }: PackageList): Promise<PythonTarget | undefined> {
    if (pythonVersion !== undefined) return pythonTarget(pythonVersion);
    const item = items.find(isPython);
    if (item === undefined) return undefined;
    const found = await this.#known(item, prefix, undefined);
    if (found !== undefined) return pythonTarget(found.facts.version, found.facts.sitePackages);
    const { python } = await this.#withArchive(item, (archive) => this.#inspect(item, archive));
    return python;
  }

  async #one(
    item: ExplicitPackage,
    prefix: string,
    list: Promise<PythonTarget | undefined>,
  ): Promise<Done> {
    const python = isPython(item) ? undefined : await list.catch(() => "none" as const);
    if (python === "none") {
      const why = "it was not tried: the Python of its list can't be had";
      throw new BurrowError("BURROW_BAD_LOCK", why);
    }
    const found = await this.#known(item, prefix, python);
    if (found !== undefined) return this.#present(item, found);
    return await this.#withArchive(item, async (archive) => {
      const sha256 = item.sha256 ?? (await this.#inspect(item, archive)).sha256;
      const exact = { ...item, sha256 };
      const late = item.sha256 ? undefined : await this.#known(exact, prefix, python);
      if (late !== undefined) {
        await this.#noteMd5(item, prefix, python, late.layer, late.facts);
        return this.#present(item, late);
      }
      await this.#ingest(item, exact, archive, prefix, python);
      return { sha256 };
    });
  }

  #present(item: ExplicitPackage, { layer, facts }: { layer: Digest; facts: PackageFacts }): Done {
    this.#ports.onEvent({ event: "present", item, layer });
    return { sha256: facts.sha256 };
  }

  /** The layer of a package that the store has. */
  async #known(item: ExplicitPackage, prefix: string, python: PythonTarget | undefined) {
    const hash = item.sha256 ?? (item.md5 === undefined ? undefined : `md5:${item.md5}`);
    if (hash === undefined) return undefined;
    return await this.#ports.find(packageKey(item, hash, prefix, python));
  }

  /** For lists that know no sha256: what was once compared with the md5 need not be fetched to know its sha256. */
  async #noteMd5(
    item: ExplicitPackage,
    prefix: string,
    python: PythonTarget | undefined,
    layer: Digest,
    facts: PackageFacts,
  ): Promise<void> {
    if (item.sha256 !== undefined || item.md5 === undefined) return;
    await this.#ports.note(packageKey(item, `md5:${item.md5}`, prefix, python), layer, facts);
  }

  /** Makes a layer, unless another list is making the same. */
  async #ingest(
    item: ExplicitPackage,
    exact: ExplicitPackage & { readonly sha256: string },
    { path, bytes }: FetchedArchive,
    prefix: string,
    python: PythonTarget | undefined,
  ): Promise<void> {
    const key = packageKey(exact, exact.sha256, prefix, python);
    const id = JSON.stringify(key);
    const { pool, note, onEvent } = this.#ports;
    const running = this.#layers.get(id);
    if (running !== undefined) {
      this.#present(item, await running);
      return;
    }
    // Builds of one package share most files, and two workers at once would each store them.
    const name = distOf(item.url)?.name ?? item.url;
    const made = this.#sameName.run(name, async () => {
      if (this.#stop !== undefined) throw this.#given();
      const job = { kind: "ingest", path, item: exact, prefix, python } as const;
      const onProgress = (progress: JobProgress) =>
        onEvent({ ...progress, event: "ingesting", item });
      const result = await pool.run(job, bytes, onProgress);
      await note(key, result.layer, result.facts);
      pool.learn(result.layer);
      return result;
    });
    this.#layers.set(id, made);
    // Not remembered: it may have been the archive, which is then fetched anew.
    made.catch(() => this.#layers.delete(id));
    const result = await made;
    await this.#noteMd5(item, prefix, python, result.layer, result.facts);
    onEvent({ ...result, event: "ingested", item });
  }

  async #inspect(item: ExplicitPackage, { path }: FetchedArchive): Promise<Inspected> {
    return await this.#ports.pool.run({ kind: "inspect", path, item }, 0);
  }

  /** Does work with an archive, which is fetched once for all who want it; one that was wrong and not fresh is fetched anew. */
  async #withArchive<T>(
    item: ExplicitPackage,
    work: (archive: FetchedArchive) => Promise<T>,
  ): Promise<T> {
    for (;;) {
      const shared = this.#archive(item);
      shared.users++;
      let archive: FetchedArchive | undefined;
      let isWrong = false;
      try {
        archive = await shared.fetched;
        return await work(archive);
      } catch (error) {
        isWrong = error instanceof BurrowError && error.code === "BURROW_DIGEST_MISMATCH";
        if (isWrong) this.#forget(item, shared);
        if (!isWrong || archive === undefined || archive.isFresh) throw error;
      } finally {
        if (--shared.users === 0 || isWrong) this.#forget(item, shared);
        if (shared.users === 0 && archive !== undefined) {
          if (item.path === undefined) this.#ports.release(archive, isWrong);
          if (!isPython(item)) this.#ahead.leave();
        }
      }
    }
  }

  #forget(item: ExplicitPackage, shared: SharedArchive): void {
    const id = archiveId(item);
    if (this.#archives.get(id) === shared) this.#archives.delete(id);
  }

  #archive(item: ExplicitPackage): SharedArchive {
    const id = archiveId(item);
    let shared = this.#archives.get(id);
    if (shared === undefined) {
      shared = { fetched: this.#fetch(item), users: 0 };
      this.#archives.set(id, shared);
    }
    return shared;
  }

  async #fetch(item: ExplicitPackage): Promise<FetchedArchive> {
    const { fetch, onEvent } = this.#ports;
    // All may be waiting for the Python: it waits for none.
    if (!isPython(item)) await this.#ahead.enter();
    await this.#fetches.enter();
    try {
      if (this.#stop !== undefined) throw this.#given();
      const archive = await fetch(item, (bytes) => onEvent({ event: "fetching", item, bytes }));
      onEvent({ event: "fetched", item, archive });
      return archive;
    } catch (error) {
      if (!isPython(item)) this.#ahead.leave();
      throw error;
    } finally {
      this.#fetches.leave();
    }
  }

  #given(): BurrowError {
    return new BurrowError("BURROW_IO", "it was not tried: the disk is full", {
      cause: this.#stop,
    });
  }
}

/** What archives are the same by: their hash, else where they are. */
function archiveId({ sha256, md5, url, path }: ExplicitPackage): string {
  return sha256 ?? `${md5 ?? ""} ${path ?? url}`;
}

/** How people know a package and where it comes from: without passwords and tokens. */
export function labelOf(item: ExplicitPackage): { name: string; source: string } {
  return { name: nameOfArchive(item.path ?? item.url), source: item.path ?? plainUrl(item.url) };
}
