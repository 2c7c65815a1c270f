// Name: one path component as a latin1 string: lossless for any bytes, one char a byte. UTF-8 only
// when shown to people. Any plane.

import { Errno } from "./errno.ts";
import { NAME_MAX_BYTES } from "./limits.ts";

/** One path component, byte for byte (latin1). Brand made only by checkName and nameOf. */
export type Name = string & { readonly __brand: "Name" };

/**
 * Whether these latin1 bytes may be a path component: 0, or -EINVAL for "", ".", "..", "/" or NUL,
 * or -ENAMETOOLONG past 255 bytes. LISAFS: handlers.go checkSafeName; length and NUL are ours, since
 * most names never reach a host call that would check them (threats.md, "paths").
 */
export function checkName(text: string): number {
  const length = text.length;
  if (length > NAME_MAX_BYTES) return -Errno.ENAMETOOLONG;
  if (length === 0) return -Errno.EINVAL;
  if (text.includes("/") || text.includes("\0")) return -Errno.EINVAL;
  if (length <= 2 && text.charCodeAt(0) === 0x2e) {
    if (length === 1 || text.charCodeAt(1) === 0x2e) return -Errno.EINVAL;
  }
  return 0;
}

/** Whether these latin1 bytes may name an extended attribute: 0, -EINVAL for "" or NUL, -ERANGE past 255 bytes. man xattr(7). */
export function checkXattrName(text: string): number {
  if (text.length === 0 || text.includes("\0")) return -Errno.EINVAL;
  return text.length > NAME_MAX_BYTES ? -Errno.ERANGE : 0;
}

/** The Name of a UTF-8 string of ours (a path component in a manifest or an archive header). */
export function nameOf(utf8: string): Name {
  return Buffer.from(utf8, "utf8").toString("latin1") as Name;
}

/** A Name, or latin1 path, as people read it. */
export function showName(latin1: string): string {
  return Buffer.from(latin1, "latin1").toString("utf8");
}

/** Byte order of two latin1 strings: negative, 0 or positive. The order of dentries in an index. */
export function compareNames(left: string, right: string): number {
  return left < right ? -1 : left > right ? 1 : 0;
}
