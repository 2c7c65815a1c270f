// The key of a node under which objects of buckets are named in its cache: made once, read by who lists a stage and by the daemon, and
// by nobody else. Without it the names are unknown, so nobody can ask for another's. docs/format/cache.md. Control plane.

import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { Errno } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { errnoOf, ioError } from "../store/node-error.ts";
import type { CacheDirectory } from "./directory.ts";
import type { Disk } from "./disk.ts";
import { readThrough } from "./look.ts";
import { readRegular } from "./regular-file.ts";

const STAGE_KEY = "stage.key";
const KEY_BYTES = 32;

/** The key of a cache. BURROW_NOT_FOUND where no stage was ever listed, BURROW_CORRUPT for a file that is none. */
function readStageKey(root: string): Buffer {
  const path = `${root}/${STAGE_KEY}`;
  try {
    return checked(readRegular(path, KEY_BYTES + 1), path);
  } catch (cause) {
    throw unreadable(cause, path);
  }
}

/** The same through a disk's queue. */
export async function stageKeyThrough(disk: Disk, root: string): Promise<Buffer> {
  const path = `${root}/${STAGE_KEY}`;
  try {
    return checked(await readThrough(disk, path, KEY_BYTES + 1), path);
  } catch (cause) {
    throw unreadable(cause, path);
  }
}

function checked(key: Buffer, path: string): Buffer {
  if (key.length === KEY_BYTES) return key;
  throw new BurrowError("BURROW_CORRUPT", "the cache's key for stages has another length", {
    context: { path },
  });
}

function unreadable(cause: unknown, path: string): BurrowError {
  const { code, errno } = cause instanceof BurrowError ? cause : errnoOf(cause);
  if (code === "BURROW_CORRUPT") return cause as BurrowError;
  if (errno !== Errno.ENOENT) return ioError("can't read the cache's key", path, cause);
  return new BurrowError("BURROW_NOT_FOUND", "the cache has no key for stages", {
    context: { path },
  });
}

/** The same, made when there is none: of several who make one at a time the first's counts. */
export function ensureStageKey({ root }: CacheDirectory): Buffer {
  try {
    return readStageKey(root);
  } catch (error) {
    if (!(error instanceof BurrowError) || error.class !== "notFound") throw error;
  }
  const aside = `${root}/tmp/key.${process.pid}.${randomBytes(8).toString("hex")}`;
  try {
    const options = { mode: 0o600, flag: "wx", flush: true } as fs.WriteFileOptions;
    fs.writeFileSync(aside, randomBytes(KEY_BYTES), options);
    fs.linkSync(aside, `${root}/${STAGE_KEY}`);
  } catch (cause) {
    if (errnoOf(cause).code !== "EEXIST")
      throw ioError("can't make the cache's key", `${root}/${STAGE_KEY}`, cause);
  } finally {
    fs.rmSync(aside, { force: true });
  }
  return readStageKey(root);
}
