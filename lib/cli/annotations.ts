// Annotations of an OCI bundle that ask for mounts: read and checked. Who starts a container may write them without having a say on this
// node (a pod's author), so each is bounded and names no place of the host unless the node's operator allows it.
// docs/format/annotations.md. Pure. Control plane.

import { type Digest, parseDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { NAME_MAX_BYTES } from "../base/limits.ts";
import { isPrefix } from "./env-root.ts";
import { parseSize } from "./query.ts";

const ANNOTATION_PREFIX = "dev.burrow.";
/** Each is a connection and a thread's wait in the sandbox's gofer; a query has a handful. */
const WANTED_MAX = 64;
/** PATH_MAX of Linux, twice. */
const VALUE_MAX_CHARS = 8192;
/** The sandbox's own: nothing of it is served. */
const OWN = ["/proc", "/sys", "/dev"];

/** What the operator of the node lets annotations name. */
export interface Allowed {
  /** Sources of stages, and what lies below them. */
  readonly stages: readonly string[];
  /** Bytes of scratch that a bundle may have in all. */
  readonly scratchBytes: number;
}

export type Wanted =
  | { readonly kind: "env"; readonly snapshot: Digest }
  | { readonly kind: "snapshot"; readonly at: string; readonly snapshot: Digest }
  | { readonly kind: "stage"; readonly at: string; readonly source: string }
  | { readonly kind: "scratch"; readonly at: string; readonly sizeBytes: number };

function refuse(name: string, why: string): BurrowError {
  return new BurrowError("BURROW_USAGE", `annotation ${name}: ${why}`);
}

/** What the annotations ask for, in the order of their names. BURROW_USAGE, naming the one that can't be. */
export function wantedOf(annotations: unknown, allowed: Allowed): Wanted[] {
  if (typeof annotations !== "object" || annotations === null) return [];
  const ours = Object.entries(annotations).filter(([name]) => name.startsWith(ANNOTATION_PREFIX));
  if (ours.length > WANTED_MAX)
    throw refuse(`${ANNOTATION_PREFIX}*`, `there are ${ours.length}, at most ${WANTED_MAX}`);
  const wanted = ours.sort(([a], [b]) => (a < b ? -1 : 1)).map((one) => read(one, allowed));
  const scratch = wanted.map((each) => (each.kind === "scratch" ? each.sizeBytes : 0));
  const bytes = scratch.reduce((sum, each) => sum + each, 0);
  if (bytes > allowed.scratchBytes) {
    const most = `at most ${allowed.scratchBytes} (BURROW_ANNOTATION_SCRATCH)`;
    throw refuse(`${ANNOTATION_PREFIX}scratch.*`, `${bytes} bytes of scratch, ${most}`);
  }
  return wanted;
}

function read([name, value]: [string, unknown], allowed: Allowed): Wanted {
  if (typeof value !== "string" || value === "") throw refuse(name, "it is no text");
  if (value.length > VALUE_MAX_CHARS)
    throw refuse(name, `it is longer than ${VALUE_MAX_CHARS} characters`);
  if (/[\0-\x1f\x7f]/.test(name + value)) throw refuse(name, "it has control characters");
  const [kind, label] = split(name.slice(ANNOTATION_PREFIX.length), ".");
  if (kind === "env" && label === undefined)
    return { kind: "env", snapshot: digestOf(name, value) };
  if (label === undefined || label === "") throw unknown(name);
  if (kind === "stage") return stageOf(name, label, value, allowed);
  const [at, what] = split(value, "=");
  if (kind !== "mount" && kind !== "scratch") throw unknown(name);
  if (what === undefined) throw refuse(name, `"${value}" is not PATH=…`);
  if (!isPrefix(at)) throw refuse(name, `"${at}" is no absolute, plain path below /`);
  if (OWN.some((own) => at === own || at.startsWith(`${own}/`)))
    throw refuse(name, `${at} is the sandbox's own`);
  if (kind === "mount") return { kind: "snapshot", at, snapshot: digestOf(name, what) };
  return { kind: "scratch", at, sizeBytes: parseSize(what, `annotation ${name}`) };
}

/** A name that nobody knows is a slip: the sandbox would start without what it needs. */
function unknown(name: string): BurrowError {
  return refuse(name, "there is env, stage.NAME, mount.NAME and scratch.NAME");
}

function split(text: string, by: string): [string, string | undefined] {
  const at = text.indexOf(by);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}

/** Whole: a beginning could mean another one tomorrow. */
function digestOf(name: string, text: string): Digest {
  const digest = text.startsWith("sha256:") ? parseDigest(text) : undefined;
  if (digest === undefined) throw refuse(name, `"${text}" is no digest (sha256: and 64 digits)`);
  return digest;
}

function stageOf(name: string, label: string, source: string, { stages }: Allowed): Wanted {
  const at = `/stage/${label}`;
  if (!isPrefix(at) || label.includes("/") || Buffer.byteLength(label) > NAME_MAX_BYTES)
    throw refuse(name, `"${label}" is no name of a directory`);
  if (isBelow(source, stages)) return { kind: "stage", at, source };
  const who = "the node's operator allows sources by BURROW_ANNOTATION_STAGES";
  throw refuse(name, `${source} is not allowed: ${who}`);
}

/** Whether a source is one of those allowed or lies below it: by whole names, and without a way up. */
function isBelow(source: string, allowed: readonly string[]): boolean {
  // A query could turn "below" into another place; "%2e" may be a dot, "\" a slash to a server.
  if (/[?#%\\]|(^|\/)\.{1,2}(\/|$)/.test(source)) return false;
  return allowed.some((one) => {
    const root = one.replace(/\/+$/, "");
    return source === root || source.startsWith(`${root}/`);
  });
}
