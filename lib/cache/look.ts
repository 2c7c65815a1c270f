// Looking at files of a cache through its disk's queue: a whole look is one crossing to another thread. Control plane.

import fs from "node:fs";
import type { Digest } from "../base/digest.ts";
import { Errno, errnoName } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { S_IFMT, S_IFREG } from "../base/file-types.ts";
import { ioError } from "../store/node-error.ts";
import { WHOLE_MAX_BYTES } from "../store/store.ts";
import { Turnstile } from "../store/turnstile.ts";
import { Calls, FACTS, Fact, type FdOf, type Place, type Results } from "../sys/calls.ts";
import type { Disk } from "./disk.ts";
import { type CacheFolder, cachePath } from "./layout.ts";
import { saysSealed } from "./seal.ts";

const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = fs.constants;
/** Non-blocking means nothing to a regular file. man open(2). */
const READ = O_RDONLY | O_NOFOLLOW | O_NONBLOCK;
/** A file that is being evicted has a lease on it for some microseconds. */
const OPEN_TRIES = 16;

/** What a look at a file of the cache says. */
export type FileState = "sealed" | "broken" | "missing";

export interface Looked {
  readonly folder: CacheFolder;
  readonly digest: Digest;
  /** -1: any. */
  readonly size: number;
}

/** Whether an errno says that nothing is there. */
export function isAbsence(errno: number): boolean {
  return errno === Errno.ENOENT || errno === Errno.ENOTDIR;
}

/** At most so many files are looked at in one go: to ask for one and to hear of it takes the loop 11 us. */
const BATCH_FILES = 128;

interface Batch {
  readonly files: Looked[];
  readonly states: Promise<FileState[]>;
}

/** Looks that come while one is under way are made together, by one crossing, when it has ended; who asked goes on a few in a turn. */
export class Looks {
  readonly #asked = new Turnstile();
  readonly #disk: Disk;
  readonly #root: string;
  /** Who comes joins it. */
  #next: Batch | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(disk: Disk, root: string) {
    this.#disk = disk;
    this.#root = root;
  }

  /** Looks at each by an open and fstat. BURROW_IO (ETIMEDOUT) when the disk hangs. */
  async at(files: readonly Looked[]): Promise<FileState[]> {
    if (files.length <= BATCH_FILES) return await this.#together(files);
    const states: FileState[] = [];
    for (let from = 0; from < files.length; from += BATCH_FILES)
      states.push(...(await this.#together(files.slice(from, from + BATCH_FILES))));
    return states;
  }

  async #together(files: readonly Looked[]): Promise<FileState[]> {
    const next = this.#next;
    const hasPlace = next !== undefined && next.files.length + files.length <= BATCH_FILES;
    const batch = hasPlace ? next : this.#begin();
    const first = batch.files.length;
    batch.files.push(...files);
    const states = await batch.states;
    await this.#asked.pass();
    return states.slice(first, first + files.length);
  }

  #begin(): Batch {
    const files: Looked[] = [];
    const states = this.#last.then(() => {
      if (this.#next === batch) this.#next = undefined;
      return lookAtFiles(this.#disk, this.#root, files);
    });
    const batch: Batch = { files, states };
    this.#next = batch;
    this.#last = states.catch(() => undefined);
    return batch;
  }
}

/** Looks at each by an open and fstat. BURROW_IO (ETIMEDOUT) when the disk hangs. */
async function lookAtFiles(
  disk: Disk,
  root: string,
  files: readonly Looked[],
): Promise<FileState[]> {
  const facts = files.map(() => new Float64Array(FACTS));
  let results: Results = new Float64Array(0);
  const opens: Place[] = [];
  for (let tries = 0; tries < OPEN_TRIES; tries++) {
    const calls = new Calls();
    opens.length = 0;
    for (const [i, { folder, digest }] of files.entries()) {
      calls.optional(() => opens.push(calls.open(cachePath(root, folder, digest), READ)));
      const at = opens[i]!;
      calls.needing(at, () => {
        calls.stat({ at }, facts[i]!);
        calls.close({ at });
      });
    }
    results = await disk.run("look", () => calls.run());
    if (!opens.some((at) => results[at] === -Errno.EAGAIN)) break;
  }
  return files.map(({ digest, size }, i) => {
    const opened = results[opens[i]!]!;
    if (opened < 0) return isAbsence(-opened) ? "missing" : "broken";
    return saysSealed(facts[i]!, digest, size) ? "sealed" : "broken";
  });
}

/** As openRegular: an FD, the caller's. Throws BURROW_IO. */
export async function openThrough(disk: Disk, path: string): Promise<number> {
  for (let tries = 1; ; tries++) {
    const facts = new Float64Array(FACTS);
    const calls = new Calls();
    const at = calls.open(path, READ);
    calls.needing(at, () => calls.stat({ at }, facts));
    const close = (fd: number) => {
      if (fd >= 0) void disk.close(fd);
    };
    const results = await disk.run(
      "look",
      () => calls.run(),
      {},
      (late) => close(late[at]!),
    );
    const fd = results[at]!;
    if (fd === -Errno.EAGAIN && tries < OPEN_TRIES) continue;
    const isFile = (facts[Fact.mode]! & S_IFMT) === S_IFREG;
    if (fd >= 0 && isFile) return fd;
    close(fd);
    const errno = fd < 0 ? -fd : Errno.EINVAL;
    const cause = new BurrowError("BURROW_IO", errnoName(errno), { errno });
    throw ioError("can't open a cached file", path, cause);
  }
}

/** What stat(2) says of an open file, by Fact. */
export async function statThrough(disk: Disk, fd: FdOf): Promise<Float64Array> {
  const facts = new Float64Array(FACTS);
  const calls = new Calls();
  calls.stat(fd, facts);
  await disk.run("look", () => calls.run());
  return facts;
}

/** How many bytes a regular file has. BURROW_IO. */
export async function sizeThrough(disk: Disk, path: string): Promise<number> {
  const fd = await openThrough(disk, path);
  try {
    return (await statThrough(disk, fd))[Fact.size]!;
  } finally {
    void disk.close(fd);
  }
}

/** As readRegular: the bytes of a regular file. BURROW_IO, also past maxBytes. */
export async function readThrough(
  disk: Disk,
  path: string,
  maxBytes: number = WHOLE_MAX_BYTES,
): Promise<Buffer> {
  const fd = await openThrough(disk, path);
  try {
    const bytes = (await statThrough(disk, fd))[Fact.size]!;
    if (bytes > maxBytes) {
      throw new BurrowError("BURROW_IO", `larger than ${maxBytes} bytes`, { context: { path } });
    }
    const out = Buffer.allocUnsafeSlow(bytes);
    const calls = new Calls();
    const at = calls.pread(fd, out, 0);
    const results = await disk.calls("look", calls, "can't read a cached file", path, { bytes });
    return out.subarray(0, results[at]!);
  } finally {
    void disk.close(fd);
  }
}

/** The bytes of a range of a regular file, fewer where it ends before; by one crossing. BURROW_IO. */
export async function readRange(
  disk: Disk,
  path: string,
  offset: number,
  length: number,
): Promise<Buffer> {
  const out = Buffer.allocUnsafeSlow(length);
  const calls = new Calls();
  const fd = { at: calls.open(path, READ) };
  const at = calls.pread(fd, out, offset);
  calls.always(() => calls.close(fd));
  const results = await disk.calls("look", calls, "can't read a cached file", path, {
    bytes: length,
  });
  return out.subarray(0, results[at]!);
}
