// Debian packages to layer entries: an ar archive (man deb(5)) of debian-binary, control.tar.* and data.tar.*, of which the last
// is the tree. Its paths move below usr/ where a merged /usr has symlinks, or a layer would put a directory over them. Control plane.

import { createReadStream } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { basename } from "node:path";
import { BurrowError } from "../base/error.ts";
import type { LayerEntry } from "../layer/entry.ts";
import type { BlobSink } from "../store/blob-sink.ts";
import { decompressed, kindOf } from "./decompress.ts";
import { importTar } from "./tar.ts";

export interface DebOptions {
  readonly sink: BlobSink;
  /** What errors call the package; its file's name when missing. */
  readonly name?: string;
  /** Whether bin, sbin, lib and their like become usr/bin and so on; true when missing. */
  readonly mergedUsr?: boolean;
  readonly onEntry?: (entry: LayerEntry) => void;
}

/** An ar file's start, and the end of each of its headers. man ar(5). */
const AR_MAGIC = "!<arch>\n";
const AR_END = "`\n";
const AR_HEADER_BYTES = 60;
/** A .deb has three members; a few more may follow (deb(5): names that start with "_"). */
const AR_MEMBERS_MAX = 16;
/** Top directories that are symlinks into usr on a merged system. */
const MERGED = /^(bin|sbin|lib|lib32|lib64|libx32)(\/|$)/;

/** The entries of a Debian package's tree. BURROW_BAD_ARCHIVE for what deb(5) doesn't allow; see importTar. */
export async function* importDeb(path: string, options: DebOptions): AsyncIterable<LayerEntry> {
  const name = options.name ?? basename(path);
  const data = await findData(path, name);
  // An end is inclusive here, and an empty member has none.
  if (data.size === 0) throw bad(name, "its data.tar is empty");
  const bytes = createReadStream(path, { start: data.start, end: data.start + data.size - 1 });
  const { sink, onEntry } = options;
  yield* importTar(decompressed(bytes, kindOf(data.name), name), {
    sink,
    name,
    ...(options.mergedUsr === false ? {} : { mapPath: mergedPath }),
    ...(onEntry === undefined ? {} : { onEntry }),
  });
}

/** Where a path lies on a merged-/usr system. A symlink such as bin -> usr/bin is the merge itself and stays. */
export function mergedPath(path: string, type: LayerEntry["type"]): string {
  if (type === "symlink" && !path.includes("/")) return path;
  return MERGED.test(path) ? `usr/${path}` : path;
}

interface Member {
  readonly name: string;
  readonly start: number;
  readonly size: number;
}

async function findData(path: string, name: string): Promise<Member> {
  let file: FileHandle;
  try {
    file = await open(path, "r");
  } catch (cause) {
    const isMissing = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
    const code = isMissing ? "BURROW_NOT_FOUND" : "BURROW_IO";
    throw new BurrowError(code, `can't read ${path}`, { cause, context: { archive: name } });
  }
  try {
    const { size } = await file.stat();
    if ((await textAt(file, 0, AR_MAGIC.length)) !== AR_MAGIC)
      throw bad(name, "it is no ar archive");
    let offset = AR_MAGIC.length;
    for (let count = 0; count < AR_MEMBERS_MAX && offset < size; count++) {
      const member = memberOf(await textAt(file, offset, AR_HEADER_BYTES), offset, size, name);
      if (count === 0) await checkVersion(file, member, name);
      if (member.name.startsWith("data.tar")) return member;
      // Members start at even offsets.
      offset = member.start + member.size + (member.size % 2);
    }
    throw bad(name, "it has no data.tar");
  } finally {
    await file.close();
  }
}

async function checkVersion(file: FileHandle, member: Member, name: string): Promise<void> {
  const version = await textAt(file, member.start, Math.min(member.size, 4));
  if (member.name !== "debian-binary" || !version.startsWith("2.")) {
    throw bad(name, "it is no Debian package of format 2");
  }
}

function memberOf(header: string, offset: number, fileBytes: number, name: string): Member {
  // man ar(5): 16 name, 12 time, 6 uid, 6 gid, 8 mode, 10 size, in ASCII, padded with blanks.
  const sizeText = header.slice(48, 58).trimEnd();
  if (header.length !== AR_HEADER_BYTES || !header.endsWith(AR_END) || !/^\d+$/.test(sizeText)) {
    throw bad(name, "a member's header is damaged");
  }
  const member = {
    name: header.slice(0, 16).trimEnd().replace(/\/$/, ""),
    start: offset + AR_HEADER_BYTES,
    size: Number(sizeText),
  };
  if (member.start + member.size > fileBytes) throw bad(name, `it is cut in ${member.name}`);
  return member;
}

async function textAt(file: FileHandle, offset: number, length: number): Promise<string> {
  const bytes = Buffer.alloc(length);
  const { bytesRead } = await file.read(bytes, 0, length, offset);
  return bytes.toString("latin1", 0, bytesRead);
}

function bad(name: string, why: string): BurrowError {
  return new BurrowError("BURROW_BAD_ARCHIVE", why, { context: { archive: name } });
}
