// Reading files of a cache directory that may be something else by now: a FIFO would be waited for, a symlink followed, a device
// read without an end. Control plane.

import fs from "node:fs";
import { BurrowError } from "../base/error.ts";
import { errnoOf } from "../store/node-error.ts";
import { WHOLE_MAX_BYTES } from "../store/store.ts";

/** Non-blocking means nothing to a regular file. man open(2). */
const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = fs.constants;

/**
 * Opens a regular file for reading, waiting for nothing and following no symlink as its last component: its FD, the caller's.
 * Throws the system's error, or BURROW_IO for anything that is no regular file.
 */
export function openRegular(path: string): number {
  const fd = openNow(path);
  try {
    if (fs.fstatSync(fd).isFile()) return fd;
    throw new BurrowError("BURROW_IO", "no regular file", { context: { path } });
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
}

/** A file that a daemon is evicting has a lease on it for some microseconds. */
const OPEN_TRIES = 16;

function openNow(path: string): number {
  for (let tries = 1; ; tries++) {
    try {
      return fs.openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    } catch (error) {
      if (errnoOf(error).code !== "EAGAIN" || tries >= OPEN_TRIES) throw error;
    }
  }
}

/** The bytes of a regular file as openRegular takes it; BURROW_IO past maxBytes. */
export function readRegular(path: string, maxBytes: number = WHOLE_MAX_BYTES): Buffer {
  const fd = openRegular(path);
  try {
    const { size } = fs.fstatSync(fd);
    if (size > maxBytes) {
      throw new BurrowError("BURROW_IO", `larger than ${maxBytes} bytes`, { context: { path } });
    }
    return fs.readFileSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/** Whether a path is a regular file itself. */
export function isRegularFile(path: string): boolean {
  return fs.lstatSync(path, { throwIfNoEntry: false })?.isFile() === true;
}
