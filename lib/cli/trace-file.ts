// A trace's file: JSON lines, docs/format/trace.md. What is read may be of anybody's: it is checked, bounded, and nothing of it is
// believed to be more than text and numbers. Control plane.

import { readFileSync, statSync } from "node:fs";
import { BurrowError } from "../base/error.ts";
import { unreadable } from "./text-file.ts";

export const TRACE_FORMAT = 1;
/** A file that is read: as much as a run writes of its most events, and files. */
const FILE_MAX_BYTES = 256 * 1024 * 1024;
const LINES_MAX = 1_000_000;
const NUMBER_MAX = 2 ** 43;

export interface TraceHead {
  readonly kind: "trace";
  readonly format: typeof TRACE_FORMAT;
  readonly command: readonly string[];
  /** ISO 8601. */
  readonly startedAt: string;
  readonly exitCode: number;
  /** Requests and events of the daemon that found no room. */
  readonly dropped: number;
  /** What couldn't be had. */
  readonly notes: readonly string[];
}

export interface TracePackage {
  readonly kind: "package";
  readonly id: number;
  readonly title: string;
  readonly files: number;
  readonly bytes: number;
}

export interface TraceFile {
  readonly kind: "file";
  readonly id: number;
  readonly path: string;
  readonly isDirectory: boolean;
  readonly bytes: number;
  /** Of the packages; -1: nobody's. */
  readonly package: number;
}

export interface TraceMark {
  readonly kind: "mark";
  readonly ms: number;
  readonly name: string;
}

/** A request of the sandbox's to its gofer. */
export interface TraceRpc {
  readonly kind: "rpc";
  readonly ms: number;
  readonly us: number;
  readonly name: string;
  readonly mount: number;
  /** Of the files; -1: none that is known. */
  readonly file: number;
  readonly errno: number;
  /** Of a PRead, in pages of 4 KiB, else 0. */
  readonly page: number;
  /** Of a PRead bytes, of a Walk names, else 0. */
  readonly count: number;
}

/** A request that waited for bytes: from its ask of the daemon to the answer. */
export interface TraceMiss {
  readonly kind: "miss";
  readonly ms: number;
  readonly us: number;
  readonly file: number;
  readonly errno: number;
  /** The first block that was asked for; -1: the whole file. */
  readonly block: number;
}

/** A request of the daemon's to an origin of the view. */
export interface TraceFetch {
  readonly kind: "fetch";
  readonly ms: number;
  readonly us: number;
  readonly origin: string;
  readonly path: string;
  readonly offset: number;
  /** -1: it failed. */
  readonly bytes: number;
  readonly isDemand: boolean;
}

/** A file, or a block of a large one, that came before it was asked for. */
export interface TracePrefetch {
  readonly kind: "prefetch";
  readonly ms: number;
  readonly file: number;
  readonly block: number;
  readonly bytes: number;
  /** Its file was opened in this run. */
  readonly isUsed: boolean;
}

export type TraceLine =
  | TraceHead
  | TracePackage
  | TraceFile
  | TraceMark
  | TraceRpc
  | TraceMiss
  | TraceFetch
  | TracePrefetch;

/** A whole trace, by kind; events in the order of their times. */
export interface TraceContent {
  readonly head: TraceHead;
  readonly packages: readonly TracePackage[];
  readonly files: readonly TraceFile[];
  readonly marks: readonly TraceMark[];
  readonly rpcs: readonly TraceRpc[];
  readonly misses: readonly TraceMiss[];
  readonly fetches: readonly TraceFetch[];
  readonly prefetches: readonly TracePrefetch[];
}

/** As lines: the head, packages and files, then all events by time. */
export function showTrace(content: TraceContent): string {
  const { head, packages, files, marks, rpcs, misses, fetches, prefetches } = content;
  const events = [...marks, ...rpcs, ...misses, ...fetches, ...prefetches];
  events.sort((a, b) => a.ms - b.ms);
  return [head, ...packages, ...files, ...events]
    .map((line) => `${JSON.stringify(line)}\n`)
    .join("");
}

type Field = "number" | "string" | "boolean" | "words";

const FIELDS: Readonly<Record<TraceLine["kind"], Readonly<Record<string, Field>>>> = {
  trace: {
    format: "number",
    command: "words",
    startedAt: "string",
    exitCode: "number",
    dropped: "number",
    notes: "words",
  },
  package: { id: "number", title: "string", files: "number", bytes: "number" },
  file: {
    id: "number",
    path: "string",
    isDirectory: "boolean",
    bytes: "number",
    package: "number",
  },
  mark: { ms: "number", name: "string" },
  rpc: {
    ms: "number",
    us: "number",
    name: "string",
    mount: "number",
    file: "number",
    errno: "number",
    page: "number",
    count: "number",
  },
  miss: { ms: "number", us: "number", file: "number", errno: "number", block: "number" },
  fetch: {
    ms: "number",
    us: "number",
    origin: "string",
    path: "string",
    offset: "number",
    bytes: "number",
    isDemand: "boolean",
  },
  prefetch: {
    ms: "number",
    file: "number",
    block: "number",
    bytes: "number",
    isUsed: "boolean",
  },
};

/** Reads a trace. BURROW_USAGE for what is none, BURROW_NOT_FOUND, BURROW_IO. */
export function readTraceFile(path: string): TraceContent {
  let text: string;
  try {
    if (statSync(path).size > FILE_MAX_BYTES) throw refuse(path, "it is too large");
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof BurrowError) throw error;
    throw unreadable("trace", path, error);
  }
  return parseTrace(text, path);
}

/** The content of a trace's text. BURROW_USAGE. */
export function parseTrace(text: string, path: string): TraceContent {
  const byKind = {
    trace: [] as TraceHead[],
    package: [] as TracePackage[],
    file: [] as TraceFile[],
    mark: [] as TraceMark[],
    rpc: [] as TraceRpc[],
    miss: [] as TraceMiss[],
    fetch: [] as TraceFetch[],
    prefetch: [] as TracePrefetch[],
  };
  const lines = text.split("\n");
  if (lines.length > LINES_MAX) throw refuse(path, `it has more than ${LINES_MAX} lines`);
  for (const [i, line] of lines.entries()) {
    if (line === "") continue;
    const parsed = lineOf(line);
    if (parsed === undefined) throw refuse(path, `line ${i + 1} is none of a trace`);
    (byKind[parsed.kind] as TraceLine[]).push(parsed);
  }
  const [head, ...others] = byKind.trace;
  if (head === undefined || others.length > 0) throw refuse(path, "it has no head of a trace");
  if (head.format !== TRACE_FORMAT)
    throw refuse(path, `its format is ${head.format}; this program reads ${TRACE_FORMAT}`);
  const { package: packages, file: files, mark, rpc, miss, fetch, prefetch } = byKind;
  const numbered = [packages, files].every((all) => all.every(({ id }, at) => id === at));
  const isKnown = ({ file }: { file: number }) => file >= -1 && file < files.length;
  const refers = [...rpc, ...miss, ...prefetch].every(isKnown);
  const owned = files.every(({ package: of }) => of >= -1 && of < packages.length);
  if (!numbered || !refers || !owned) throw refuse(path, "a line speaks of what isn't there");
  return {
    head,
    packages,
    files,
    marks: mark,
    rpcs: rpc,
    misses: miss,
    fetches: fetch,
    prefetches: prefetch,
  };
}

function refuse(path: string, why: string): BurrowError {
  return new BurrowError(
    "BURROW_USAGE",
    `${path} is no trace that burrow run --trace wrote: ${why}`,
  );
}

/** The line in a text with the fields of its kind alone; undefined of what is none. */
function lineOf(text: string): TraceLine | undefined {
  let value: Record<string, unknown>;
  try {
    value = JSON.parse(text) as Record<string, unknown>;
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { kind } = value;
  if (typeof kind !== "string" || !Object.hasOwn(FIELDS, kind)) return undefined;
  const line: Record<string, unknown> = { kind };
  for (const [name, type] of Object.entries(FIELDS[kind as TraceLine["kind"]])) {
    const field = value[name];
    if (!isOf(field, type)) return undefined;
    line[name] = field;
  }
  return line as unknown as TraceLine;
}

/** 100 days in us, 8 TiB. Much beyond a page could draw for ever: 1 added to 10^17 is 10^17. */
function isSmall(value: number): boolean {
  return Math.abs(value) <= NUMBER_MAX;
}

function isOf(value: unknown, type: Field): boolean {
  if (type === "words")
    return Array.isArray(value) && value.every((word) => typeof word === "string");
  return typeof value === type && (type !== "number" || isSmall(value as number));
}
