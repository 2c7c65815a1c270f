// LazyFiles: large blobs that are on their way to this node, as files that are whole to look at: what is read of them is fetched and
// verified first. To the fetcher they are one more that asks for blocks. Control plane.

import { randomBytes } from "node:crypto";
import fs from "node:fs";
import type { Digest } from "../base/digest.ts";
import { Errno, fromNode, MISS } from "../base/errno.ts";
import { BLOCK_BYTES } from "../base/limits.ts";
import type { CacheDirectory } from "../cache/directory.ts";
import type { FetchAnswer, Fetcher } from "../cache/fetcher.ts";
import { AnswerState } from "../cache/mailbox-wire.ts";
import { keyOfBlocks, type Source } from "../cache/pieces.ts";
import { openRegular } from "../cache/regular-file.ts";
import { type NodeFacts, ROOT_NODE } from "../wire/fuse/message.ts";
import type { FuseFiles } from "./fuse-session.ts";
import type { Held, HeldFile } from "./lazy-holder.ts";

const FILE_MODE = 0o100444;
const NONE = new Uint8Array(0);

/** Opens the snapshot of an origin. */
export type OpenSource = (of: { snapshot: Digest; origin: string }) => Promise<Source>;

export interface LazyCounters {
  /** Blobs that were given out as lazy files. */
  files: number;
  reads: number;
  failedReads: number;
  readBytes: number;
}

interface LazyFile extends NodeFacts {
  readonly name: string;
  readonly digest: Digest;
  readonly snapshot: Digest;
  readonly origin: string;
  readonly row: number;
  readonly key: string;
  /** Undefined of one that was taken over, until it is read. */
  source: Source | undefined;
  /** Times the kernel was told of it, less those it took back. */
  lookups: number;
  /** Of the partial file by `partialName`, or of the whole blob; -1 before anything was read. */
  fd: number;
  partialName: string;
  isWhole: boolean;
  /** By block: 1 if it is in the partial file. */
  present: Uint8Array;
}

export class LazyFiles implements FuseFiles {
  readonly counters: LazyCounters = { files: 0, reads: 0, failedReads: 0, readBytes: 0 };
  readonly #cache: CacheDirectory;
  readonly #fetcher: Pick<Fetcher, "ask">;
  readonly #open: OpenSource;
  /** Of this mount: one that is gone may still seem to have the names that it had. */
  suffix = randomBytes(4).toString("hex");
  readonly #byName = new Map<string, LazyFile>();
  readonly #byKey = new Map<string, LazyFile>();
  readonly #byNode = new Map<number, LazyFile>();
  #nextNode = ROOT_NODE + 1;

  constructor(cache: CacheDirectory, fetcher: Pick<Fetcher, "ask">, open: OpenSource) {
    this.#cache = cache;
    this.#fetcher = fetcher;
    this.#open = open;
  }

  /** Files that the kernel, or who was promised one, may still ask for. */
  get size(): number {
    return this.#byNode.size;
  }

  /** All of them. */
  held(): HeldFile[] {
    return [...this.#byNode.values()].map(heldOf);
  }

  /** The name of a blob that is a file already, for readers of one origin whose indexes say the same of it. */
  nameOf(source: Source, row: number): string | undefined {
    return this.#byKey.get(keyOf(source, row))?.name;
  }

  /**
   * Makes a blob a file: its name. It is there until the kernel has looked it up and forgotten it again. `note` hears of it first; if it
   * throws, there is no file.
   */
  add(source: Source, row: number, note: (file: HeldFile) => void): string {
    const digest = source.table.digestAt(row);
    const { snapshot, origin } = source;
    const node = this.#nextNode;
    const name = `${digest}.${node.toString(16)}.${this.suffix}`;
    const held = {
      name,
      node,
      key: keyOf(source, row),
      snapshot,
      origin,
      row,
      size: source.table.sizeOf(row),
    };
    note(held);
    this.#insert(held, 0).source = source;
    this.counters.files++;
    return name;
  }

  /** Takes over what another daemon had given out. How often the kernel was told of them nobody knows: they stay. */
  takeOver({ suffix, files }: Pick<Held, "suffix" | "files">): void {
    this.suffix = suffix;
    for (const file of files) this.#insert(file, Number.POSITIVE_INFINITY);
  }

  #insert(held: HeldFile, lookups: number): LazyFile {
    const file: LazyFile = {
      ...held,
      mode: FILE_MODE,
      digest: held.name.slice(0, 64) as Digest,
      snapshot: held.snapshot as Digest,
      source: undefined,
      lookups,
      fd: -1,
      partialName: "",
      isWhole: false,
      present: NONE,
    };
    this.#byName.set(file.name, file);
    this.#byKey.set(file.key, file);
    this.#byNode.set(file.node, file);
    this.#nextNode = Math.max(this.#nextNode, file.node + 1);
    return file;
  }

  lookup(name: string): NodeFacts | undefined {
    const file = this.#byName.get(name);
    if (file !== undefined) file.lookups++;
    return file;
  }

  facts(node: number): NodeFacts | undefined {
    return this.#byNode.get(node);
  }

  forget(node: number, lookups: number): void {
    const file = this.#byNode.get(node);
    if (file === undefined) return;
    file.lookups -= lookups;
    if (file.lookups <= 0) this.#drop(file);
  }

  read(node: number, offset: number, out: Uint8Array): number {
    const file = this.#byNode.get(node);
    if (file === undefined) return -Errno.ENOENT;
    const end = Math.min(file.size, offset + out.length);
    if (absentBlock(file, offset, end) >= 0) return MISS;
    const got = readAll(file.fd, offset, out.subarray(0, Math.max(0, end - offset)));
    this.counters.reads++;
    if (got < 0) this.counters.failedReads++;
    else this.counters.readBytes += got;
    return got;
  }

  async fetch(node: number, offset: number, length: number): Promise<number> {
    const file = this.#byNode.get(node);
    const errno = file === undefined ? Errno.EIO : await this.#bring(file, offset, length);
    if (errno === 0) return 0;
    this.counters.reads++;
    this.counters.failedReads++;
    // ENOSPC or ETIMEDOUT would be news of the node; that an object is another by now is news of the file.
    return errno === Errno.ESTALE ? -Errno.ESTALE : -Errno.EIO;
  }

  /** 0 or an errno. */
  async #bring(file: LazyFile, offset: number, length: number): Promise<number> {
    const source = await this.#sourceOf(file);
    const end = Math.min(file.size, offset + length);
    const first = absentBlock(file, offset, end);
    if (first < 0) return 0;
    if (source === undefined) return Errno.EIO;
    const count = Math.ceil(end / BLOCK_BYTES) - first;
    const answer = await this.#fetcher.ask(source, file.row, first, count);
    if (answer.errno !== 0) return answer.errno;
    return this.#learn(file, first, count, answer) ? 0 : Errno.EIO;
  }

  /** What a file is of: undefined if that can't be had, or is something else by now. */
  async #sourceOf(file: LazyFile): Promise<Source | undefined> {
    if (file.source !== undefined) return file.source;
    try {
      const source = await this.#open(file);
      const { row, digest } = file;
      if (row < source.table.count && source.table.digestAt(row) === digest) file.source = source;
    } catch {
      // The next read tries again.
    }
    return file.source;
  }

  /** Takes all back. */
  close(): void {
    for (const file of [...this.#byNode.values()]) this.#drop(file);
  }

  /** Opens what an answer names and notes the blocks: false if it can't be read. A file that is gone by now brings no block. */
  #learn(file: LazyFile, first: number, count: number, answer: FetchAnswer): boolean {
    const { state, name, hostFd } = answer;
    const isTaken = this.#byNode.get(file.node) === file; // else taken back meanwhile
    const isWhole = state === AnswerState.complete || state === AnswerState.completeHere;
    if (hostFd >= 0 && (!isTaken || (!isWhole && name === file.partialName))) fs.closeSync(hostFd);
    if (!isTaken) return false;
    try {
      if (isWhole || name !== file.partialName) {
        const path = isWhole
          ? this.#cache.path("blobs", file.digest)
          : `${this.#cache.root}/partial/${name}`;
        const fd = hostFd >= 0 ? hostFd : openRegular(path);
        closeFile(file);
        file.fd = fd;
        file.isWhole = isWhole;
        file.partialName = name;
        file.present = isWhole ? NONE : new Uint8Array(Math.ceil(file.size / BLOCK_BYTES));
      }
    } catch (error) {
      // Evicted since, or just being evicted: fcntl(2) has EAGAIN for who opens a file with a lease. It is asked for again.
      return [-Errno.ENOENT, -Errno.EAGAIN].includes(fromNode(error));
    }
    if (!isWhole) file.present.fill(1, first, first + count);
    return true;
  }

  #drop(file: LazyFile): void {
    closeFile(file);
    this.#byNode.delete(file.node);
    this.#byName.delete(file.name);
    if (this.#byKey.get(file.key) === file) this.#byKey.delete(file.key);
  }
}

function heldOf({ name, node, key, snapshot, origin, row, size }: LazyFile): HeldFile {
  return { name, node, key, snapshot, origin, row, size };
}

/** One file for all who may share it: what its first reader's origin does is felt by all. */
function keyOf(source: Source, row: number): string {
  return `${keyOfBlocks(source, row)} ${source.origin}`;
}

/** The first block of a range that isn't known to be here, or -1. */
function absentBlock(file: LazyFile, offset: number, end: number): number {
  if (file.isWhole) return -1;
  for (let block = Math.floor(offset / BLOCK_BYTES); block * BLOCK_BYTES < end; block++) {
    if (file.present[block] !== 1) return block;
  }
  return -1;
}

function closeFile(file: LazyFile): void {
  if (file.fd >= 0) fs.closeSync(file.fd);
  file.fd = -1;
}

/** Reads exactly out.length bytes, or -errno: fewer means that the file is shorter than when it was verified. */
function readAll(fd: number, offset: number, out: Uint8Array): number {
  try {
    for (let done = 0; done < out.length; ) {
      const got = fs.readSync(fd, out, done, out.length - done, offset + done);
      if (got === 0) return -Errno.EIO;
      done += got;
    }
    return out.length;
  } catch (error) {
    return fromNode(error);
  }
}
