// Names of a folder of a cache, through its disk's queue and some at a time: to make all names of a large folder out of one listing would
// hold the loop for 10 ms and more. Control plane.

import fs from "node:fs";
import { errnoOf } from "../store/node-error.ts";
import type { Disk } from "./disk.ts";

/** Names that come at once, less than a millisecond for whoever comes next. */
export const BATCH_FILES = 256;

/** What is in a folder, in as many lists as it takes; of an empty one an empty list, of one that isn't there none. Throws as the disk does. */
export async function* namesIn(disk: Disk, path: string): AsyncGenerator<string[], void, void> {
  const folder = await opened(disk, path);
  if (folder === undefined) return;
  try {
    let names = await disk.run("walk", () => someOf(folder));
    do {
      yield names;
      if (names.length < BATCH_FILES) return;
      names = await disk.run("walk", () => someOf(folder));
    } while (names.length > 0);
  } finally {
    // Not awaited: where the disk hangs it is closed when what hangs has ended.
    folder.close().catch(() => undefined);
  }
}

async function opened(disk: Disk, path: string): Promise<fs.Dir | undefined> {
  const open = () => fs.promises.opendir(path, { bufferSize: BATCH_FILES });
  const close = (folder: fs.Dir) => void folder.close().catch(() => undefined);
  try {
    return await disk.run("walk", open, {}, close);
  } catch (error) {
    if (errnoOf(error).code === "ENOENT") return undefined;
    throw error;
  }
}

async function someOf(folder: fs.Dir): Promise<string[]> {
  const names: string[] = [];
  while (names.length < BATCH_FILES) {
    const entry = await folder.read();
    if (entry === null) break;
    names.push(entry.name);
  }
  return names;
}
