// warm-start: hot-start with the page cache dropped before each run: all files are on this node's disk, as blobs of the cache or unpacked,
// and nothing of them is in memory, nor of runsc. What runs already stays: a standby, and so Node.js.
//
// Expected cost: the reads of about 70 MB in 1,000 files, which both sides read by the same sandbox from the same file system; blobs lie in
// 256 folders by digest, so their inodes and directories aren't neighbours on the disk as unpacked ones are. As hot-start needs root, runsc
// and the fixtures.

import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import type { Bench } from "../run.ts";
import { compareImports } from "./import-run.ts";

const RUNS = 10;

function dropPageCache(): void {
  execFileSync("sync");
  writeFileSync("/proc/sys/vm/drop_caches", "3");
}

export const bench: Bench = (emit, { isQuick, rounds = isQuick ? 1 : RUNS, environment }) =>
  compareImports(emit, rounds, environment, dropPageCache);
