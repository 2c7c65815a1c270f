// What the root directory of an environment's snapshot says of it, in extended attributes: all that a launch needs. So it is as good as
// the snapshot, wherever that comes from, and asks no store for a document. docs/format/store.md. Control plane.

import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { isObject, isText } from "../ingest/oci/document.ts";
import { rootEntry } from "../layer/entries.ts";
import type { LayerEntry } from "../layer/entry.ts";
import { XATTR_VALUE_MAX_BYTES } from "../layer/entry-check.ts";
import type { Index } from "../layer/index.ts";

/** Where the environment is seen in the sandbox. */
export const PREFIX_XATTR = "user.burrow.prefix";
/** Of a compiled environment: digest of the layer that was captured. */
const CAPTURED_XATTR = "user.burrow.captured";
/** Of a compiled environment: what activation sets, a JSON object of strings. */
const VARIABLES_XATTR = "user.burrow.variables";

export interface EnvironmentRoot {
  readonly prefix: string;
  /** Variables of a command that runs in it; undefined where an earlier Burrow compiled it, which kept them where nothing vouches for them. */
  readonly variables: Readonly<Record<string, string>> | undefined;
}

/** Whether the text is an absolute path below /, without a slash at its end. */
export function isPrefix(text: string): boolean {
  const names = text.split("/").slice(1);
  return (
    text.startsWith("/") && names.every((name) => !/^\.{0,2}$/.test(name) && !name.includes("\0"))
  );
}

/** The root of an environment: two prefixes of packages without one in their files would be one snapshot. */
export function rootOfPrefix(prefix: string): LayerEntry {
  const xattrs = new Map([[PREFIX_XATTR, latin1(prefix)]]);
  const plain = { mode: 0o755, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 };
  return { type: "directory", path: "", ...plain, xattrs };
}

/** The root of an environment once it is compiled. BURROW_CAPTURE for more variables than an attribute holds. */
export function rootOfCompiled(
  index: Index,
  layer: Digest,
  variables: Readonly<Record<string, string>>,
): LayerEntry {
  const root = rootEntry(index);
  const names = Object.keys(variables).sort();
  const text = latin1(
    JSON.stringify(Object.fromEntries(names.map((name) => [name, variables[name]]))),
  );
  if (text.length > XATTR_VALUE_MAX_BYTES) {
    const what = `activation sets variables of ${text.length} bytes`;
    const advice = "--no-activate leaves them out";
    throw new BurrowError("BURROW_CAPTURE", `${what}, over ${XATTR_VALUE_MAX_BYTES}; ${advice}`);
  }
  const marks: [string, string][] = [
    [CAPTURED_XATTR, layer],
    [VARIABLES_XATTR, text],
  ];
  return { ...root, xattrs: new Map([...(root.xattrs ?? []), ...marks]) };
}

/** What a launch needs of an environment. BURROW_USAGE when the snapshot is none of one, BURROW_BAD_INDEX when its root makes no sense. */
export function readRoot(index: Index, snapshot: Digest): EnvironmentRoot {
  const { xattrs } = rootEntry(index);
  const prefix = xattrs?.get(PREFIX_XATTR);
  if (prefix === undefined)
    throw new BurrowError(
      "BURROW_USAGE",
      `${showDigest(snapshot)} is no environment; burrow env ls has all`,
    );
  const text = xattrs?.get(VARIABLES_XATTR);
  const isOlder = text === undefined && xattrs?.has(CAPTURED_XATTR) === true;
  const variables = text === undefined ? {} : parseVariables(text, snapshot);
  if (!isPrefix(utf8(prefix))) throw senseless(snapshot, "prefix");
  return { prefix: utf8(prefix), variables: isOlder ? undefined : variables };
}

function parseVariables(text: string, snapshot: Digest): Record<string, string> {
  let value: unknown;
  try {
    value = JSON.parse(utf8(text));
  } catch {
    value = undefined;
  }
  if (areVariables(value)) return value;
  throw senseless(snapshot, "variables");
}

/** Whether something is what a sandbox may be given as variables: a shell's names, and texts. */
export function areVariables(value: unknown): value is Record<string, string> {
  const isVariable = ([name, content]: [string, unknown]) =>
    /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) && isText(content) && !content.includes("\0");
  return isObject(value) && Object.entries(value).every(isVariable);
}

function senseless(snapshot: Digest, what: "prefix" | "variables"): BurrowError {
  const text = `${showDigest(snapshot)}: what its root says of the environment's ${what} makes no sense`;
  return new BurrowError("BURROW_BAD_INDEX", text);
}

/** Attributes hold bytes, a character each. */
function latin1(text: string): string {
  return Buffer.from(text).toString("latin1");
}

function utf8(bytes: string): string {
  return Buffer.from(bytes, "latin1").toString("utf8");
}
