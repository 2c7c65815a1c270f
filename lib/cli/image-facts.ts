// What an image says a command is started with, kept beside the snapshot that was made of it. Its bytes are named by an attribute
// of the snapshot's root, so that they are as good as the snapshot, wherever they come from. Control plane.

import { type Digest, parseDigest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { heldWhole } from "../cache/cache.ts";
import type { CacheDirectory } from "../cache/directory.ts";
import type { ImageDefaults } from "../ingest/oci/config.ts";
import { isObject, isText } from "../ingest/oci/document.ts";
import { rootEntry } from "../layer/entries.ts";
import type { LayerEntry } from "../layer/entry.ts";
import type { Index } from "../layer/index.ts";
import { digestOf } from "../store/hash.ts";
import { objectPath } from "../store/layout.ts";
import { openOrigin } from "../store/open.ts";
import { type Backend, classOf, type WritableBackend } from "../store/store.ts";

export const FACTS_FORMAT = 1;
/** On the root of a snapshot: "sha256:<hex>" of its facts. */
const FACTS_XATTR = "user.burrow.image";
/** An image's config is 4 MiB at most. */
const FACTS_MAX_BYTES = 8 << 20;

export interface ImageFacts extends ImageDefaults {
  readonly format: typeof FACTS_FORMAT;
  /** Digest of the image's config: its "image id" in docker's words. */
  readonly config: string;
  /** What `user` means by the image's own /etc/passwd; null when it says nothing, or names somebody unknown. */
  readonly ids: readonly [number, number] | null;
}

/** The bytes of facts: the same facts, the same bytes. */
export function encodeFacts(facts: ImageFacts): Buffer {
  const { format, config, env, workingDir, entrypoint, cmd, user, ids } = facts;
  const ordered = { format, config, env, workingDir, entrypoint, cmd, user, ids };
  return Buffer.from(`${JSON.stringify(ordered)}\n`);
}

/** A root directory that names its snapshot's facts. */
export function markRoot(root: LayerEntry, facts: Uint8Array): LayerEntry {
  const xattrs = new Map(root.xattrs).set(FACTS_XATTR, showDigest(digestOf(facts)));
  return { ...root, xattrs };
}

export async function writeFacts(
  store: WritableBackend,
  snapshot: Digest,
  facts: Uint8Array,
): Promise<void> {
  await store.put(objectPath("images", snapshot), facts);
}

/** The facts of a snapshot; undefined when it is none of an image. BURROW_DIGEST_MISMATCH, BURROW_CORRUPT, BURROW_UNSUPPORTED. */
export async function readFacts(
  store: Backend,
  snapshot: Digest,
  index: Index,
): Promise<ImageFacts | undefined> {
  const expected = factsDigest(index);
  if (expected === undefined) return undefined;
  return parseFacts(await fetchFacts(store, snapshot, expected), snapshot, store.origin);
}

/** The same from the cache, which gets them from the origin the first time. */
export async function ensureFacts(
  cache: CacheDirectory,
  origin: string,
  snapshot: Digest,
  index: Index,
): Promise<ImageFacts | undefined> {
  const expected = factsDigest(index);
  if (expected === undefined) return undefined;
  const held = await heldWhole(cache, "images", expected);
  if (held !== undefined) return parseFacts(held, snapshot, origin);
  const store = openOrigin(origin);
  try {
    const bytes = await fetchFacts(store, snapshot, expected);
    await cache.writeSealed("images", expected, bytes);
    return parseFacts(bytes, snapshot, origin);
  } finally {
    store.close();
  }
}

/** Their bytes, as the snapshot names them. */
async function fetchFacts(store: Backend, snapshot: Digest, expected: Digest): Promise<Buffer> {
  const context = { snapshot: showDigest(snapshot), store: store.origin };
  const fail = (code: "BURROW_CORRUPT" | "BURROW_DIGEST_MISMATCH", what: string) =>
    new BurrowError(code, what, { context });
  let bytes: Buffer;
  try {
    bytes = await store.get(objectPath("images", snapshot), { maxBytes: FACTS_MAX_BYTES });
  } catch (error) {
    if (classOf(error) !== "notFound") throw error;
    throw fail("BURROW_CORRUPT", "what is kept of the image is gone");
  }
  if (digestOf(bytes) !== expected)
    throw fail("BURROW_DIGEST_MISMATCH", "what is kept of the image is not what its snapshot says");
  return bytes;
}

function parseFacts(bytes: Buffer, snapshot: Digest, store: string): ImageFacts {
  const facts = JSON.parse(bytes.toString("utf8")) as ImageFacts;
  const isKnown = isObject(facts) && facts.format === FACTS_FORMAT;
  if (isKnown && Array.isArray(facts.env) && facts.env.every(isText)) return facts;
  const context = { snapshot: showDigest(snapshot), store };
  const what = "what is kept of the image is of another Burrow";
  throw new BurrowError("BURROW_UNSUPPORTED", what, { context });
}

/** What the root's attribute says. */
function factsDigest(index: Index): Digest | undefined {
  const text = rootEntry(index).xattrs?.get(FACTS_XATTR);
  return text === undefined ? undefined : parseDigest(text);
}

/** The numbers of an image's user by its /etc/passwd and /etc/group, as docker reads them; null when a name isn't there. */
export function userIds(user: string, passwd: string, group: string): [number, number] | null {
  if (user === "") return null;
  const [name, groupName] = user.split(":", 2) as [string, string | undefined];
  const rows = (text: string) => text.split("\n").map((line) => line.split(":"));
  const entry =
    rows(passwd).find((fields) => fields[0] === name) ??
    rows(passwd).find((fields) => fields[2] === name);
  const uid = idOf(entry?.[2] ?? name);
  const groupEntry = rows(group).find((fields) => fields[0] === groupName);
  const gid = groupName
    ? idOf(groupEntry?.[2] ?? groupName)
    : entry === undefined
      ? 0
      : idOf(entry[3] ?? "");
  return uid === undefined || gid === undefined ? null : [uid, gid];
}

/** 2^32 - 1 is no id: it means "leave it as it is". */
function idOf(text: string): number | undefined {
  return /^\d{1,10}$/.test(text) && Number(text) < 2 ** 32 - 1 ? Number(text) : undefined;
}
