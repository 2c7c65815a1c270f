// The outer zip of a .conda: which members it has, and their bytes.
// Format 2 of conda-package-handling: metadata.json, info-NAME.tar.zst, pkg-NAME.tar.zst, in any order. Control plane.

import { basename } from "node:path";
import type { Entry, ZipFile } from "yauzl";
import { BurrowError } from "../../base/error.ts";
import type { ByteSource } from "../byte-source.ts";
import { memberBytes, openMember, openZip, zipError } from "../zip.ts";
import { badArchive } from "./errors.ts";

export interface CondaZip {
  /** The info part, then the package part where there is one. */
  readonly parts: readonly Entry[];
  open(part: Entry): Promise<ByteSource>;
  close(): void;
}

/** A .conda has three members; the format allows for more, which are ignored. */
const MEMBERS_MAX = 64;
const METADATA_MAX_BYTES = 64 * 1024;
const FORMAT_VERSION = 2;

export async function openCondaZip(path: string, archive: string): Promise<CondaZip> {
  const zip = await openZip(path, archive);
  try {
    const { metadata, info, pkg } = await findMembers(zip, archive);
    if (metadata !== undefined) await checkFormat(zip, metadata, archive);
    if (info === undefined) throw badArchive(archive, "it has no info-*.tar.zst");
    return {
      parts: pkg === undefined ? [info] : [info, pkg],
      open: (part) => memberBytes(zip, path, part, archive),
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
