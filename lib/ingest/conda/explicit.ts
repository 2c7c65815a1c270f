// @EXPLICIT locks: one package a line, by URL or path, with its hash: what `conda list --explicit --md5` writes, and back. Pure.
// Control plane.

import { fileURLToPath } from "node:url";
import { BurrowError } from "../../base/error.ts";
import { PATH_MAX_BYTES } from "../../base/limits.ts";
import { isS3, parseS3 } from "../../store/s3-place.ts";
import { ARCHIVE_SUFFIX, type Dist } from "./dist.ts";

export interface ExplicitPackage {
  /** As in the lock, without the hash. */
  readonly url: string;
  /** The file of a file:// URL or bare path; undefined for http(s) and s3. */
  readonly path?: string;
  readonly sha256?: string;
  readonly md5?: string;
  /** Bytes of the archive, where a channel or lock says so. */
  readonly size?: number;
  /** What it must be, where a channel or lock says so; the name in lower case. */
  readonly dist?: Dist;
  /** In the lock, or among the packages of a list. */
  readonly line: number;
}

const ADVICE = '"conda list --explicit --sha256" writes such a lock';
const HASH = /^(?:(md5|sha256):)?([0-9a-f]+)$/i;

/** The packages of a lock in their order. BURROW_BAD_LOCK, with the line, for what is none. `where` is what errors call it. */
export function parseExplicit(text: string, where: string): ExplicitPackage[] {
  const packages: ExplicitPackage[] = [];
  let isExplicit = false;
  for (const [i, raw] of text
    .replace(/^\ufeff/, "")
    .split(/\r?\n/)
    .entries()) {
    const line = raw.trim();
    if (line === "" || line.startsWith("#")) continue;
    if (line === "@EXPLICIT") {
      isExplicit = true;
      continue;
    }
    const refuse = (why: string): never => {
      // Not the line itself: it may hold a token.
      throw new BurrowError("BURROW_BAD_LOCK", `${where}:${i + 1}: ${why}`, {
        context: { source: where, line: i + 1 },
      });
    };
    if (!isExplicit) refuse(`an @EXPLICIT line must come before the packages; ${ADVICE}`);
    packages.push(parseLine(line, i + 1, refuse));
  }
  if (isExplicit) return packages;
  throw new BurrowError(
    "BURROW_BAD_LOCK",
    `${where} has no @EXPLICIT line: it is no explicit lock; ${ADVICE}`,
    { context: { source: where } },
  );
}

function parseLine(line: string, number: number, refuse: (why: string) => never): ExplicitPackage {
  const at = line.indexOf("#");
  const url = at < 0 ? line : line.slice(0, at);
  if (url.length > PATH_MAX_BYTES) refuse("the URL is too long");
  if (!ARCHIVE_SUFFIX.test(url)) refuse("the package is no .conda or .tar.bz2");
  return {
    url,
    line: number,
    ...pathOf(url, refuse),
    ...(at < 0 ? {} : hashOf(line.slice(at + 1), refuse)),
  };
}

/** The file of a file URL or bare path; nothing for http(s) and s3. `refuse` must throw. */
export function pathOf(url: string, refuse: (why: string) => never): { path?: string } {
  if (/^https?:\/\//.test(url)) return URL.canParse(url) ? {} : refuse("the URL is none");
  if (isS3(url)) return isObject(url) ? {} : refuse("the s3 URL names no object of a bucket");
  if (!url.startsWith("file://")) {
    return /^[a-z][a-z0-9+.-]*:\/\//i.test(url)
      ? refuse("only http, https, s3 and file URLs are read")
      : { path: url };
  }
  try {
    return { path: fileURLToPath(url) };
  } catch {
    return refuse("the file URL names no local path");
  }
}

function isObject(url: string): boolean {
  try {
    return !url.includes("?") && parseS3(url).prefix !== "";
  } catch {
    return false;
  }
}

/** A bare hash is md5 by conda's custom, sha256 by its length. */
function hashOf(text: string, refuse: (why: string) => never): { sha256?: string; md5?: string } {
  const match = HASH.exec(text);
  const hex = match?.[2]?.toLowerCase() ?? "";
  const kind = match?.[1]?.toLowerCase() ?? (hex.length === 64 ? "sha256" : "md5");
  if (kind === "sha256" && hex.length === 64) return { sha256: hex };
  if (kind === "md5" && hex.length === 32) return { md5: hex };
  return refuse("what stands behind # is no md5 or sha256");
}

/** A list as a lock, which parseExplicit() reads. `comments` go in front, a line each. */
export function formatExplicit(
  packages: readonly { readonly url: string; readonly sha256: string }[],
  comments: readonly string[] = [],
): string {
  const lines = packages.map(({ url, sha256 }) => `${url}#sha256:${sha256}`);
  return [...comments.map((text) => `# ${text}`), "@EXPLICIT", ...lines, ""].join("\n");
}
