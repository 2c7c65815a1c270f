// cli-start: a whole process of the command line that has next to nothing to do: as the build leaves it (dist/burrow.cjs), as modules,
// and Node.js with an empty program, interleaved in one run.
//
// Expected cost: Node.js's start, 35 to 55 ms; 190 modules of ours and of packages at 1 to 2 ms each; in one file with its code cache
// about 15 ms to read it, 20 for what is loaded of Node.js's own, 8 for lz4-napi.

import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Bench } from "../run.ts";
import { median } from "./setup.ts";

const RUNS = 20;
const fileOf = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const CASES: readonly { readonly program: string; readonly words: readonly string[] }[] = [
  { program: "node alone", words: ["-e", ""] },
  { program: "burrow.cjs", words: [fileOf("../../burrow.cjs"), "--version"] },
  { program: "modules", words: [fileOf("../../lib/cli/main.js"), "--version"] },
];

export const bench: Bench = async (emit, { isQuick }) => {
  // Settings of the caller's Node.js are not what is measured.
  const { NODE_EXTRA_CA_CERTS: _, NODE_OPTIONS: __, ...env } = process.env;
  const took = CASES.map((): number[] => []);
  for (let round = 0; round <= (isQuick ? 2 : RUNS); round++) {
    for (const [i, { program, words }] of CASES.entries()) {
      const startedMs = performance.now();
      const { status } = spawnSync(process.execPath, words, { env });
      if (status !== 0) throw new Error(`${program} ended with ${status}`);
      if (round > 0) took[i]!.push(performance.now() - startedMs);
    }
  }
  const ofNode = median(took[0]!);
  for (const [i, { program }] of CASES.entries()) {
    const all = took[i]!;
    emit({
      program,
      ms: Number(median(all).toFixed(1)),
      minMs: Number(Math.min(...all).toFixed(1)),
      maxMs: Number(Math.max(...all).toFixed(1)),
      overNodeMs: Number((median(all) - ofNode).toFixed(1)),
      runs: all.length,
    });
  }
};
