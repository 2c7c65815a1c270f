// tmpfs: files of 4 KiB made and removed, and a stream of 64 MiB, in a sandbox: in Burrow's tmpfs and in a host directory that it passes
// through, beside runsc's own gofer on the same tmpfs of the host, in turns. Ratios of minima; bar: 1.5.
//
// Expected: a file is Walk, OpenCreateAt, UnlinkAt and Close, four round trips of some 5 us and as many system calls as runsc's gofer
// makes; the stream is written through a donated FD and enters neither gofer. Needs root, runsc, cc and a static busybox.

import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  findRevisions,
  hostGofer,
  type Revision,
  ROOT,
  Bench as Sandboxes,
  stockGofer,
} from "../../test/conformance/runsc.ts";
import { writeMount } from "../../test/suite/gofer-process.ts";
import type { Bench } from "../run.ts";

const MEMORY = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
const ROUNDS = 5;
const COUNT = 5000;
const MIB = 64;
const UPPER = { kind: "upper", sizeBytes: 256 * 1024 * 1024, inodes: 10_000, mode: 0o755 };

type Kind = "stock" | "passed" | "tmpfs";
const KINDS: readonly Kind[] = ["stock", "passed", "tmpfs"];
/** By what was timed: ns. */
type Times = Record<string, number>;

async function runOnce(
  revision: Revision,
  program: string,
  kind: Kind,
  access: string,
  count: number,
): Promise<Times> {
  const sandboxes = new Sandboxes(
    kind === "stock" ? stockGofer : hostGofer,
    revision,
    revision.platforms[0]!,
  );
  const data = mkdtempSync(join(MEMORY, "burrow-bench-"));
  try {
    const source = kind === "tmpfs" ? writeMount(sandboxes.state, "upper", UPPER) : data;
    const bundle = sandboxes.bundle(`/bin/files /mnt/data ${count} ${MIB}`, (spec) => {
      copyFileSync(program, join(sandboxes.dir, "tree/bin/files"));
      spec.mounts.push({
        destination: "/mnt/data",
        type: "bind",
        source,
        options: ["rbind", "rw"],
      });
    });
    const flag = `--file-access-mounts=${access}`;
    const run = await sandboxes.outcomeOf([
      ...sandboxes.argv(flag),
      "run",
      "-bundle",
      bundle,
      sandboxes.id("a"),
    ]);
    if (run.code !== 0) throw new Error(`${kind}: ${run.stderr}`);
    const lines = run.stdout
      .trim()
      .split("\n")
      .map((line) => line.split(" "));
    return Object.fromEntries(lines.map(([what, ns]) => [what!, Number(ns)]));
  } finally {
    sandboxes.close();
    rmSync(data, { recursive: true });
  }
}

export const bench: Bench = async (emit, { isQuick }) => {
  const { found, reasons } = findRevisions();
  if (found.length === 0) return emit({ skipped: reasons.join("; ") });
  const directory = mkdtempSync(join(tmpdir(), "burrow-bench-"));
  const program = join(directory, "files");
  const source = join(ROOT, "bench/rpc/files.c");
  const built = spawnSync("cc", ["-O2", "-static", "-o", program, source], { encoding: "utf8" });
  try {
    if (built.status !== 0) return emit({ skipped: `cc: ${built.stderr ?? "none"}` });
    for (const revision of found) {
      for (const access of ["exclusive", "shared"]) {
        const best = { stock: {}, passed: {}, tmpfs: {} } as Record<Kind, Times>;
        for (let round = 0; round < (isQuick ? 1 : ROUNDS); round++) {
          for (const kind of KINDS) {
            const times = await runOnce(revision, program, kind, access, isQuick ? 500 : COUNT);
            for (const [what, ns] of Object.entries(times))
              best[kind][what] = Math.min(best[kind][what] ?? Number.POSITIVE_INFINITY, ns);
          }
        }
        emitRatios(emit, { runsc: revision.name, access, files: isQuick ? 500 : COUNT }, best);
      }
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
};

function emitRatios(
  emit: Parameters<Bench>[0],
  where: { runsc: string; access: string; files: number },
  best: Record<Kind, Times>,
): void {
  for (const what of Object.keys(best.stock)) {
    const ms = (kind: Kind) => Math.round(best[kind][what]! / 1e4) / 100;
    const ratio = (kind: Kind) => Math.round((best[kind][what]! / best.stock[what]!) * 100) / 100;
    emit({
      case: what === "files" ? "create, write 4 KiB, unlink" : `${what} ${MIB} MiB`,
      ...where,
      stockMs: ms("stock"),
      passedMs: ms("passed"),
      tmpfsMs: ms("tmpfs"),
      passedRatio: ratio("passed"),
      tmpfsRatio: ratio("tmpfs"),
    });
  }
}
