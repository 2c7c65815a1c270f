// What making a snapshot of many layers takes, and opening one that is there: 300 packages with 100,000 entries, as conda lays
// them out. Each round is a process of its own, since a command merges once, in code that V8 has not seen.
// docs/benchmarks.md has the figures.
//
// Expected: a name is read as a string of 20 bytes, sorted among those of its directory and looked up among all strings, a row is
// copied; 1 us an entry in code that is warm, twice that here. Opening maps a file and reads its header: well under 1 ms.

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { BLOCK_BYTES, BLOCK_DIGESTS_OVER_BYTES } from "../../lib/base/limits.ts";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { digestOf } from "../../lib/store/hash.ts";
import type { Bench } from "../run.ts";
import { median } from "../samples.ts";

const CHILD = fileURLToPath(new URL("./merge-once.js", import.meta.url));
const LAYERS = 300;
const ENTRIES = 100_000;
const ROUNDS = 15;

/** What a round says. */
export interface MergeRound {
  readonly readMs: number;
  readonly mergeMs: number;
  readonly digestMs: number;
  readonly openMs: number;
  readonly lookups: number;
  readonly lookupsMs: number;
  readonly entries: number;
  readonly indexBytes: number;
}

export const bench: Bench = async (emit, { isQuick }) => {
  const work = mkdtempSync(join(tmpdir(), "burrow-merge-"));
  try {
    for (let i = 0; i < LAYERS; i++) {
      const entries = packageEntries(i, Math.floor(ENTRIES / LAYERS));
      writeFileSync(join(work, `${i}.layer`), writeIndex(IndexKind.layer, entries));
    }
    const rounds = Array.from({ length: isQuick ? 1 : ROUNDS }, () => runOnce(work));
    const figures = (field: keyof MergeRound) => {
      const all = rounds.map((round) => round[field]).sort((a, b) => a - b);
      const shown = (ms: number) => Math.round(ms * 100) / 100;
      return { [field]: shown(median(all)), [`${field}Min`]: shown(all[0]!) };
    };
    const { entries, indexBytes, lookups } = rounds[0]!;
    emit({
      layers: LAYERS,
      entries,
      rounds: rounds.length,
      ...figures("readMs"),
      ...figures("mergeMs"),
      ...figures("digestMs"),
      ...figures("openMs"),
      lookups,
      ...figures("lookupsMs"),
      indexBytes,
      bytesPerEntry: Math.round((indexBytes / entries) * 10) / 10,
    });
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
};

function runOnce(work: string): MergeRound {
  const { status, stdout, stderr } = spawnSync(process.execPath, [CHILD, work, String(LAYERS)], {
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`the round failed: ${stderr}`);
  return JSON.parse(stdout) as MergeRound;
}

const PLAIN = { uid: 0, gid: 0, mtimeSec: 1_700_000_000, mtimeNs: 0 };

/** A package of about as many entries as wanted, laid out as Python packages are: half modules, half their byte code. */
function packageEntries(number: number, wanted: number): LayerEntry[] {
  const name = `package_${number}`;
  const site = `lib/python3.11/site-packages`;
  const entries: LayerEntry[] = [];
  const directory = (path: string) =>
    entries.push({ type: "directory", path, mode: 0o755, ...PLAIN });
  const file = (path: string, size: number) =>
    entries.push({ type: "file", path, mode: 0o644, ...PLAIN, blob: blobOf(path, size) });
  for (const path of ["bin", "conda-meta", "lib", "lib/python3.11", site]) directory(path);
  file(`bin/${name}`, 230);
  file(`conda-meta/${name}-1.${number}-py311h0123456_0.json`, 60_000);
  const link = { path: `lib/lib${name}.so`, target: `lib${name}.so.1`, mode: 0o777 };
  entries.push({ type: "symlink", ...link, ...PLAIN });
  file(`lib/lib${name}.so.1`, (number % 20) * 512 * 1024);
  for (let part = 0; entries.length < wanted - 2; part++) {
    const folder = part === 0 ? `${site}/${name}` : `${site}/${name}/subpackage_${part}`;
    directory(folder);
    directory(`${folder}/__pycache__`);
    for (let i = 0; i < 20 && entries.length < wanted - 2; i++) {
      const module = `${["core", "_utils", "io", "testing"][i % 4]}_${i}`;
      file(`${folder}/${module}.py`, 9_000 + i);
      file(`${folder}/__pycache__/${module}.cpython-311.pyc`, 12_000 + i);
    }
  }
  return entries;
}

function blobOf(path: string, size: number) {
  const digest = digestOf(Buffer.from(path));
  const count = size > BLOCK_DIGESTS_OVER_BYTES ? Math.ceil(size / BLOCK_BYTES) : 0;
  const blocks = Array.from({ length: count }, (_, i) => digestOf(Buffer.from(`${path} ${i}`)));
  return { digest, size, blocks };
}
