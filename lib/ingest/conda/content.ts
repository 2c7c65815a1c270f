// Whole files of an archive in memory: metadata, and files with a placeholder. Bounded. Control plane.

import { METADATA_MAX_BYTES } from "../../base/limits.ts";
import type { ArchiveEntry } from "./archive.ts";
import { badArchive } from "./errors.ts";

/** A file with a placeholder is held whole while it is patched; the largest seen (a static library) had 190 MB. */
const PATCHED_MAX_BYTES = 1024 * 1024 * 1024;

/** The bytes of a metadata file. */
export async function wholeMetadata(entry: ArchiveEntry, archive: string): Promise<Buffer> {
  return await whole(entry, archive, METADATA_MAX_BYTES);
}

/** The bytes of a file that is to be patched; the caller may change them. */
export async function wholePatched(entry: ArchiveEntry, archive: string): Promise<Buffer> {
  return await whole(entry, archive, PATCHED_MAX_BYTES);
}

async function whole(entry: ArchiveEntry, archive: string, maxBytes: number): Promise<Buffer> {
  if (entry.size > maxBytes) throw badArchive(archive, `it is over ${maxBytes} bytes`, entry.name);
  const parts: Uint8Array[] = [];
  for await (const chunk of entry.content ?? []) parts.push(chunk);
  // Always a copy: the parts are pieces of buffers that belong to the reader.
  return Buffer.concat(parts);
}
