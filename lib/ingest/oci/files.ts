// ImageFiles: the files of an image, wherever they lie: in a directory, or in an archive that is read in place. What is opened is a
// plain file of the image and no other, however the names and links lead. Control plane.

import { constants } from "node:fs";
import { type FileHandle, open, readlink, realpath } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { nameOf } from "../../base/name.ts";
import { badArchive, readError } from "../conda/errors.ts";
import { plainPath, Refusal } from "../entry-tree.ts";

export interface ImageFile extends AsyncDisposable {
  readonly sizeBytes: number;
  /** The first bytes, fewer where the file is shorter. */
  start(length: number): Promise<Buffer>;
  /** All of it. Not to be used once the file is disposed of. */
  stream(): Readable;
}

export interface ImageFiles extends AsyncDisposable {
  /** What errors call the image. */
  readonly name: string;
  /** The file at a path (UTF-8, as manifests have it); undefined when there is none. The caller disposes of it. */
  find(path: string): Promise<ImageFile | undefined>;
}

const PIECE_BYTES = 1 << 20;

/** A path of a manifest as latin1, plain. BURROW_BAD_ARCHIVE for one that leads out or says one thing in two ways. */
export function checkPath(path: string, archive: string): string {
  const latin1 = nameOf(path);
  const plain = plainPath(latin1);
  if (plain instanceof Refusal) throw badArchive(archive, plain.why, latin1);
  if (plain !== latin1 || plain === "") throw badArchive(archive, "its path is not plain", latin1);
  return plain;
}

/** A run of bytes of an open file, as an ImageFile that doesn't own the handle. */
export function runOf(file: FileHandle, offset: number, sizeBytes: number): ImageFile {
  return {
    sizeBytes,
    async start(length) {
      const bytes = Buffer.alloc(Math.min(length, sizeBytes));
      const { bytesRead } = await file.read(bytes, 0, bytes.length, offset);
      return bytes.subarray(0, bytesRead);
    },
    // A ReadStream would close the handle when it is destroyed, autoClose or not.
    stream: () => Readable.from(piecesOf(file, offset, sizeBytes), { objectMode: false }),
    async [Symbol.asyncDispose]() {},
  };
}

/** Ends early where the file does. */
async function* piecesOf(file: FileHandle, offset: number, sizeBytes: number) {
  for (let at = 0; at < sizeBytes; ) {
    const bytes = Buffer.allocUnsafe(Math.min(PIECE_BYTES, sizeBytes - at));
    const { bytesRead } = await file.read(bytes, 0, bytes.length, offset + at);
    if (bytesRead === 0) return;
    yield bytes.subarray(0, bytesRead);
    at += bytesRead;
  }
}

/** The files of a directory. Links may lead about in it, never out of it. */
export async function openFolder(path: string, name: string): Promise<ImageFiles> {
  let root: string;
  try {
    root = await realpath(path);
  } catch (cause) {
    throw readError(cause, name);
  }
  return {
    name,
    async find(wanted) {
      const plain = checkPath(wanted, name);
      let file: FileHandle;
      try {
        // A FIFO must not make us wait for its writer.
        const flags = constants.O_RDONLY | constants.O_NONBLOCK;
        file = await open(join(root, wanted), flags);
      } catch (cause) {
        const { code } = cause as NodeJS.ErrnoException;
        if (code === "ENOENT" || code === "ENOTDIR") return undefined;
        if (code === "ELOOP") throw badArchive(name, "its links go in circles", plain);
        throw readError(cause, name);
      }
      try {
        const stat = await file.stat();
        if (!stat.isFile()) throw badArchive(name, "it is no plain file", plain);
        const place = await readlink(`/proc/self/fd/${file.fd}`);
        if (!place.startsWith(root === "/" ? root : `${root}/`)) {
          throw badArchive(name, "its links lead out of the image", plain);
        }
        const run = runOf(file, 0, stat.size);
        return { ...run, [Symbol.asyncDispose]: () => file.close() };
      } catch (error) {
        await file.close();
        throw error;
      }
    },
    async [Symbol.asyncDispose]() {},
  };
}
