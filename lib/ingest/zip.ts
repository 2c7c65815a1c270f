// Zips: opened, and their members' bytes checked against their CRC-32 (yauzl leaves that to us). Control plane.

import { pipeline, type Readable, Transform } from "node:stream";
import { crc32 } from "node:zlib";
import { type Entry, openPromise, type ZipFile } from "yauzl";
import { BurrowError } from "../base/error.ts";
import { type ByteSource, FileBytes, sourceOf } from "./byte-source.ts";
import { badArchive, readError } from "./conda/errors.ts";

/** Compression methods of a zip: APPNOTE.TXT 4.4.5. */
const STORED = 0;

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

/** The same for bytes that are asked for. `path` is the zip's. A member that is stored as it is is read without yauzl's streams. */
export async function memberBytes(
  zip: ZipFile,
  path: string,
  entry: Entry,
  archive: string,
): Promise<ByteSource> {
  const isPlain = entry.compressionMethod === STORED && !entry.isEncrypted();
  if (!isPlain || entry.compressedSize !== entry.uncompressedSize)
    return sourceOf(await openMember(zip, entry, archive));
  try {
    const { fileDataStart } = await zip.readLocalFileHeaderPromise(entry, { minimal: true });
    const range = { start: fileDataStart, length: entry.compressedSize };
    return new CheckedBytes(new FileBytes(path, range), entry, archive);
  } catch (error) {
    throw zipError(error, archive, entry.fileName);
  }
}

/** A member's bytes, an error at their end when they aren't those that its checksum is of. */
class CheckedBytes implements ByteSource {
  readonly #bytes: ByteSource;
  readonly #entry: Entry;
  readonly #archive: string;
  #sum = 0;
  #count = 0;

  constructor(bytes: ByteSource, entry: Entry, archive: string) {
    this.#bytes = bytes;
    this.#entry = entry;
    this.#archive = archive;
  }

  async read(into: Buffer): Promise<number> {
    const { crc32: wanted, uncompressedSize, fileName } = this.#entry;
    let count: number;
    try {
      count = await this.#bytes.read(into);
    } catch (error) {
      throw zipError(error, this.#archive, fileName);
    }
    this.#sum = crc32(into.subarray(0, count), this.#sum);
    this.#count += count;
    if (count > 0) return count;
    if (this.#count < uncompressedSize) throw badArchive(this.#archive, "it is cut", fileName);
    if (this.#sum >>> 0 === wanted >>> 0) return 0;
    throw badArchive(this.#archive, "a member's checksum is wrong", fileName);
  }

  close(): void {
    this.#bytes.close();
  }
}

/** An error of yauzl or of the file system as ours; one of ours as it is. */
export function zipError(error: unknown, archive: string, member?: string): BurrowError {
  if (error instanceof BurrowError) return error;
  if (error instanceof Error && "syscall" in error) return readError(error, archive);
  const text = error instanceof Error ? error.message : String(error);
  return badArchive(archive, `its zip is cut or corrupt: ${text}`, member, error);
}
