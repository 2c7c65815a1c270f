// The outer zip of a .conda: which members it has, and their bytes, checked against their CRC-32 (yauzl leaves that to us).
// Format 2 of conda-package-handling: metadata.json, info-NAME.tar.zst, pkg-NAME.tar.zst, in any order. Control plane.

import { basename } from "node:path";
import { pipeline, type Readable, Transform } from "node:stream";
import { crc32 } from "node:zlib";
import { type Entry, openPromise, type ZipFile } from "yauzl";
import { BurrowError } from "../../base/error.ts";
import { badArchive, readError } from "./errors.ts";

export interface CondaZip {
  /** The info part, then the package part where there is one. */
  readonly parts: readonly Entry[];
  open(part: Entry): Promise<Readable>;
  close(): void;
}

/** A .conda has three members; the format allows for more, which are ignored. */
const MEMBERS_MAX = 64;
const METADATA_MAX_BYTES = 64 * 1024;
const FORMAT_VERSION = 2;

export async function openCondaZip(path: string, archive: string): Promise<CondaZip> {
  let zip: ZipFile;
  try {
    zip = await openPromise(path, { lazyEntries: true, autoClose: false });
  } catch (error) {
    throw zipError(error, archive);
  }
  try {
    const { metadata, info, pkg } = await findMembers(zip, archive);
    if (metadata !== undefined) await checkFormat(zip, metadata, archive);
    if (info === undefined) throw badArchive(archive, "it has no info-*.tar.zst");
    return {
      parts: pkg === undefined ? [info] : [info, pkg],
      open: (part) => openMember(zip, part, archive),
      close: () => zip.close(),
    };
  } catch (error) {
    zip.close();
    throw zipError(error, archive);
  }
}

interface Members {
  metadata?: Entry;
  info?: Entry;
  pkg?: Entry;
}

async function findMembers(zip: ZipFile, archive: string): Promise<Members> {
  const members: Members = {};
  let count = 0;
  for await (const entry of zip.eachEntry()) {
    if (++count > MEMBERS_MAX) throw badArchive(archive, `it has over ${MEMBERS_MAX} members`);
    const name = basename(entry.fileName);
    const key =
      name === "metadata.json"
        ? "metadata"
        : (/^(info|pkg)-.*\.tar\.zst$/.exec(name)?.[1] as "info" | "pkg" | undefined);
    if (key === undefined) continue;
    if (members[key] !== undefined) throw badArchive(archive, "a member comes twice", name);
    members[key] = entry;
  }
  return members;
}

async function checkFormat(zip: ZipFile, entry: Entry, archive: string): Promise<void> {
  if (entry.uncompressedSize > METADATA_MAX_BYTES) {
    throw badArchive(archive, "its metadata.json is too large");
  }
  const parts: Buffer[] = [];
  for await (const chunk of await openMember(zip, entry, archive)) parts.push(chunk as Buffer);
  let version: unknown;
  try {
    const value = JSON.parse(Buffer.concat(parts).toString("utf8")) as Record<string, unknown>;
    version = value?.["conda_pkg_format_version"];
  } catch (cause) {
    throw badArchive(archive, "its metadata.json is no JSON", "metadata.json", cause);
  }
  if (version === FORMAT_VERSION) return;
  throw new BurrowError("BURROW_UNSUPPORTED", `.conda format ${version}, not ${FORMAT_VERSION}`, {
    context: { archive },
  });
}

async function openMember(zip: ZipFile, entry: Entry, archive: string): Promise<Readable> {
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

function zipError(error: unknown, archive: string, member?: string): BurrowError {
  if (error instanceof BurrowError) return error;
  if (error instanceof Error && "syscall" in error) return readError(error, archive);
  const text = error instanceof Error ? error.message : String(error);
  return badArchive(archive, `its zip is cut or corrupt: ${text}`, member, error);
}
