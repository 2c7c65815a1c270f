// What a cache stands on: its folders, its marker, and the note of the boot since which its blobs were verified. Read and written on
// this thread, before anything else is done with the cache. docs/format/cache.md. Control plane.

import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { BurrowError } from "../base/error.ts";
import { makeFolder, makeOwnFolder } from "../store/folder.ts";
import { formatOf } from "../store/layout.ts";
import { errnoOf } from "../store/node-error.ts";
import { BOOT_FILE, CACHE_FOLDERS, CACHE_FORMAT, CACHE_MARKER } from "./layout.ts";
import { isRegularFile, readRegular } from "./regular-file.ts";
import { FOLDER_MODE, shardNames } from "./shards.ts";
import { suspectShard } from "./suspects.ts";

/** Nothing is written for longer; after that a pid is taken for another process's. */
const WRITING_MAX_MS = 600_000;
const BOOT_ID = "/proc/sys/kernel/random/boot_id";
/** The marker and the boot file have some 40 bytes. */
const NOTE_MAX_BYTES = 4096;

/** Makes the folders and the marker of a cache, as far as they are missing. Throws the kernel's error. */
export function makeCache(root: string): void {
  makeOpenFolder(root);
  for (const folder of CACHE_FOLDERS) makeOpenFolder(`${root}/${folder}`, makeOwnFolder);
  const marker = `${root}/${CACHE_MARKER}`;
  // An empty one is no format's: a power cut took its text.
  if (isRegularFile(marker) && fs.statSync(marker).size > 0) return;
  const aside = `${root}/tmp/marker.${randomBytes(8).toString("hex")}`;
  writeNote(aside, `${JSON.stringify({ format: CACHE_FORMAT })}\n`, marker);
}

/** Throws BURROW_UNSUPPORTED for a cache of another format, and the kernel's error where there is none. */
export function checkMarker(root: string): void {
  const text = readRegular(`${root}/${CACHE_MARKER}`, NOTE_MAX_BYTES).toString();
  if (formatOf(text) === CACHE_FORMAT) return;
  throw new BurrowError("BURROW_UNSUPPORTED", "the cache has a format this program can't use", {
    context: { cache: root, marker: text.slice(0, 80) },
  });
}

/** Removes what a daemon that was killed had on its way; not what live processes write. */
export function clearLeftovers(root: string): void {
  emptyFolder(`${root}/partial`, () => true);
  emptyFolder(`${root}/tmp`, (path) => !isBeingWritten(path));
}

/** Whether the kernel was not booted since blobs/ was verified. */
export function isOfThisBoot(root: string): boolean {
  const path = `${root}/${BOOT_FILE}`;
  return isRegularFile(path) && readRegular(path, NOTE_MAX_BYTES).toString().trim() === bootId();
}

/** Moves every blob to suspect/, and notes this boot: last, so that after a kill the next daemon starts over. */
export function suspectAll(root: string): void {
  for (const shard of shardNames(`${root}/blobs`)) suspectShard(root, shard);
  writeNote(`${root}/tmp/boot`, `${bootId()}\n`, `${root}/${BOOT_FILE}`);
}

function bootId(): string {
  return fs.readFileSync(BOOT_ID, "utf8").trim();
}

/** Unlinks a file that may be gone, or what stands in its place. */
export function dropFile(path: string): void {
  try {
    fs.unlinkSync(path);
  } catch (error) {
    const { code } = errnoOf(error);
    if (code === "ENOENT" || code === "ENOTDIR") return;
    if (code !== "EISDIR") throw error;
    fs.rmSync(path, { force: true, recursive: true });
  }
}

/** Renames a file over another, or over a directory that has its name. */
function replace(aside: string, path: string): void {
  try {
    fs.renameSync(aside, path);
  } catch (error) {
    if (errnoOf(error).code !== "EISDIR") throw error;
    dropFile(path);
    fs.renameSync(aside, path);
  }
}

/** Writes a small file aside and gives it its name, durable before that: a power cut must not leave the name without the text. */
function writeNote(aside: string, text: string, path: string): void {
  fs.writeFileSync(aside, text, { mode: 0o644, flush: true });
  replace(aside, path);
}

/** The mode is set apart from mkdir, whose mode the umask cuts. */
function makeOpenFolder(path: string, make = makeFolder): void {
  if (make(path, FOLDER_MODE)) fs.chmodSync(path, FOLDER_MODE);
}

/** Removes what is in a folder of the cache and `goes`: in that folder alone, even if a symlink takes its place meanwhile. */
function emptyFolder(folder: string, goes: (path: string) => boolean): void {
  const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = fs.constants;
  const fd = fs.openSync(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  try {
    const own = `/proc/self/fd/${fd}`;
    for (const name of fs.readdirSync(own)) {
      const path = `${own}/${name}`;
      if (goes(path)) fs.rmSync(path, { force: true, recursive: true });
    }
  } finally {
    fs.closeSync(fd);
  }
}

/** Whether a file of tmp/ may belong to a live process: the CLI writes indexes while daemons come and go. */
function isBeingWritten(path: string): boolean {
  const pid = /\.(\d+)\.[0-9a-f]+$/.exec(path)?.[1];
  const stat = fs.statSync(path, { throwIfNoEntry: false });
  if (pid === undefined || stat === undefined || Number(pid) === process.pid) return false;
  return Date.now() - stat.mtimeMs < WRITING_MAX_MS && fs.existsSync(`/proc/${pid}`);
}
