// What a store saves when a second version of a package comes to the first, by how files are cut into chunks: whole files,
// fixed blocks, content-defined ones; a chunk that is there already costs nothing, any other its LZ4 block.
// docs/design/0004-chunking.md rests on it.
//
// Expected: sha256 at 0.4 to 1 GB/s and LZ4 at 0.3 to 0.5 decide the CPU time; the gear hash adds a byte at a time in
// JavaScript, about 3 ns each. A compiler moves code and addresses, so what changes in a library is spread over all of it.

import { createHash } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { buffer } from "node:stream/consumers";
import { compressSync } from "lz4-napi";
import { assert } from "../../lib/base/assert.ts";
import { openMember, openZip } from "../../lib/ingest/zip.ts";
import type { Bench, Result } from "../run.ts";
import { type Cutter, contentDefined, fixed, whole } from "./cuts.ts";

const KIB = 1024;

interface Scheme {
  readonly name: string;
  readonly cut: Cutter;
}

const SCHEMES: readonly Scheme[] = [
  { name: "whole files", cut: whole },
  ...[64, 256, 1024].map((kib) => ({ name: `fixed ${kib} KiB`, cut: fixed(kib * KIB) })),
  ...[16, 64, 256].map((kib) => ({ name: `content ${kib} KiB`, cut: contentDefined(kib * KIB) })),
];
/** Chunks are compressed in pieces of at most this many bytes, as the store does: a larger one can't be read in parts. */
const LZ4_MAX_BYTES = 256 * KIB;

/** Files of an archive, and how its project is called. */
interface Version {
  readonly name: string;
  readonly project: string;
  readonly files: readonly Uint8Array[];
}

/** What one scheme made of two versions. */
interface Outcome {
  /** The first alone; what the second adds; and the second alone. */
  readonly firstBytes: number;
  readonly addedBytes: number;
  readonly secondBytes: number;
  readonly chunks: number;
  readonly cutMs: number;
  readonly allMs: number;
}

export const bench: Bench = async (emit, { isQuick }) => {
  const folder = process.env["BURROW_VERSIONS"];
  if (folder === undefined || !existsSync(folder)) {
    emit({ skipped: "needs BURROW_VERSIONS=DIR after fixtures/versions.sh DIR" });
    return;
  }
  const pairs = pairsOf(readdirSync(folder).filter((name) => name.endsWith(".whl")));
  for (const pair of isQuick ? pairs.slice(0, 1) : pairs) {
    const first = await readWheel(join(folder, pair[0]));
    const second = await readWheel(join(folder, pair[1]));
    const alone = measure({ name: "", cut: whole }, first, second);
    for (const scheme of SCHEMES) emit(resultOf(scheme, first, second, alone));
  }
};

/** Wheels of one project next to each other in the order of their names. */
function pairsOf(names: readonly string[]): [string, string][] {
  const sorted = [...names].sort();
  const project = (name: string) => name.slice(0, name.indexOf("-"));
  return sorted.flatMap((name, i) => {
    const next = sorted[i + 1];
    return next !== undefined && project(next) === project(name)
      ? [[name, next] as [string, string]]
      : [];
  });
}

async function readWheel(path: string): Promise<Version> {
  const archive = basename(path);
  const [project, version] = archive.split("-");
  const zip = await openZip(path, archive);
  const files: Uint8Array[] = [];
  try {
    for await (const entry of zip.eachEntry())
      if (!entry.fileName.endsWith("/"))
        files.push(await buffer(await openMember(zip, entry, archive)));
  } finally {
    zip.close();
  }
  return { name: version!, project: project!, files };
}

function resultOf(scheme: Scheme, first: Version, second: Version, alone: Outcome): Result {
  const outcome = measure(scheme, first, second);
  const rawBytes = [...first.files, ...second.files].reduce((sum, { length }) => sum + length, 0);
  const apart = alone.firstBytes + alone.secondBytes;
  const together = outcome.firstBytes + outcome.addedBytes;
  const rate = (ms: number) => Math.round(rawBytes / 1000 / Math.max(ms, 0.001));
  return {
    project: first.project,
    versions: `${first.name} ${second.name}`,
    scheme: scheme.name,
    rawBytes,
    apartBytes: apart,
    togetherBytes: together,
    savedPercent: percent(1 - together / apart),
    secondSavedPercent: percent(1 - outcome.addedBytes / alone.secondBytes),
    chunks: outcome.chunks,
    cutMbPerSecond: rate(outcome.cutMs),
    mbPerSecond: rate(outcome.allMs),
  };
}

const percent = (share: number) => Math.round(share * 1000) / 10;

/** Stores both versions in a store of its own, and the second in another to know what it takes alone. */
function measure(scheme: Scheme, first: Version, second: Version): Outcome {
  const known = new Set<string>();
  const before = add(scheme, first, known);
  const after = add(scheme, second, known);
  const { bytes: secondBytes } = add(scheme, second, new Set());
  return {
    firstBytes: before.bytes,
    addedBytes: after.bytes,
    secondBytes,
    chunks: known.size,
    cutMs: before.cutMs + after.cutMs,
    allMs: before.allMs + after.allMs,
  };
}

function add({ cut }: Scheme, { files }: Version, known: Set<string>) {
  let bytes = 0;
  let cutMs = 0;
  const startedMs = performance.now();
  for (const file of files) {
    if (!isNew(file, known)) continue;
    const cutFromMs = performance.now();
    const lengths = [...cut(file)];
    cutMs += performance.now() - cutFromMs;
    let at = 0;
    for (const length of lengths) {
      const chunk = file.subarray(at, at + length);
      if (lengths.length === 1 || isNew(chunk, known)) bytes += storedBytes(chunk);
      at += length;
    }
    assert(at === file.length, "the chunks are the file");
  }
  return { bytes, cutMs, allMs: performance.now() - startedMs };
}

function isNew(bytes: Uint8Array, known: Set<string>): boolean {
  const digest = createHash("sha256").update(bytes).digest("base64");
  const isKnown = known.has(digest);
  known.add(digest);
  return !isKnown;
}

/** Bytes of a chunk in a pack: LZ4, or as it is where that is shorter. */
function storedBytes(chunk: Uint8Array): number {
  let bytes = 0;
  for (let at = 0; at < chunk.length; at += LZ4_MAX_BYTES) {
    const piece = Buffer.from(chunk.subarray(at, at + LZ4_MAX_BYTES));
    bytes += Math.min(piece.length, compressSync(piece).length);
  }
  return bytes;
}
