// Files of a directory's store that are being written, in tmp/: named by the process that writes them, so that what a killed one left
// can be told from what a live one needs. Control plane.

import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { hasEnded, isOfHere, ownOwner } from "../sys/owner.ts";

/** Folder for objects that are being written; never listed. */
export const TMP = "tmp";

/**
 * A store may be shared by machines and containers, of whose processes nothing is known here: what they write is 32 MiB at most, so after a day it is
 * nobody's.
 */
const STRANGER_MAX_MS = 86_400_000;

let owner: string | undefined;

/** A name in tmp/ that nothing had before. */
export function asideName(): string {
  owner ??= ownOwner();
  return `${owner}@${randomBytes(12).toString("hex")}`;
}

/** Removes what killed writers left in a store. What can't be removed stays for a later sweep. */
export function sweepAside(root: string): void {
  const folder = `${root}/${TMP}`;
  let names: string[];
  try {
    names = fs.readdirSync(folder);
  } catch {
    return; // no store yet
  }
  for (const name of names) {
    try {
      if (isLeft(`${folder}/${name}`, name.split("@")[0]!)) fs.unlinkSync(`${folder}/${name}`);
    } catch {} // another sweep was first, or it is another user's
  }
}

function isLeft(path: string, writer: string): boolean {
  if (isOfHere(writer)) return hasEnded(writer);
  const facts = fs.lstatSync(path);
  return facts.isFile() && Date.now() - facts.mtimeMs > STRANGER_MAX_MS;
}
