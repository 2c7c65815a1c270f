// What a successor makes of an overlay's journal: the inodes that its predecessor's client knows, under the numbers that it knows them
// by. What can't be found again is left out, and answers EIO. Data plane, before the first request.

import { S_IFDIR, S_IFMT } from "../base/file-types.ts";
import type { Name } from "../base/name.ts";
import type { OverlayJournal, OverlayRow } from "./overlay-journal.ts";
import { NONE, type OverlayNode } from "./overlay-nodes.ts";
import { linksBelow, type OverlayParts } from "./overlay-parts.ts";
import type { Ino } from "./tree.ts";

/** Names by their inodes, of directories of the lower tree that were read: each once, for it may have 10^5. */
type NamesBelow = Map<Ino, Map<number, Name>>;

/** Brings a predecessor's inodes to life, with one reference each until the tree settles. `root` has no row. */
export function restoreNodes(
  parts: OverlayParts,
  journal: OverlayJournal,
  root: OverlayNode,
): OverlayNode[] {
  const rows = new Map<number, OverlayRow>();
  for (const row of journal.restore()) rows.set(row.ino, row);
  const restored: OverlayNode[] = [];
  const names: NamesBelow = new Map();
  for (const row of rows.values()) nodeOfRow(parts, journal, rows, row, root, restored, names);
  parts.nodes.takeJournal(journal);
  return restored;
}

/** The node of a row, with those above it; undefined when one of them can't be had. */
function nodeOfRow(
  parts: OverlayParts,
  journal: OverlayJournal,
  rows: ReadonlyMap<number, OverlayRow>,
  row: OverlayRow,
  root: OverlayNode,
  restored: OverlayNode[],
  names: NamesBelow,
): OverlayNode | undefined {
  const chain: OverlayRow[] = [];
  let above: OverlayNode | undefined;
  for (let at: OverlayRow | undefined = row; at !== undefined; at = rows.get(at.parent)) {
    above = parts.nodes.get(at.ino);
    if (above !== undefined || chain.includes(at)) break;
    chain.push(at);
    if (at.parent === root.ino) above = root;
    if (above !== undefined || at.parent === 0) break;
  }
  for (let at = chain.pop(); at !== undefined; at = chain.pop()) {
    const node =
      at.parent !== 0 && above === undefined ? undefined : makeNode(parts, at, above, names);
    if (node === undefined) {
      for (const lost of [at, ...chain]) if (rows.get(lost.ino) === lost) journal.remove(lost.row);
      return undefined;
    }
    restored.push(node);
    above = node;
  }
  return above;
}

function makeNode(
  parts: OverlayParts,
  { row, ino, upper, lower, parent, isUnlinked, isMetadata }: OverlayRow,
  above: OverlayNode | undefined,
  names: NamesBelow,
): OverlayNode | undefined {
  const { attr, nodes, records } = parts;
  if (upper !== NONE && parts.upper.acquire(upper) < 0) return undefined;
  const failed =
    upper === NONE ? parts.lower.getattr(lower, attr) : parts.upper.getattr(upper, attr);
  const type = attr.mode & S_IFMT;
  const isNameless = isUnlinked || (upper !== NONE && attr.nlink === 0);
  const isCopy = upper !== NONE && lower !== NONE;
  const kept = upper === NONE ? undefined : records.get(attr.ino);
  const nameless = { hostIno: attr.ino, lower, isMetadata, hidden: 0 };
  const record = isCopy && isNameless ? nameless : kept;
  const directory = parent === 0 ? undefined : above;
  const name =
    upper === NONE && directory !== undefined ? nameBelow(parts, directory, lower, names) : "";
  if (failed < 0 || name === undefined || (isCopy && record === undefined)) {
    if (upper !== NONE) parts.upper.release(upper);
    return undefined;
  }
  const lowerLinks = lower === NONE || type === S_IFDIR ? 0 : linksBelow(parts, lower);
  const found = { type, upper, lower, lowerLinks, record, parent: directory, name: name as Name };
  return nodes.restore({ ...found, ino, row, isUnlinked: isNameless });
}

/** The name of an inode in a directory of the lower tree: the first of several. */
function nameBelow(
  { lower: tree }: OverlayParts,
  { lower: directory }: OverlayNode,
  lower: Ino,
  names: NamesBelow,
): Name | undefined {
  let known = names.get(directory);
  if (known === undefined) {
    const found = new Map<number, Name>();
    tree.readdir(directory, 0, 0, (_ino, _dev, _type, name) => {
      const ino = tree.lookup(directory, name as Name);
      if (!found.has(ino)) found.set(ino, name as Name);
      return true;
    });
    names.set(directory, found);
    known = found;
  }
  return known.get(lower);
}
