// Zips: opened, and their members' bytes checked against their CRC-32 (yauzl leaves that to us). Control plane.

import { pipeline, type Readable, Transform } from "node:stream";
import { crc32 } from "node:zlib";
import { type Entry, openPromise, type ZipFile } from "yauzl";
import { BurrowError } from "../base/error.ts";
import { badArchive, readError } from "./conda/errors.ts";

/** The zip at `path`; the caller closes it. BURROW_BAD_ARCHIVE for what is none, BURROW_NOT_FOUND, BURROW_IO. */
export async function openZip(path: string, archive: string): Promise<ZipFile> {
  try {
    return await openPromise(path, { lazyEntries: true, autoClose: false });
  } catch (error) {
    throw zipError(error, archive);
  }
}

/** The bytes of a member, an error at their end when they aren't those that its checksum is of. */
export async function openMember(zip: ZipFile, entry: Entry, archive: string): Promise<Readable> {
  let bytes: Readable;
  try {
    bytes = await zip.openReadStreamPromise(entry);
  } catch (error) {
    throw zipError(error, archive, entry.fileName);
  }
  let sum = 0;
  const out = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      sum = crc32(chunk, sum);
      done(null, chunk);
    },
    flush(done) {
      const isSame = sum >>> 0 === entry.crc32 >>> 0;
      done(isSame ? null : badArchive(archive, "a member's checksum is wrong", entry.fileName));
    },
  });
  // An error of the zip is translated on its way out; one of our own comes through as it is.
  bytes.on("error", (error) => out.destroy(zipError(error, archive, entry.fileName)));
  return pipeline(bytes, out, () => {});
}

/** An error of yauzl or of the file system as ours; one of ours as it is. */
export function zipError(error: unknown, archive: string, member?: string): BurrowError {
  if (error instanceof BurrowError) return error;
  if (error instanceof Error && "syscall" in error) return readError(error, archive);
  const text = error instanceof Error ? error.message : String(error);
  return badArchive(archive, `its zip is cut or corrupt: ${text}`, member, error);
}
