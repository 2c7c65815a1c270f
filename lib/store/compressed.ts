// Compressed objects: what is read whole before a start, indexes and locators, lies in a store as one Brotli stream where that is shorter:
// two fifths and two thirds. Wrappers, next to the backend, so that all above them see the object that its name means; what an earlier
// build wrote is read as it is. docs/format/store.md, "Compressed objects", is the normative text. Control plane.

import { promisify } from "node:util";
import { brotliCompress, brotliDecompress, constants } from "node:zlib";
import { BurrowError } from "../base/error.ts";
import { COMPRESSED_MIN_BYTES, COMPRESSED_RATIO_MAX, EXPANDED_MAX_BYTES } from "../base/limits.ts";
import type { Backend, GetOptions, WritableBackend } from "./store.ts";

const MAGIC = Buffer.from("BRWBROTL", "latin1");
const VERSION = 1;
const Header = { version: 8, expandedBytes: 12, bytes: 16 } as const;
/**
 * Brotli's: of an index of 11.6 MB and a locator of 6.6 MB quality 1 makes 9.2 MB in 0.15 s of CPU, 4 makes 8.8 in 0.7 s, 9 makes 8.5 in
 * 7 s; gzip 9.5 in 0.2, LZ4 11.0 in 0.05. To expand them takes some 50 ms of any.
 */
const QUALITY = 1;
/** A stream that saves less is not worth its expansion. */
const WORTH = 0.9;

const compressLater = promisify(brotliCompress);
const expandLater = promisify(brotliDecompress);

/** Whether an object may be compressed: of packs parts are read, other objects are small or compressed by themselves. */
function isCompressible(path: string): boolean {
  return path.startsWith("indexes/") || path.startsWith("locators/");
}

/** A reader of `inner` that expands what is compressed there. What can't be expanded is BURROW_CORRUPT, transient as for verified(). */
export function expanding(inner: Backend): Backend {
  return {
    origin: inner.origin,
    async get(path: string, options: GetOptions = {}): Promise<Buffer> {
      const bytes = await inner.get(path, options);
      const isWhole = options.range === undefined && isCompressible(path);
      return isWhole ? await expanded(path, bytes, options.maxBytes) : bytes;
    },
    has: (path, signal) => inner.has(path, signal),
    close: () => inner.close(),
  };
}

/** The same of a store that can be written, into which indexes and locators go compressed. */
export function compressing(inner: WritableBackend): WritableBackend {
  return {
    ...expanding(inner),
    put: async (path, bytes) =>
      await inner.put(path, isCompressible(path) ? await compressed(bytes) : bytes),
    list: (folder) => inner.list(folder),
    sizes: (folder) => inner.sizes(folder),
    remove: (path) => inner.remove(path),
  };
}

/** As it is where a stream of it would be hardly shorter, or is one that no reader takes. */
async function compressed(bytes: Uint8Array): Promise<Uint8Array> {
  const { length } = bytes;
  if (length < COMPRESSED_MIN_BYTES || length > EXPANDED_MAX_BYTES) return bytes;
  const params = {
    [constants.BROTLI_PARAM_QUALITY]: QUALITY,
    [constants.BROTLI_PARAM_SIZE_HINT]: length,
  };
  const stream = await compressLater(bytes, { params });
  const stored = Header.bytes + stream.length;
  if (stored > length * WORTH || length > stored * COMPRESSED_RATIO_MAX) return bytes;
  const head = Buffer.alloc(Header.bytes);
  MAGIC.copy(head);
  head.writeUInt32LE(VERSION, Header.version);
  head.writeUInt32LE(length, Header.expandedBytes);
  return Buffer.concat([head, stream]);
}

/** What it takes is bounded by what the header says, and that by the object's own length: whoever sent it. */
async function expanded(
  path: string,
  bytes: Buffer,
  maxBytes = EXPANDED_MAX_BYTES,
): Promise<Buffer> {
  if (bytes.length < Header.bytes || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) return bytes;
  const version = bytes.readUInt32LE(Header.version);
  if (version !== VERSION) throw corrupt(path, `unknown version ${version}`);
  const length = bytes.readUInt32LE(Header.expandedBytes);
  const most = Math.min(maxBytes, EXPANDED_MAX_BYTES, bytes.length * COMPRESSED_RATIO_MAX);
  if (length > most) throw corrupt(path, `it would be ${length} bytes`);
  let made: Buffer;
  try {
    made = await expandLater(bytes.subarray(Header.bytes), {
      maxOutputLength: Math.max(1, length),
    });
  } catch (cause) {
    throw corrupt(path, "its stream is damaged or too long", cause);
  }
  if (made.length !== length) throw corrupt(path, "its stream ends too early");
  return made;
}

/** Transient: no name binds the bytes of a stream, so another mirror may have it right. */
function corrupt(path: string, why: string, cause?: unknown): BurrowError {
  const context = { path };
  const message = `bad compressed object: ${why}`;
  return new BurrowError("BURROW_CORRUPT", message, { class: "transient", context, cause });
}
