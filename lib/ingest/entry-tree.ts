// EntryTree: the entries of one source as they come, held to describe one plain tree: every path once, nothing below what is no
// directory, hard links to files that are there. Any order, directories late or never. Control plane.

import {
  ARCHIVE_DIRECTORIES_MAX,
  ARCHIVE_TEXT_MAX_BYTES,
  PATH_MAX_BYTES,
  TREE_DEPTH_MAX,
} from "../base/limits.ts";
import { checkName } from "../base/name.ts";
import type { LayerEntry } from "../layer/entry.ts";

/** Why a path or entry is refused; for people, after the entry's name. */
export class Refusal {
  readonly why: string;

  constructor(why: string) {
    this.why = why;
  }
}

/**
 * An archived path (latin1) as a layer has it: "./" and doubled slashes gone; "" is the root. A Refusal for one that is
 * absolute, has "..", a bad name, or is too long or deep.
 */
export function plainPath(text: string): string | Refusal {
  if (text.length < PLAIN_MAX_BYTES && PLAIN.test(text)) return text;
  if (text.length > PATH_MAX_BYTES) return new Refusal("its path is too long");
  if (text.startsWith("/")) return new Refusal("its path is absolute");
  const names = text.split("/").filter((name) => name !== "" && name !== ".");
  if (names.length > TREE_DEPTH_MAX) return new Refusal("its path is too deep");
  for (const name of names) {
    if (name === "..") return new Refusal('its path has ".."');
    if (checkName(name) < 0) return new Refusal("its path has a name that is not allowed");
  }
  return names.join("/");
}

/** Most paths are as a layer has them, and need no more than a look: names that checkName allows, with one slash between. */
const PLAIN = /^(?!\.\.?(?:\/|$))[^/\0]{1,255}(?:\/(?!\.\.?(?:\/|$))[^/\0]{1,255})*$/;
/** A shorter path can't be too deep: a name and its slash are two bytes. */
const PLAIN_MAX_BYTES = 2 * TREE_DEPTH_MAX;

const NO_ATTRIBUTES = { mode: 0o755, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 };

export class EntryTree {
  readonly #entries = new Map<string, LayerEntry>();
  /** Paths with something below them, whether they have an entry or not. */
  readonly #parents = new Set<string>();
  readonly #whiteouts = new Map<string, LayerEntry>();
  readonly #opaques = new Set<string>();
  #linkGroups = 0;
  #textBytes = 0;

  /** Takes an entry, or says why not: see importTar for a path that comes twice. */
  add(entry: LayerEntry): Refusal | undefined {
    const { path, type } = entry;
    this.#textBytes += textBytes(entry);
    if (this.#textBytes > ARCHIVE_TEXT_MAX_BYTES)
      return new Refusal(`names and attributes take over ${ARCHIVE_TEXT_MAX_BYTES} bytes`);
    if (type === "whiteout") {
      this.#whiteouts.set(path, entry);
      return undefined;
    }
    const refusal = this.#claimParents(path);
    if (refusal !== undefined) return refusal;
    if (type !== "directory") {
      if (path === "") return new Refusal("the root is no directory");
      if (this.#parents.has(path))
        return new Refusal("it takes the place of a directory that is not empty");
    }
    const known = this.#entries.get(path);
    if (known !== undefined && !isSame(known, entry))
      return new Refusal("it comes twice, with different content");
    this.#entries.set(path, entry);
    return undefined;
  }

  /** Adds a hard link to the file at `target`: the entry that stands for it, or why not. */
  link(path: string, target: string): LayerEntry | Refusal {
    const first = this.#entries.get(target);
    if (first === undefined)
      return new Refusal("it is a hard link to what is not in the archive before it");
    if (first.type === "directory") return new Refusal("it is a hard link to a directory");
    let linked = first;
    if (first.type === "file" && first.linkGroup === undefined) {
      linked = { ...first, linkGroup: String(++this.#linkGroups) };
      this.#entries.set(target, linked);
    }
    const entry = { ...linked, path };
    return this.add(entry) ?? entry;
  }

  /** Marks a directory opaque, whenever it comes. */
  markOpaque(path: string): Refusal | undefined {
    const refusal = this.#claimParents(path === "" ? "" : `${path}/`);
    if (refusal === undefined) this.#opaques.add(path);
    return refusal;
  }

  /**
   * The entries, each path once. A whiteout hides what lower layers have, never what this one has: over a directory it
   * makes it opaque, over anything else it says nothing. OCI image-spec layer.md "whiteouts".
   */
  *entries(): Iterable<LayerEntry> {
    const opaques = new Set(this.#opaques);
    for (const [path, entry] of this.#whiteouts) {
      if (this.#isDirectory(path)) opaques.add(path);
      else if (!this.#entries.has(path) && !this.#isBelowNothing(path)) yield entry;
    }
    for (const [path, entry] of this.#entries) {
      yield entry.type === "directory" && opaques.delete(path) ? { ...entry, opaque: true } : entry;
    }
    for (const path of opaques) {
      // After a whiteout it is a new directory; what is opaque alone is the one of lower layers, emptied.
      const implied = this.#whiteouts.has(path) ? {} : { implied: true };
      yield { type: "directory", path, ...NO_ATTRIBUTES, opaque: true, ...implied };
    }
  }

  #isDirectory(path: string): boolean {
    return this.#parents.has(path) || this.#entries.get(path)?.type === "directory";
  }

  /** Whether a whiteout is needless: what it hides lies below another whiteout, or below what is no directory. */
  #isBelowNothing(path: string): boolean {
    for (const parent of parentsOf(path)) {
      if (this.#isDirectory(parent)) return false;
      if (this.#entries.has(parent) || this.#whiteouts.has(parent)) return true;
    }
    return false;
  }

  /** Notes every directory above a path. Stops at the first that is noted: its own are then too. */
  #claimParents(path: string): Refusal | undefined {
    for (const parent of parentsOf(path)) {
      if (this.#parents.has(parent)) return undefined;
      const entry = this.#entries.get(parent);
      if (entry !== undefined && entry.type !== "directory") {
        return new Refusal(`it lies below a ${entry.type}`);
      }
      this.#parents.add(parent);
      if (this.#parents.size > ARCHIVE_DIRECTORIES_MAX)
        return new Refusal(`there are over ${ARCHIVE_DIRECTORIES_MAX} directories`);
    }
    return undefined;
  }
}

/** The directories above a path, nearest first, without the root. */
function* parentsOf(path: string): Iterable<string> {
  for (let end = path.lastIndexOf("/"); end > 0; end = path.lastIndexOf("/", end - 1)) {
    yield path.slice(0, end);
  }
}

/** Bytes of text that an entry holds. */
function textBytes(entry: LayerEntry): number {
  let bytes = entry.path.length + (entry.type === "symlink" ? entry.target.length : 0);
  for (const [name, value] of entry.xattrs ?? []) bytes += name.length + value.length;
  return bytes;
}

function isSame(known: LayerEntry, entry: LayerEntry): boolean {
  if (known.type === "file")
    return entry.type === "file" && known.blob.digest === entry.blob.digest;
  if (known.type === "symlink") return entry.type === "symlink" && known.target === entry.target;
  return known.type === entry.type;
}
