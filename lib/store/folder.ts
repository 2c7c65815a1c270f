// Making folders. Node's recursive mkdir never comes back where the kernel says ENOENT below a folder that is there (/proc, some
// network mounts): here each folder is tried twice at most. Control plane.

import fs from "node:fs";
import { dirname } from "node:path";
import { errnoOf } from "./node-error.ts";

/** The calls that making folders takes: of node:fs, of memfs, or their promises. */
interface FolderCalls {
  mkdir(path: string): Promise<unknown>;
  stat(path: string): Promise<{ isDirectory(): boolean }>;
}

/** Makes a folder and those above it, as mkdir -p does: whether it was missing. Throws the kernel's error. */
export function makeFolder(path: string, mode: number): boolean {
  try {
    fs.mkdirSync(path, { mode });
    return true;
  } catch (error) {
    if (isThere(error) && fs.statSync(path).isDirectory()) return false;
    if (errnoOf(error).code !== "ENOENT" || dirname(path) === path) throw error;
  }
  makeFolder(dirname(path), mode);
  try {
    fs.mkdirSync(path, { mode });
  } catch (error) {
    if (!isThere(error)) throw error; // another process was faster
  }
  return true;
}

/** As makeFolder, for a folder that must be one itself: a symlink or whatever else has its name is removed, never followed. */
export function makeOwnFolder(path: string, mode: number): boolean {
  const isOther = () => fs.lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === false;
  try {
    if (isOther()) fs.unlinkSync(path);
  } catch (error) {
    // Another process may have been faster.
    if (isOther()) throw error;
  }
  return makeFolder(path, mode);
}

/** makeFolder through promises, with the mode that the umask leaves. */
export async function makeFolderBy(calls: FolderCalls, path: string): Promise<void> {
  try {
    await calls.mkdir(path);
    return;
  } catch (error) {
    if (isThere(error) && (await calls.stat(path)).isDirectory()) return;
    if (errnoOf(error).code !== "ENOENT" || dirname(path) === path) throw error;
  }
  await makeFolderBy(calls, dirname(path));
  try {
    await calls.mkdir(path);
  } catch (error) {
    if (!isThere(error)) throw error;
  }
}

function isThere(error: unknown): boolean {
  return errnoOf(error).code === "EEXIST";
}
