// A stage of a bucket that has no manifest: its prefix is listed once, and each object is a file as it was then, named by what pins it and
// not by its bytes, which nobody has read. What can't be a file below a directory is left out and told. docs/design/0011-s3-stages.md.
// Control plane.

import type { BlobRef } from "../../base/blob.ts";
import type { Digest } from "../../base/digest.ts";
import { BurrowError } from "../../base/error.ts";
import {
  ARCHIVE_DIRECTORIES_MAX,
  STAGE_OBJECTS_MAX,
  STAGE_TEXT_MAX_BYTES,
} from "../../base/limits.ts";
import { nameOf } from "../../base/name.ts";
import type { LayerEntry } from "../../layer/entry.ts";
import { digestOf } from "../../store/hash.ts";
import { encodePinnedLocator, type PinnedPlace } from "../../store/locator-writer.ts";
import { pinnedDigest } from "../../store/object-pin.ts";
import type { OpenOptions } from "../../store/open.ts";
import { isArchived, type ListedObject, listObjects } from "../../store/s3-list.ts";
import { parseS3 } from "../../store/s3-place.ts";
import { checkStagePath } from "./manifest.ts";

/** What goes into the names of objects beside the objects. */
export interface Naming {
  /** Of the node whose cache it is. */
  readonly key: Uint8Array;
  /** Whose cache files they are. */
  readonly tenant: string;
}

/** What was found below a prefix. */
export interface Listing {
  readonly objects: number;
  /** Those that are pinned by a version id; the others are by their ETag. */
  readonly versioned: number;
  /** Objects that can't be read before they are restored. They are in the stage, and reading them is EIO. */
  readonly archived: number;
  /** Keys below the prefix that can't be files of a tree, and why; the first of them. */
  readonly skipped: readonly { readonly key: string; readonly why: string }[];
  readonly skippedCount: number;
}

const SKIPPED_SHOWN = 100;
const FILE_MODE = 0o644;
const DIRECTORY_MODE = 0o755;

/** The entries of a prefix of a bucket, with their locator. BURROW_NOT_FOUND for an empty one, BURROW_BAD_PACKAGE past the limits. */
export async function importObjects(
  source: string,
  naming: Naming,
  options: OpenOptions & { readonly onObjects?: (objects: number) => void } = {},
) {
  const collector = new Collector(source);
  for await (const page of listObjects(source, options)) {
    for (const object of page) collector.add(object);
    options.onObjects?.(collector.count);
  }
  const { files, directories, listing } = collector.finish();
  const place = parseS3(source);
  const entries: LayerEntry[] = [];
  const places: PinnedPlace[] = [];
  const common = { uid: 0, gid: 0, mtimeNs: 0 };
  let bytes = 0;
  for (const [path, modifiedMs] of directories) {
    const mtimeSec = Math.floor(modifiedMs / 1000);
    entries.push({
      type: "directory",
      path: nameOf(path),
      mode: DIRECTORY_MODE,
      mtimeSec,
      ...common,
    });
  }
  for (const [path, { pin, modifiedMs }] of files) {
    const digest =
      pin.size === 0 ? EMPTY : pinnedDigest(naming.key, naming.tenant, place, path, pin);
    const mtimeSec = Math.floor(modifiedMs / 1000);
    const blob = refOf(digest, pin.size);
    entries.push({ type: "file", path: nameOf(path), mode: FILE_MODE, mtimeSec, ...common, blob });
    if (pin.size > 0) places.push({ digest, size: pin.size, path, pin });
    bytes += pin.size;
  }
  const locator = encodePinnedLocator(naming.tenant, places);
  const digest = digestOf(locator);
  return { entries, locator, digest, listing, origin: source, bytes, changed: undefined };
}

/** Of an empty file nothing need be read, and its content is known. */
const EMPTY = digestOf(Buffer.alloc(0));

function refOf(digest: Digest, size: number): BlobRef {
  return { digest, size, blocks: [], ...(size > 0 ? { isPinned: true } : {}) };
}

/** Sorts keys into files and directories as they come. */
class Collector {
  count = 0;
  readonly #source: string;
  readonly #files = new Map<string, ListedObject>();
  /** Directories that have an object of their own ("data/"), by path. */
  readonly #marked = new Map<string, number>();
  /** Paths that lead to others. */
  readonly #parents = new Set<string>();
  readonly #skipped: { key: string; why: string }[] = [];
  #skippedCount = 0;
  #textBytes = 0;

  constructor(source: string) {
    this.#source = source;
  }

  add(object: ListedObject): void {
    const { key, pin, modifiedMs } = object;
    this.#textBytes += key.length + pin.etag.length + (pin.versionId?.length ?? 0);
    if (++this.count > STAGE_OBJECTS_MAX)
      throw this.#refuse(`more than ${STAGE_OBJECTS_MAX} objects`);
    if (this.#textBytes > STAGE_TEXT_MAX_BYTES)
      throw this.#refuse(`keys of more than ${STAGE_TEXT_MAX_BYTES} bytes together`);
    if (key === "") return; // the marker of the prefix itself
    const isMarker = key.endsWith("/");
    const path = isMarker ? key.slice(0, -1) : key;
    const why =
      faultOf(path) ?? (isMarker && pin.size > 0 ? "a directory with content" : undefined);
    if (why !== undefined) {
      this.#skip(key, why);
      return;
    }
    this.#addParents(path);
    if (this.#parents.size + this.#marked.size > ARCHIVE_DIRECTORIES_MAX)
      throw this.#refuse(`more than ${ARCHIVE_DIRECTORIES_MAX} directories`);
    if (isMarker) this.#marked.set(path, modifiedMs);
    else this.#files.set(path, object);
  }

  finish() {
    if (this.count === 0) {
      throw new BurrowError("BURROW_NOT_FOUND", "there are no objects below the prefix", {
        context: { source: this.#source },
      });
    }
    let [versioned, archived] = [0, 0];
    for (const [path, object] of this.#files) {
      if (this.#parents.has(path) || this.#marked.has(path)) {
        this.#files.delete(path);
        this.#skip(path, "other keys make it a directory");
        continue;
      }
      if (object.pin.versionId !== undefined) versioned++;
      if (isArchived(object)) archived++;
    }
    const listing: Listing = {
      objects: this.#files.size,
      versioned,
      archived,
      skipped: this.#skipped,
      skippedCount: this.#skippedCount,
    };
    return { files: this.#files, directories: this.#marked, listing };
  }

  #addParents(path: string): void {
    for (let at = path.lastIndexOf("/"); at > 0; at = path.lastIndexOf("/", at - 1)) {
      const parent = path.slice(0, at);
      if (this.#parents.has(parent)) return;
      this.#parents.add(parent);
    }
  }

  #skip(key: string, why: string): void {
    this.#skippedCount++;
    if (this.#skipped.length < SKIPPED_SHOWN) this.#skipped.push({ key, why });
  }

  #refuse(what: string): BurrowError {
    return new BurrowError("BURROW_BAD_PACKAGE", `the prefix has ${what}: take one with fewer`, {
      context: { source: this.#source },
    });
  }
}

/** Why a path can't be one below a root; undefined when it can. */
function faultOf(path: string): string | undefined {
  try {
    checkStagePath(path);
    return undefined;
  } catch {
    if (path.includes("\0")) return "NUL in a name";
    const parts = path.split("/");
    if (parts.includes("")) return "an empty name";
    if (parts.includes(".") || parts.includes("..")) return "a name that means another directory";
    return "a name of more than 255 bytes, or a path of more than 4,095 bytes or 256 names";
  }
}
