// Packages: archives on their way into a store: CACHE/packages keeps what a killed command had downloaded, for the next to go on
// with, and other tools' package caches are looked in, which are only ever read. Control plane.

import { createHash } from "node:crypto";
import { lstatSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { nameOfArchive } from "../ingest/conda/dist.ts";
import type { ExplicitPackage } from "../ingest/conda/explicit.ts";
import type { FetchedArchive } from "../preload/preloader.ts";
import { makeFolder } from "../store/folder.ts";
import { hasEnded, ownOwner } from "../sys/owner.ts";
import { download } from "./download.ts";

/** In a cache directory. Files are HASH.part@OWNER and HASH.whole@OWNER. */
const FOLDER = "packages";
const FILE = /^([0-9a-z-]+)\.(part|whole)@(.+)$/;
/** What nobody came back for is dropped after this long. */
const KEEP_MS = 7 * 24 * 3600 * 1000;

export class Packages {
  readonly #folder: string;
  readonly #others: readonly string[];
  readonly #owner = ownOwner();
  /** Files of others that were not what they should be. */
  readonly #wrong = new Set<string>();

  /** `others`: folders of package archives that are read and never written, such as conda's pkgs. */
  constructor(cache: string, others: readonly string[]) {
    this.#folder = join(cache, FOLDER);
    this.#others = others;
    makeFolder(this.#folder, 0o755);
    for (const { name, hash, isLeft } of this.#files()) {
      const path = join(this.#folder, name);
      const ageMs = Date.now() - (lstatSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Infinity);
      // What has no hash can't be told from another file of its URL.
      if (isLeft && (hash.startsWith("url-") || ageMs > KEEP_MS)) rmSync(path, { force: true });
    }
  }

  /** The archive of an item: its own file, one that is here already, or downloaded. See download. */
  async fetch(item: ExplicitPackage, onBytes: (bytes: number) => void): Promise<FetchedArchive> {
    const local = item.path ?? this.#ofOthers(item);
    if (local !== undefined) {
      const bytes = statSync(local, { throwIfNoEntry: false })?.size ?? 0;
      return { path: local, bytes, fetchedBytes: 0, isFresh: item.path !== undefined };
    }
    const hash = hashOf(item);
    const whole = join(this.#folder, `${hash}.whole@${this.#owner}`);
    const part = join(this.#folder, `${hash}.part@${this.#owner}`);
    this.#adopt(hash);
    const had = statSync(whole, { throwIfNoEntry: false });
    if (had !== undefined) {
      return { path: whole, bytes: had.size, fetchedBytes: 0, isFresh: false };
    }
    const from = statSync(part, { throwIfNoEntry: false })?.size ?? 0;
    const size = item.size === undefined ? {} : { size: item.size };
    const resume = !hash.startsWith("url-");
    await download(item.url, this.#folder, { path: part, resume, onBytes, ...size });
    renameSync(part, whole);
    const bytes = statSync(whole).size;
    return { path: whole, bytes, fetchedBytes: Math.max(0, bytes - from), isFresh: from === 0 };
  }

  /** Gives up an archive that fetch gave; one of others is passed over from now on when it is wrong. */
  release({ path }: FetchedArchive, isWrong: boolean): void {
    if (path.startsWith(`${this.#folder}/`)) rmSync(path, { force: true });
    else if (isWrong) this.#wrong.add(path);
  }

  /** Removes all that live commands don't need: files and bytes. */
  clear(): { files: number; bytes: number } {
    const removed = { files: 0, bytes: 0 };
    for (const { name, isLeft } of this.#files()) {
      const path = join(this.#folder, name);
      const facts = lstatSync(path, { throwIfNoEntry: false });
      if (!isLeft || facts === undefined) continue;
      rmSync(path, { force: true });
      removed.files++;
      removed.bytes += facts.size;
    }
    return removed;
  }

  /** Takes over what a command that has ended left of an archive. Of several commands one gets it. */
  #adopt(hash: string): void {
    const left = this.#files().filter((file) => file.hash === hash && file.isLeft);
    for (const { name, kind } of left.sort((a, b) => (a.kind < b.kind ? 1 : -1))) {
      const own = join(this.#folder, `${hash}.${kind}@${this.#owner}`);
      if (statSync(own, { throwIfNoEntry: false }) !== undefined) continue;
      try {
        renameSync(join(this.#folder, name), own);
        return;
      } catch {} // another command was faster
    }
  }

  #files(): { name: string; hash: string; kind: string; isLeft: boolean }[] {
    return readdirSync(this.#folder).flatMap((name) => {
      const [, hash, kind, owner] = FILE.exec(name) ?? [];
      if (hash === undefined || kind === undefined || owner === undefined) return [];
      return [{ name, hash, kind, isLeft: hasEnded(owner) }];
    });
  }

  /** A file of another cache that may be the archive: only of what has a hash to tell by. */
  #ofOthers(item: ExplicitPackage): string | undefined {
    if (item.sha256 === undefined && item.md5 === undefined) return undefined;
    const name = nameOfArchive(item.url);
    const subdir = new URL(item.url).pathname.split("/").at(-2) ?? "";
    for (const folder of this.#others) {
      for (const path of [join(folder, name), join(folder, subdir, name)]) {
        const facts = statSync(path, { throwIfNoEntry: false });
        const isLikely = item.size === undefined || facts?.size === item.size;
        if (facts?.isFile() && isLikely && !this.#wrong.has(path)) return path;
      }
    }
    return undefined;
  }
}

function hashOf({ sha256, md5, url }: ExplicitPackage): string {
  if (sha256 !== undefined) return sha256;
  if (md5 !== undefined) return `md5-${md5}`;
  return `url-${createHash("sha256").update(url).digest("hex")}`;
}
