// What a tar header and its PAX records say of one entry, checked field by field. The reader hands on whatever it parsed: NaN and
// text that was no UTF-8 among it. Control plane.

import { PAX_RECORDS_MAX } from "../base/limits.ts";
import { showName } from "../base/name.ts";
import type { PaxRecords, RawHeader } from "./tar-block.ts";
import type { TarEntry } from "./tar-reader.ts";

export interface Attributes {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSec: number;
  readonly mtimeNs: number;
  readonly xattrs?: ReadonlyMap<string, string>;
}

export interface TarHeader {
  readonly type: NonNullable<TarEntry["type"]>;
  /** Latin1, as archived: neither normal nor safe. */
  readonly name: string;
  readonly linkname: string;
  readonly size: number;
  readonly attributes: Attributes;
}

const ID_MAX = 0xffff_ffff;
/** Of a header alone: 273,000 years, which a Date can hold. */
const TIME_MAX_SEC = 8_640_000_000_000;
/** star(1) and GNU tar --xattrs: pax key prefix; the rest of the key is the attribute's name. */
const XATTR_KEY = "SCHILY.xattr.";
/** man xattr(7): XATTR_NAME_MAX and XATTR_SIZE_MAX. */
const XATTR_NAME_MAX_BYTES = 255;
const XATTR_VALUE_MAX_BYTES = 65_536;
/** overlayfs.rst: these decide how layers are stacked; an archive says so with whiteouts or not at all. */
const XATTR_RESERVED = /^(trusted|user)\.overlay\./;
const DECIMAL = /^(-?)(\d{1,16})(?:\.(\d*))?$/;
const REPLACEMENT = "\ufffd";

/** An entry's header as checked facts, or why it can't be taken. */
export function readHeader(entry: TarEntry): TarHeader | string {
  const { type, pax } = entry;
  if (pax.size > PAX_RECORDS_MAX) return `it has over ${PAX_RECORDS_MAX} PAX records`;
  for (const key of pax.keys()) if (key.startsWith("GNU.sparse.")) return "a sparse file";
  if (type === undefined) return "an entry of unknown type";
  const name = pax.get("path") ? lossless(pax.get("path")!) : entry.name;
  const linkname = pax.get("linkpath") ? lossless(pax.get("linkpath")!) : entry.linkname;
  if (name === undefined || linkname === undefined) return "a PAX name that is not UTF-8";
  const size = whole(entry.size, Number.MAX_SAFE_INTEGER);
  if (size === undefined) return "a size that is no number";
  const attributes = attributesOf(entry.header, pax);
  if (typeof attributes === "string") return attributes;
  return { type, name, linkname, size, attributes };
}

/** An entry's name as people read it, before anything is known of it. */
export function shownName({ name, pax }: TarEntry): string {
  return pax.get("path") || showName(name);
}

function attributesOf(header: RawHeader, pax: PaxRecords): Attributes | string {
  const mode = whole(header.mode, Number.MAX_SAFE_INTEGER);
  const uid = whole(pax.has("uid") ? Number(pax.get("uid")) : header.uid, ID_MAX);
  const gid = whole(pax.has("gid") ? Number(pax.get("gid")) : header.gid, ID_MAX);
  if (mode === undefined || uid === undefined || gid === undefined) {
    return "a mode or owner that is no number";
  }
  const time = pax.has("mtime") ? decimalTime(pax.get("mtime")!) : wholeTime(header.mtimeSec);
  if (time === undefined) return "a time that is no number";
  const { mtimeSec, mtimeNs } = time;
  const plain = { mode: mode & 0o7777, uid, gid, mtimeSec, mtimeNs };
  if (pax.size === 0) return plain;
  const xattrs = xattrsOf(pax);
  if (typeof xattrs === "string") return xattrs;
  return xattrs.size > 0 ? { ...plain, xattrs } : plain;
}

/** The latin1 bytes of text that was decoded as UTF-8; undefined when the decoding may have lost some. */
function lossless(text: string): string | undefined {
  if (text.includes(REPLACEMENT)) return undefined;
  return Buffer.from(text, "utf8").toString("latin1");
}

function whole(value: number, max: number): number | undefined {
  return Number.isInteger(value) && value >= 0 && value <= max ? value : undefined;
}

interface Time {
  mtimeSec: number;
  mtimeNs: number;
}

function wholeTime(sec: number): Time | undefined {
  return Math.abs(sec) <= TIME_MAX_SEC ? { mtimeSec: sec, mtimeNs: 0 } : undefined;
}

/** POSIX pax: a decimal number of seconds, of any precision. Exact: a double would lose nanoseconds. */
function decimalTime(text: string): Time | undefined {
  const [, sign, seconds, fraction] = DECIMAL.exec(text) ?? [];
  if (seconds === undefined || !Number.isSafeInteger(Number(seconds))) return undefined;
  const ns = Number((fraction ?? "").slice(0, 9).padEnd(9, "0"));
  if (sign !== "-") return { mtimeSec: Number(seconds), mtimeNs: ns };
  // Below zero too the nanoseconds count upwards: -1.25 s is second -2 and 750,000,000 ns.
  const isExact = ns === 0;
  return { mtimeSec: -Number(seconds) - (isExact ? 0 : 1), mtimeNs: isExact ? 0 : 1e9 - ns };
}

function xattrsOf(pax: PaxRecords): Map<string, string> | string {
  const xattrs = new Map<string, string>();
  for (const [key, text] of pax) {
    if (!key.startsWith(XATTR_KEY)) continue;
    const name = lossless(key.slice(XATTR_KEY.length));
    const value = lossless(text);
    if (name === undefined || value === undefined) {
      return "an extended attribute that can't be read without loss (not UTF-8)";
    }
    if (name === "" || name.length > XATTR_NAME_MAX_BYTES || name.includes("\0")) {
      return "an extended attribute with a bad name";
    }
    if (value.length > XATTR_VALUE_MAX_BYTES) return "an extended attribute over 64 KiB";
    if (!XATTR_RESERVED.test(name)) xattrs.set(name, value);
  }
  return xattrs;
}
