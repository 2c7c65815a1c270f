// Listing a directory of an overlay: first the names that the lower tree has in it, each as it is seen now, then those that only the
// upper has. So a name that is copied up meanwhile is neither missed nor given twice, and nothing is held. Data plane.

import { Errno } from "../base/errno.ts";
import type { Name } from "../base/name.ts";
import { NONE, type OverlayNode } from "./overlay-nodes.ts";
import {
  attrOfNode,
  findNode,
  lowerName,
  type OverlayParts,
  upperDevMinor,
} from "./overlay-parts.ts";
import { DT_WHT } from "./shown-types.ts";
import { Attr, type DirentSink, type Ino } from "./tree.ts";

/** Cookies from here on are positions in the upper. */
const UPPER_COOKIE = 2 ** 32;
const seen = new Attr();

/** What became of a name that was offered; -errno besides. */
const Offer = { full: 0, taken: 1 } as const;

/** Tree.readdir. A name that can't be told is an error: a listing without it would say that it is gone. */
export function readdir(
  parts: OverlayParts,
  node: OverlayNode,
  handle: number,
  cookie: number,
  sink: DirentSink,
): number {
  if (cookie < UPPER_COOKIE && node.lower !== NONE && !node.isUnlinked) {
    let offered: number = Offer.taken;
    const next = parts.lower.readdir(node.lower, 0, cookie, (ino, devMinor, type, name) => {
      offered = offerLower(parts, node, ino, devMinor, type, name as Name, sink);
      return offered === Offer.taken;
    });
    if (offered < 0) return offered;
    if (next < 0 || offered === Offer.full) return next;
  }
  const position = Math.max(0, cookie - UPPER_COOKIE);
  const upperHandle = parts.files.directoryHandle(handle);
  if (upperHandle === -Errno.ENOENT) return UPPER_COOKIE;
  if (upperHandle < 0) return upperHandle;
  const end = parts.upper.readdir(
    node.upper,
    upperHandle,
    position,
    (hostIno, devMinor, type, name) =>
      type === DT_WHT ||
      lowerName(parts, node, name as Name) >= 0 ||
      offerUpper(parts, hostIno, devMinor, type, name, sink),
  );
  return end < 0 ? end : UPPER_COOKIE + end;
}

/** A name of the lower tree, unless it is hidden; as the upper has it where that has it. One of Offer, or -errno. */
function offerLower(
  parts: OverlayParts,
  dir: OverlayNode,
  ino: number,
  devMinor: number,
  type: number,
  name: Name,
  sink: DirentSink,
): number {
  if (dir.upper === NONE) return Number(sink(ino, devMinor, type, name));
  const node = findNode(parts, dir, name);
  if (typeof node === "number") return node === -Errno.ENOENT ? Offer.taken : node;
  const failed = attrOfNode(parts, node, seen);
  parts.nodes.release(node);
  if (failed < 0) return failed;
  // S_IFMT >> 12 is DT_*. <dirent.h> IFTODT
  return Number(sink(seen.ino, seen.devMinor, seen.mode >>> 12, name));
}

function offerUpper(
  parts: OverlayParts,
  hostIno: number,
  devMinor: number,
  type: number,
  name: string,
  sink: DirentSink,
): boolean {
  const record = parts.records.get(hostIno);
  if (record === undefined) return sink(hostIno, upperDevMinor(devMinor), type, name);
  const failed = parts.lower.getattr(record.lower as Ino, seen);
  return failed < 0 || sink(seen.ino, seen.devMinor, type, name);
}
