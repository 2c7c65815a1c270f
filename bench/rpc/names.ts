// names: in a sandbox, a directory of 40,000 names listed, names looked for that aren't there in directories of 100 and of 50,000, and a
// donated file of 256 MiB read in order: a view beside stock runsc's own gofer over the same directory, in turns. Least of the rounds.
//
// Expected: a listing is 40,000 dirents in frames of 64 KiB, which the sentry keeps; a missing name is one Walk of some 6 us, whatever the
// directory's size; a donated file is read by the sentry from the host's page cache, and neither gofer hears of it. Needs root, runsc, cc and
// a static busybox.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  findRevisions,
  type Revision,
  ROOT,
  Bench as Sandboxes,
  stockGofer,
  viewGofer,
} from "../../test/conformance/runsc.ts";
import { noise } from "../../test/suite/daemon-node.ts";
import type { Bench } from "../run.ts";

const ROUNDS = 5;
const MIB = 256;
const SIZES = { forty: 40_000, fifty: 50_000, few: 100 } as const;
const MISSING = 2_000;
/** What was timed, in words. */
const CASES: Readonly<Record<string, string>> = {
  first: "readdir of 40,000, first",
  listing: "readdir of 40,000, again",
  few: "missing name among 100",
  fifty: "missing name among 50,000",
  read: `${MIB} MiB read in order, donated`,
};

/** The directories, shorter when quick, and the file. */
function makeData(folder: string, isQuick: boolean): void {
  for (const [name, count] of Object.entries(SIZES)) {
    fs.mkdirSync(join(folder, name), { recursive: true });
    const names = isQuick ? Math.min(count, 1_000) : count;
    for (let i = 0; i < names; i++) fs.writeFileSync(join(folder, name, `name-${i}`), "");
  }
  const piece = noise(1024 * 1024, 1);
  const fd = fs.openSync(join(folder, "file"), "w");
  for (let i = 0; i < (isQuick ? 16 : MIB); i++) fs.writeSync(fd, piece);
  fs.closeSync(fd);
}

/** A place for sandboxes of one kind, with the data served in it. */
function open(kind: Kind, revision: Revision, data: string) {
  const gofer = kind === "stock" ? stockGofer : viewGofer;
  const sandboxes = new Sandboxes(gofer, revision, revision.platforms[0]!);
  return { sandboxes, source: gofer.serve(sandboxes.state, "data", data) };
}

type Kind = "stock" | "burrow";
const KINDS: readonly Kind[] = ["stock", "burrow"];

export const bench: Bench = async (emit, { isQuick }) => {
  const { found, reasons } = findRevisions();
  if (found.length === 0) return emit({ skipped: reasons.join("; ") });
  const folder = fs.mkdtempSync(join(tmpdir(), "burrow-bench-"));
  try {
    const data = join(folder, "data");
    makeData(data, isQuick);
    const program = join(data, "names");
    const words = ["-O2", "-static", "-o", program, join(ROOT, "bench/rpc/names.c")];
    const built = spawnSync("cc", words, { encoding: "utf8" });
    if (built.status !== 0) return emit({ skipped: `cc: ${built.stderr ?? "none"}` });
    for (const revision of found) await compare(emit, revision, data, isQuick);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
};

async function compare(
  emit: Parameters<Bench>[0],
  revision: Revision,
  data: string,
  isQuick: boolean,
): Promise<void> {
  const places = KINDS.map((kind) => ({ kind, ...open(kind, revision, data) }));
  const best: Record<Kind, Record<string, number>> = { stock: {}, burrow: {} };
  try {
    for (let round = 0; round < (isQuick ? 1 : ROUNDS); round++) {
      for (const { kind, sandboxes, source } of places) {
        const bundle = sandboxes.bundle(`/mnt/data/names /mnt/data ${MISSING}`, (spec) => {
          const options = ["rbind", "ro"];
          spec.mounts.push({ destination: "/mnt/data", type: "bind", source, options });
        });
        const id = sandboxes.id(`n${round}`);
        const flag = "--file-access-mounts=exclusive";
        const argv = [...sandboxes.argv(flag), "run", "-bundle", bundle, id];
        const ran = await sandboxes.outcomeOf(argv);
        if (ran.code !== 0) throw new Error(`${kind}: ${ran.stderr}`);
        for (const line of ran.stdout.trim().split("\n")) {
          const [what = "", ns = ""] = line.split(" ");
          best[kind][what] = Math.min(best[kind][what] ?? Number.POSITIVE_INFINITY, Number(ns));
        }
      }
    }
  } finally {
    for (const { sandboxes } of places) sandboxes.close();
  }
  for (const [what, words] of Object.entries(CASES)) {
    const [stock, ours] = [best.stock[what]!, best.burrow[what]!];
    const us = (ns: number) => Math.round(ns / 10) / 100;
    const ratio = Number((ours / stock).toFixed(3));
    emit({ case: words, runsc: revision.name, stockUs: us(stock), burrowUs: us(ours), ratio });
  }
}
