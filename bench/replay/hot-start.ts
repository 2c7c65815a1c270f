// hot-start: `import numpy, pandas` (and sklearn, where fixtures/sklearn.sh has put it) in a sandbox, everything in the page cache: Burrow
// against stock runsc with its own gofer (and, where the revision has it, directfs) over the same files unpacked on local disk,
// interleaved in one run.
//
// Expected cost: about 3,400 RPCs, of which 1,000 donate a file; both gofers see the same requests, so the ratio is handler time
// plus wake-ups. CPU time is of the whole run, and steadier than seconds where others work too. Needs root, runsc and the fixtures:
// fixtures/check.sh DIR first, then BURROW_FIXTURES=DIR. $BURROW_RUNSC picks the revision, $BURROW_PLATFORM the platform.

import type { Bench } from "../run.ts";
import { compareImports } from "./import-run.ts";

const RUNS = 12;

export const bench: Bench = (emit, { isQuick, rounds = isQuick ? 1 : RUNS, environment }) =>
  compareImports(emit, rounds, environment, () => {});
