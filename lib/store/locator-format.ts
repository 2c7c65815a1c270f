// Offsets and sizes of a locator, version 1; docs/format/store.md is the normative text. Any plane.

export const LOCATOR_MAGIC = "BRWLOCAT";
export const LOCATOR_VERSION = 1;
export const LOCATOR_KIND = { packs: 1, files: 2, pinned: 3 } as const;

/** Tables follow the header without gaps, in this order: blobs, chunks, order, packs, strings. */
export const HEADER = {
  version: 8,
  kind: 12,
  fileBytes: 16,
  blobCount: 24,
  chunkCount: 28,
  packCount: 32,
  stringBytes: 36,
  /** Of kind pinned: bytes of the tenant's name, with which strings begin. */
  tenantBytes: 40,
  bytes: 64,
} as const;

/**
 * A row of blobs: digest, u64 size, u32 first, u32 count. Of kind packs: first chunk and count of chunks; of kind
 * files: offset and length of a path in strings; of kind pinned what pins it follows: NUL, version id, NUL, ETag. Sorted by digest.
 */
export const BLOB_ROW = { digest: 0, size: 32, first: 40, count: 44, bytes: 48 } as const;

/** A row of chunks: those of one blob are contiguous, in the order of its blocks. */
export const CHUNK_ROW = {
  pack: 0,
  offset: 4,
  stored: 8,
  length: 12,
  codec: 16,
  blob: 20,
  bytes: 24,
} as const;

/**
 * order: u32 numbers of chunks, sorted by pack and offset. packs: 32 bytes each. strings of kind packs: nothing, or a u32 for each pack, up to
 * where starts read it.
 */
export const TABLE = { orderBytes: 4, startBytes: 4 } as const;
