// Owns: random system calls (random/random.c) in a sandbox, in a host directory that is passed through and in a query's tmpfs, print
// what they print on a tmpfs of the host, call by call, and leave the same tree. The first runsc; with BURROW_LONG all, and more.
// BURROW_FUZZ_SEED repeats a run. Plane: control.

import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import t from "tap";
import { isLong } from "../suite/long.ts";
import { buildProgram, runInSandbox, runOnHost } from "./posix-runs.ts";
import { findRevisions, hostGofer } from "./runsc.ts";

const CALLS = isLong ? 200_000 : 3_000;
const ROUNDS = isLong ? 5 : 1;
t.setTimeout(isLong ? 1_200_000 : 300_000);

const directory = fs.mkdtempSync(path.join(os.tmpdir(), "burrow-random-"));
t.teardown(() => fs.rmSync(directory, { recursive: true }));
const built = buildProgram("random", directory);
const { found, reasons } = findRevisions();
for (const reason of reasons) t.comment(`not tested: ${reason}`);
const skip = "reason" in built ? built.reason : found.length === 0 && reasons.join("; ");
const start = Number(process.env["BURROW_FUZZ_SEED"] ?? Date.now() & 0x7fffffff);

/** The first line in which two texts differ, with those before it. */
function difference(found: string, wanted: string): string[] {
  const [left, right] = [found.split("\n"), wanted.split("\n")];
  const at = right.findIndex((line, i) => line !== left[i]);
  if (at < 0) return [];
  return [...right.slice(Math.max(0, at - 3), at), `found:  ${left[at]}`, `wanted: ${right[at]}`];
}

if (skip) t.pass("skipped", { skip });
else {
  const program = (built as { path: string }).path;
  for (const revision of isLong ? found : found.slice(0, 1)) {
    t.test(`${revision.name}: random calls do what Linux does`, async (t) => {
      for (let seed = start; seed < start + ROUNDS; seed++) {
        t.comment(`seed ${seed}, ${CALLS} calls`);
        const args = [String(seed), String(CALLS)];
        const wanted = runOnHost(program, args);
        t.ok(wanted.split("\n").length > CALLS / 2);
        const ran = await runInSandbox(program, hostGofer, revision, args);
        const { passed, tmpfs, overlay, left } = ran;
        t.same(difference(passed, wanted), [], "in a host directory");
        t.same(difference(tmpfs, wanted), [], "in the query's tmpfs");
        t.same(difference(overlay, wanted), [], "in a writable view");
        t.same(left, []);
      }
    });
  }
}
