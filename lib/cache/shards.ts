// Shards: the folders between a folder of the cache and its files (blobs/ab). One that is missing, or something else has the name of, is
// made when a file needs it, and fsynced behind the answers, and all else. Control plane.

import fs from "node:fs";
import { makeFolderBy } from "../store/folder.ts";
import { ioError } from "../store/node-error.ts";
import { Calls } from "../sys/calls.ts";
import type { Disk } from "./disk.ts";

/** A gofer in a user namespace must be able to look things up. */
export const FOLDER_MODE = 0o755;

export class Shards {
  readonly #disk: Disk;
  /** There, as far as we know. */
  readonly #known = new Set<string>();
  readonly #unsynced = new Set<string>();
  #isSyncing = false;

  constructor(disk: Disk) {
    this.#disk = disk;
  }

  isKnown(shard: string): boolean {
    return this.#known.has(shard);
  }

  /** Makes one, in the place of whatever else has its name. BURROW_IO, BURROW_NO_SPACE. */
  async make(shard: string): Promise<void> {
    try {
      await this.#disk.run("write", () => makeShard(shard));
    } catch (error) {
      throw ioError("can't make a folder of the cache", shard, error);
    }
    this.#known.add(shard);
  }

  /** Has one made durable, some time: a name that a power cut takes costs a fetch, not a wrong byte. */
  sync(shard: string): void {
    this.#unsynced.add(shard);
    void this.#syncAll();
  }

  async #syncAll(): Promise<void> {
    if (this.#isSyncing) return;
    this.#isSyncing = true;
    while (this.#unsynced.size > 0) {
      const shards = [...this.#unsynced];
      this.#unsynced.clear();
      await Promise.all(shards.map((shard) => syncFolder(this.#disk, shard)));
    }
    this.#isSyncing = false;
  }
}

/** Names of the shards in a folder of a cache, in order. */
export function shardNames(folder: string): string[] {
  return fs
    .readdirSync(folder, { withFileTypes: true })
    .filter((dirent) => dirent.isDirectory() && /^[0-9a-f]{2}$/.test(dirent.name))
    .map(({ name }) => name)
    .sort();
}

async function makeShard(path: string): Promise<void> {
  const calls = new Calls();
  calls.mkdir(path, FOLDER_MODE);
  const fd = { at: calls.open(path, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY) };
  // Whatever the umask.
  const moded = calls.fchmod(fd, FOLDER_MODE);
  calls.always(() => calls.close(fd));
  if ((await calls.run())[moded]! < 0) await makeAnew(path);
}

/** Where something has the name, or a folder is missing before it. */
async function makeAnew(path: string): Promise<void> {
  const { lstat, rm, chmod } = fs.promises;
  const stat = await lstat(path).catch(() => undefined);
  if (stat?.isDirectory() === true) return;
  await rm(path, { force: true });
  await makeFolderBy(fs.promises, path);
  await chmod(path, FOLDER_MODE);
}

async function syncFolder(disk: Disk, path: string): Promise<void> {
  const calls = new Calls();
  const fd = { at: calls.open(path, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY) };
  calls.fsync(fd);
  calls.always(() => calls.close(fd));
  // Evicted or made suspect meanwhile: there is nothing to make durable.
  const options = { isPatient: true, behind: path };
  await disk.run("write", () => calls.run(), options).catch(() => undefined);
}
