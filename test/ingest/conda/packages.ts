// Owns: conda packages made for tests, sound and hostile: tars, zips and what is in info/. Plane: control.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32, deflateRawSync } from "node:zlib";
import { type Header, pack } from "tar-stream";
import type { BlobRef } from "../../../lib/base/blob.ts";
import { BurrowError } from "../../../lib/base/error.ts";
import {
  type ImportedPackage,
  type ImportOptions,
  importCondaPackage,
} from "../../../lib/ingest/conda/import.ts";
import { discardingSink } from "../../../lib/ingest/sink.ts";
import type { LayerEntry } from "../../../lib/layer/entry.ts";
import type { BlobSink } from "../../../lib/store/blob-sink.ts";

export const PLACEHOLDER = `/placehold${"_placehold".repeat(20)}`;
export const PREFIX = "/opt/env";

export interface Member {
  readonly name: string;
  readonly content?: Buffer | string;
  readonly type?: Header["type"];
  readonly mode?: number;
  readonly target?: string;
  readonly mtimeSec?: number;
  readonly pax?: Record<string, string>;
}

export async function tarOf(members: readonly Member[]): Promise<Buffer> {
  const stream = pack();
  for (const {
    name,
    content = "",
    type = "file",
    mode = 0o644,
    target,
    mtimeSec,
    pax,
  } of members) {
    const header: Partial<Header> & { name: string; pax?: Record<string, string> } = {
      name,
      type,
      mode,
      mtime: new Date(1000 * (mtimeSec ?? 1_600_000_000)),
      ...(target === undefined ? {} : { linkname: target }),
      ...(pax === undefined ? {} : { pax }),
    };
    if (type === "file") stream.entry(header, Buffer.from(content));
    else stream.entry(header);
  }
  stream.finalize();
  const parts: Uint8Array[] = [];
  for await (const chunk of stream) parts.push(chunk as Uint8Array);
  return Buffer.concat(parts);
}

function filtered(command: string, args: readonly string[], input: Buffer): Buffer {
  const { status, stdout, error } = spawnSync(command, args, { input, maxBuffer: 1 << 30 });
  if (status !== 0) throw error ?? new Error(`${command} ended with ${status}`);
  return stdout;
}

export const zst = (bytes: Buffer) => filtered("zstd", ["-cq"], bytes);
export const bz2 = (bytes: Buffer) => filtered("bzip2", ["-c"], bytes);

export interface ZipMember {
  readonly name: string;
  readonly content: Buffer;
  readonly isDeflated?: boolean;
  /** Sizes and checksum behind the content instead of before it. */
  readonly hasDescriptor?: boolean;
  /** Unix mode with its type, as zips made on Unix have it; none when missing. */
  readonly mode?: number;
}

/** A zip. APPNOTE.TXT 4.3: local header, content, descriptor; central directory; end record. */
export function zipOf(members: readonly ZipMember[]): Buffer {
  const parts: Buffer[] = [];
  const central: Buffer[] = [];
  let offset = 0;
  for (const { name, content, isDeflated = false, hasDescriptor = false, mode = 0 } of members) {
    const stored = isDeflated ? deflateRawSync(content) : content;
    const sum = crc32(content);
    const label = Buffer.from(name);
    const fields = (withSums: boolean) => {
      const bytes = Buffer.alloc(26);
      bytes.writeUInt16LE(20, 0);
      // Bit 11: the name is UTF-8. APPNOTE.TXT 4.4.4.
      const isAscii = label.length === name.length;
      bytes.writeUInt16LE((hasDescriptor ? 8 : 0) | (isAscii ? 0 : 0x800), 2);
      bytes.writeUInt16LE(isDeflated ? 8 : 0, 4);
      bytes.writeUInt32LE(withSums ? sum : 0, 10);
      bytes.writeUInt32LE(withSums ? stored.length : 0, 14);
      bytes.writeUInt32LE(withSums ? content.length : 0, 18);
      bytes.writeUInt16LE(label.length, 22);
      return bytes;
    };
    const descriptor = Buffer.alloc(hasDescriptor ? 16 : 0);
    if (hasDescriptor) {
      descriptor.write("PK\x07\x08", "latin1");
      for (const [i, value] of [sum, stored.length, content.length].entries()) {
        descriptor.writeUInt32LE(value, 4 + 4 * i);
      }
    }
    const local = [Buffer.from("PK\x03\x04"), fields(!hasDescriptor), label, stored, descriptor];
    const rest = Buffer.alloc(14);
    rest.writeUInt16LE(mode, 8);
    rest.writeUInt32LE(offset, 10);
    const version = Buffer.from([20, 3]);
    central.push(Buffer.from("PK\x01\x02"), version, fields(true), rest, label);
    parts.push(...local);
    offset += local.reduce((sumBytes, part) => sumBytes + part.length, 0);
  }
  const directory = Buffer.concat(central);
  const end = Buffer.alloc(22);
  end.write("PK\x05\x06", "latin1");
  end.writeUInt16LE(members.length, 8);
  end.writeUInt16LE(members.length, 10);
  end.writeUInt32LE(directory.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...parts, directory, end]);
}

export interface Spec {
  readonly index?: Readonly<Record<string, unknown>>;
  readonly files?: readonly Member[];
  /** Text or binary placeholders by path. */
  readonly placeholders?: Readonly<Record<string, "text" | "binary">>;
  /** Instead of the list that fits `files`; null for none. */
  readonly paths?: readonly Readonly<Record<string, unknown>>[] | null;
  /** More members of info/, by their whole path. */
  readonly info?: readonly Member[];
}

const sha256 = (bytes: Buffer | string) => createHash("sha256").update(bytes).digest("hex");

/** What paths.json says of these files. */
export function pathsOf({ files = [], placeholders = {} }: Spec): Record<string, unknown>[] {
  const contents = new Map(files.map(({ name, content }) => [name, content ?? ""]));
  return files.map(({ name, type, target }) => {
    if (type === "symlink") return { _path: name, path_type: "softlink" };
    if (type === "directory") return { _path: name, path_type: "directory" };
    const content = contents.get(type === "link" ? target! : name) ?? "";
    const mode = placeholders[name];
    return {
      _path: name,
      path_type: "hardlink",
      sha256: sha256(content),
      size_in_bytes: Buffer.from(content).length,
      ...(mode === undefined ? {} : { prefix_placeholder: PLACEHOLDER, file_mode: mode }),
    };
  });
}

export function infoOf(spec: Spec): Member[] {
  const index = { name: "demo", version: "1.0", build: "h0_0", build_number: 0, ...spec.index };
  const members: Member[] = [
    { name: "info/index.json", content: JSON.stringify({ subdir: "linux-64", ...index }) },
  ];
  if (spec.paths !== null) {
    const paths = { paths: spec.paths ?? pathsOf(spec), paths_version: 1 };
    members.push({ name: "info/paths.json", content: JSON.stringify(paths) });
  }
  return [...members, ...(spec.info ?? [])];
}

/** The bytes of a .conda. */
export async function conda(spec: Spec): Promise<Buffer> {
  return zipOf([
    { name: "metadata.json", content: Buffer.from('{"conda_pkg_format_version": 2}') },
    { name: "pkg-demo-1.0-h0_0.tar.zst", content: zst(await tarOf(spec.files ?? [])) },
    { name: "info-demo-1.0-h0_0.tar.zst", content: zst(await tarOf(infoOf(spec))) },
  ]);
}

/** The bytes of a .tar.bz2. */
export async function tarBz2(spec: Spec): Promise<Buffer> {
  return bz2(await tarOf([...infoOf(spec), ...(spec.files ?? [])]));
}

const folders: string[] = [];
process.once("exit", () => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** A path that holds these bytes, until the process ends. */
export function fileOf(bytes: Buffer, name = "demo-1.0-h0_0.conda"): string {
  const folder = mkdtempSync(join(tmpdir(), "burrow-conda-test-"));
  folders.push(folder);
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

export interface Keeper extends BlobSink {
  /** Content by digest. */
  readonly kept: Map<string, Buffer>;
}

/** A sink that keeps what it is given. */
export function keeper(): Keeper {
  const inner = discardingSink();
  const kept = new Map<string, Buffer>();
  const addBytes = async (bytes: Uint8Array): Promise<BlobRef> => {
    const ref = await inner.addBytes(bytes);
    kept.set(ref.digest, Buffer.from(bytes));
    return ref;
  };
  return {
    kept,
    addBytes,
    async addStream(chunks) {
      const parts: Uint8Array[] = [];
      for await (const chunk of chunks) parts.push(Buffer.from(chunk));
      return await addBytes(Buffer.concat(parts));
    },
  };
}

export interface Imported extends ImportedPackage {
  readonly at: (path: string) => LayerEntry | undefined;
  readonly text: (path: string) => string | undefined;
}

/** Imports the bytes of a package, and finds things in the result. */
export async function imported(
  bytes: Buffer,
  options: Partial<ImportOptions> = {},
): Promise<Imported> {
  const sink = keeper();
  const result = await importCondaPackage(fileOf(bytes), { prefix: PREFIX, sink, ...options });
  const at = (path: string) => result.entries.find((entry) => entry.path === path);
  const text = (path: string) => {
    const entry = at(path);
    return entry?.type === "file"
      ? sink.kept.get(entry.blob.digest)?.toString("latin1")
      : undefined;
  };
  return { ...result, at, text };
}

/** The error that a promise is rejected with: its code, message and context as one text. */
export async function failureOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    if (!(error instanceof BurrowError)) throw error;
    const facts = Object.entries(error.context).map(([key, value]) => `${key}: ${value}`);
    return [error.code, error.message, ...facts].join("\n");
  }
  return "no error";
}
