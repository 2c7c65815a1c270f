// Archives made byte by byte, sound and hostile, and a sink that keeps what it is given.

import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import type { Digest } from "../../lib/base/digest.ts";
import { discardingSink } from "../../lib/ingest/sink.ts";
import { importTar, type TarOptions } from "../../lib/ingest/tar.ts";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import type { BlobSink } from "../../lib/store/blob-sink.ts";

export interface RawHeader {
  /** Latin1. */
  name: string;
  /** Type flag; "0" when missing. */
  type?: string;
  content?: Buffer | string;
  /** What the header claims; the content's size when missing. */
  size?: number | string;
  linkname?: string;
  mode?: number | string;
  uid?: number;
  gid?: number;
  mtime?: number;
  prefix?: string;
  /** Magic and version: POSIX when missing. */
  magic?: string;
}

const BLOCK = 512;
export const END = Buffer.alloc(2 * BLOCK);

/** One header block. POSIX.1-2017 pax, "ustar Interchange Format". */
export function header(raw: RawHeader): Buffer {
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number | string, at: number, width: number) => {
    const text = typeof value === "string" ? value : value.toString(8).padStart(width - 1, "0");
    block.write(text, at, width, "latin1");
  };
  block.write(raw.name, 0, 100, "latin1");
  octal(raw.mode ?? 0o644, 100, 8);
  octal(raw.uid ?? 0, 108, 8);
  octal(raw.gid ?? 0, 116, 8);
  octal(raw.size ?? Buffer.from(raw.content ?? "").length, 124, 12);
  octal(raw.mtime ?? 0, 136, 12);
  block.write("        ", 148, "latin1");
  block.write(raw.type ?? "0", 156, 1, "latin1");
  block.write(raw.linkname ?? "", 157, 100, "latin1");
  block.write(raw.magic ?? "ustar\u000000", 257, 8, "latin1");
  block.write(raw.prefix ?? "", 345, 155, "latin1");
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

/** A header and its content, padded. */
export function entry(raw: RawHeader): Buffer {
  const content = Buffer.from(raw.content ?? "");
  return Buffer.concat([
    header(raw),
    content,
    Buffer.alloc((BLOCK - (content.length % BLOCK)) % BLOCK),
  ]);
}

/** A PAX extended header for the entry after it. Values are latin1. */
export function pax(records: Record<string, string>, type = "x"): Buffer {
  const lines = Object.entries(records).map(([key, value]) => {
    const rest = ` ${key}=${value}\n`;
    let length = rest.length + 1;
    while (String(length).length + rest.length > length) length++;
    return `${length}${rest}`;
  });
  return entry({ name: "pax", type, content: Buffer.from(lines.join(""), "latin1") });
}

/** A GNU long name ("L") or long link ("K") for the entry after it. */
export function gnuLong(text: string, type: "L" | "K"): Buffer {
  const content = Buffer.from(`${text}\0`, "latin1");
  return entry({ name: "././@LongLink", type, content, magic: "ustar  \0" });
}

/** An archive of whole entries, with its end mark. */
export function tar(...parts: (Buffer | RawHeader)[]): Buffer {
  return Buffer.concat([...parts.map((part) => (Buffer.isBuffer(part) ? part : entry(part))), END]);
}

export interface Keeper extends BlobSink {
  readonly kept: Map<Digest, Buffer>;
  readonly calls: { bytes: number; stream: number };
}

/** A sink that keeps content by digest. */
export function keeper(): Keeper {
  const inner = discardingSink();
  const kept = new Map<Digest, Buffer>();
  const calls = { bytes: 0, stream: 0 };
  const keep = (content: Buffer) => {
    kept.set(createHash("sha256").update(content).digest("hex") as Digest, content);
  };
  return {
    kept,
    calls,
    async addBytes(bytes) {
      calls.bytes++;
      keep(Buffer.from(bytes));
      return await inner.addBytes(bytes);
    },
    async addStream(chunks, sizeHint) {
      calls.stream++;
      const parts: Uint8Array[] = [];
      for await (const chunk of chunks) parts.push(Uint8Array.from(chunk));
      const content = Buffer.concat(parts);
      keep(content);
      return await inner.addStream(Readable.from([content]), sizeHint);
    },
  };
}

export async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const each of source) all.push(each);
  return all;
}

/** What an archive imports to, in pieces of `pieceBytes`. */
export async function imported(
  archive: Buffer,
  options: Partial<TarOptions> = {},
  pieceBytes = 64 * 1024,
): Promise<LayerEntry[]> {
  const pieces = function* () {
    for (let at = 0; at < archive.length; at += pieceBytes)
      yield archive.subarray(at, at + pieceBytes);
  };
  const sink = options.sink ?? discardingSink();
  const source = Readable.from(pieces(), { objectMode: false });
  return await collect(importTar(source, { name: "test.tar", ...options, sink }));
}
