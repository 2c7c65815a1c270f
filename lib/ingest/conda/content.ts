// Whole files of an archive in memory: metadata, and files with a placeholder. Bounded. Control plane.

import { WHOLE_MAX_BYTES } from "../sink.ts";
import type { ArchiveEntry } from "./archive.ts";
import { badArchive } from "./errors.ts";

/**
 * Of one metadata file. paths.json takes about 250 bytes a path: this is twice the largest package known (60,000 files), and small
 * enough that what a parser makes of hostile text stays below the heap of a default Node.
 */
export const INFO_MAX_BYTES = 32 * 1024 * 1024;
/** A file with a placeholder is held whole while it is patched; the largest seen (a static library) had 190 MB. */
const PATCHED_MAX_BYTES = 1024 * 1024 * 1024;

/** The bytes of a metadata file. */
export async function wholeMetadata(entry: ArchiveEntry, archive: string): Promise<Buffer> {
  return await whole(entry, archive, INFO_MAX_BYTES);
}

/** The bytes of a file that is to be patched; the caller may change them. */
export async function wholePatched(entry: ArchiveEntry, archive: string): Promise<Buffer> {
  return await whole(entry, archive, PATCHED_MAX_BYTES);
}

async function whole(entry: ArchiveEntry, archive: string, maxBytes: number): Promise<Buffer> {
  if (entry.size > maxBytes) throw badArchive(archive, `it is over ${maxBytes} bytes`, entry.name);
  const { content, size } = entry;
  if (content === undefined) return Buffer.alloc(0);
  // Always a copy: what is given belongs to the reader, and is good until the next is asked for.
  if (size <= WHOLE_MAX_BYTES) return Buffer.from(await content.whole());
  const parts: Buffer[] = [];
  for await (const chunk of content) parts.push(Buffer.from(chunk));
  return Buffer.concat(parts);
}
