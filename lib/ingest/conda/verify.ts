// Hashes of a whole archive, taken and compared before a byte of it is believed. Control plane.

import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { basename } from "node:path";
import { BurrowError } from "../../base/error.ts";
import { Spare } from "../spare.ts";
import { readError } from "./errors.ts";

/** What a lock or a channel says of an archive; hex. */
export interface Expected {
  readonly sha256?: string;
  readonly md5?: string;
  readonly size?: number;
}

export interface ArchiveHashes {
  readonly sha256: string;
  readonly md5: string;
  readonly size: number;
}

const READ_BYTES = 1 << 20;
const buffers = new Spare(READ_BYTES);

/** Opens an archive. BURROW_NOT_FOUND or BURROW_IO, naming it, when that fails; BURROW_BAD_ARCHIVE when it is no plain file. */
export async function openArchive(path: string, name: string): Promise<FileHandle> {
  let file: FileHandle;
  try {
    // A FIFO would be waited for, and not even a signal ends a process that is in open(2).
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw readError(cause, name);
  }
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw new BurrowError("BURROW_BAD_ARCHIVE", "it is no plain file", {
    context: { package: name },
  });
}

/** The hashes of the archive at `path`: see hashArchive. */
export async function checkArchive(path: string, expected: Expected = {}): Promise<ArchiveHashes> {
  const name = basename(path);
  await using file = await openArchive(path, name);
  return await hashArchive(file, name, expected);
}

/** The hashes of an open archive. BURROW_DIGEST_MISMATCH when it is not what was expected. */
export async function hashArchive(
  file: FileHandle,
  name: string,
  expected: Expected = {},
): Promise<ArchiveHashes> {
  const sha256 = createHash("sha256");
  // Old tools know packages by nothing else, so their record has it whether a lock did or not.
  const md5 = createHash("md5");
  let size = 0;
  const buffer = buffers.take();
  try {
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, READ_BYTES, size);
      if (bytesRead === 0) break;
      const bytes = buffer.subarray(0, bytesRead);
      sha256.update(bytes);
      md5.update(bytes);
      size += bytesRead;
    }
    buffers.give(buffer);
  } catch (cause) {
    throw readError(cause, name);
  }
  const hashes = { sha256: sha256.digest("hex"), md5: md5.digest("hex"), size };
  for (const key of ["size", "sha256", "md5"] as const) {
    const given = expected[key];
    const want = typeof given === "string" ? given.toLowerCase() : given;
    const got = hashes[key];
    if (want === undefined || got === want) continue;
    throw new BurrowError("BURROW_DIGEST_MISMATCH", `the archive's ${key} is not as expected`, {
      context: { package: name, expected: want, got },
    });
  }
  return hashes;
}
