// The JSON documents of an image: read whole up to a bound, checked against their descriptor, and taken apart field by field, since an
// image may say anything. Control plane.

import { createHash } from "node:crypto";
import { type Digest, parseDigest, showDigest } from "../../base/digest.ts";
import { BurrowError } from "../../base/error.ts";
import { badArchive } from "../conda/errors.ts";
import type { ImageFiles } from "./files.ts";

/** Of a manifest, an index or a config. OCI distribution-spec: registries take manifests up to 4 MiB. */
const DOCUMENT_MAX_BYTES = 4 << 20;

export type Json = Readonly<Record<string, unknown>>;

/** What a file must be. */
export interface Expected {
  readonly digest?: Digest;
  readonly sizeBytes?: number;
}

/** The error for bytes that aren't those that were named. */
export function wrongDigest(archive: string, entry: string, expected: Digest): BurrowError {
  const context = { archive, entry, expected: showDigest(expected) };
  return new BurrowError("BURROW_DIGEST_MISMATCH", "its bytes aren't what its digest says", {
    context,
  });
}

export interface Document {
  readonly value: unknown;
  /** Of its bytes. */
  readonly digest: Digest;
}

/** The JSON at a path; undefined when there is no such file. */
export async function findDocument(
  files: ImageFiles,
  path: string,
  expected: Expected = {},
): Promise<Document | undefined> {
  const { name } = files;
  await using file = await files.find(path);
  if (file === undefined) return undefined;
  const { sizeBytes } = file;
  checkSize(name, path, expected.sizeBytes, sizeBytes);
  if (sizeBytes > DOCUMENT_MAX_BYTES) {
    throw badArchive(name, `it has ${sizeBytes} bytes, over ${DOCUMENT_MAX_BYTES}`, path);
  }
  const bytes = await file.start(sizeBytes);
  const digest = createHash("sha256").update(bytes).digest("hex") as Digest;
  if (expected.digest !== undefined && digest !== expected.digest) {
    throw wrongDigest(name, path, expected.digest);
  }
  try {
    return { value: JSON.parse(bytes.toString("utf8")) as unknown, digest };
  } catch {
    // The parser's own words would show what is in the file.
    throw badArchive(name, "it is no JSON", path);
  }
}

/** As findDocument, of a file that must be there and be a JSON object. */
export async function readDocument(
  files: ImageFiles,
  path: string,
  expected?: Expected,
): Promise<Json> {
  const found = await findDocument(files, path, expected);
  if (found === undefined) throw badArchive(files.name, "it is missing", path);
  return asObject(found.value, files.name, path);
}

/** BURROW_BAD_ARCHIVE for a file of another size than was announced, if one was. */
export function checkSize(
  archive: string,
  path: string,
  expected: number | undefined,
  actual: number,
): void {
  if (expected === undefined || expected === actual) return;
  throw badArchive(archive, `it has ${actual} bytes, and should have ${expected}`, path);
}

export function asObject(value: unknown, archive: string, where: string): Json {
  if (isObject(value)) return value;
  throw badArchive(archive, "it is no JSON object", where);
}

export function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A list of at most `max` things that `isItem` takes; an empty one where there is none. */
export function listOf<T>(
  value: unknown,
  isItem: (item: unknown) => item is T,
  max: number,
  archive: string,
  what: string,
): readonly T[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value) || !value.every(isItem)) {
    throw badArchive(archive, `${what} is not a list of what it should be`);
  }
  if (value.length > max) throw badArchive(archive, `${what} has over ${max} members`);
  return value as T[];
}

/** Text without NUL. */
export function isText(value: unknown): value is string {
  return typeof value === "string" && !value.includes("\0");
}

/** OCI image-spec descriptor.md; and what platform an index says it is for. */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly platform: Platform | undefined;
  readonly annotations: Json;
}

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant: string;
}

/** Where a blob lies. OCI image-spec image-layout.md. */
export function blobPath(digest: Digest): string {
  return `blobs/sha256/${digest}`;
}

export function descriptorOf(value: unknown, archive: string, where: string): Descriptor {
  const { mediaType, digest, size, annotations, platform } = asObject(value, archive, where);
  const isSize = typeof size === "number" && Number.isSafeInteger(size) && size >= 0;
  if (!isText(mediaType) || !isText(digest) || !isSize) {
    throw badArchive(archive, "a descriptor lacks its media type, digest or size", where);
  }
  const isSha256 = digest.startsWith("sha256:");
  if (!isSha256 && /^[a-z0-9]+([+._-][a-z0-9]+)*:[\w=-]+$/.test(digest)) {
    const what = `digests by ${digest.slice(0, digest.indexOf(":"))} aren't supported`;
    throw new BurrowError("BURROW_UNSUPPORTED", what, { context: { archive, entry: where } });
  }
  const hex = isSha256 ? parseDigest(digest) : undefined;
  if (hex === undefined || digest !== showDigest(hex))
    throw badArchive(archive, "a descriptor's digest is none", where);
  return {
    mediaType,
    digest: hex,
    sizeBytes: size,
    platform: isObject(platform) ? platformOf(platform) : undefined,
    annotations: isObject(annotations) ? annotations : {},
  };
}

/** What an index or a config says; "" for what it doesn't. */
export function platformOf({ os, architecture, variant }: Json): Platform {
  const text = (value: unknown) => (isText(value) ? value : "");
  return { os: text(os), architecture: text(architecture), variant: text(variant) };
}

export function showPlatform({ os, architecture, variant }: Platform): string {
  return [os || "?", architecture || "?", ...(variant === "" ? [] : [variant])].join("/");
}

/** Whether it runs here: Linux on x86-64, of any level. */
export function isOurs({ os, architecture }: Platform): boolean {
  return os === "linux" && architecture === "amd64";
}
