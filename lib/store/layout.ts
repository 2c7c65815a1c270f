// Where each object of a store lies: docs/format/store.md, "Layout". Pure. Any plane.

import { type Digest, parseDigest } from "../base/digest.ts";

/** The file that says a directory or prefix is a store, and of which format. */
export const STORE_MARKER = "burrow-store.json";
export const STORE_FORMAT = 1;

/** Folders of a store. Packs and indexes are named by the sha256 of their bytes; the others by an index's. */
export type Folder =
  | "packs"
  | "indexes"
  | "locators"
  | "environments"
  | "images"
  | "profiles"
  | "pins";

/** Folders whose objects a store may have as deltas of others, below deltas/. */
export type DeltaFolder = "indexes" | "locators";

/** "packs/ab/<64 hex>". */
export function objectPath(folder: Folder, digest: Digest): string {
  return `${folder}/${digest.slice(0, 2)}/${digest}`;
}

/** The digest that ends a path; undefined when it is none. */
export function digestOfPath(path: string): Digest | undefined {
  return parseDigest(path.slice(path.lastIndexOf("/") + 1));
}

/** Whether an object's name is the sha256 of its bytes. */
export function isNamedByContent(path: string): boolean {
  return path.startsWith("packs/") || path.startsWith("indexes/");
}

/** What a marker says its format is; undefined where it is no such text. */
export function formatOf(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && "format" in value
      ? value.format
      : undefined;
  } catch {
    return undefined;
  }
}
