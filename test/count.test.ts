// Owns: what count.ts promises: the figures that the gate prints. Plane: any.

import t from "tap";
import { pointsOf } from "./count.ts";

const outcomes = (tap: string) => pointsOf(tap).map(({ outcome, name }) => `${outcome}: ${name}`);

t.test("points are counted, sums of subtests aren't", async (t) => {
  const tap = [
    "TAP version 14",
    "# Subtest: a.test.js",
    "    # Subtest: inner",
    "        ok 1 - one",
    "        not ok 2 - two",
    "          ---",
    "          source: |",
    "    ok 9 - not a point: text of a diagnostic",
    "          ...",
    "        ok 3 - three # SKIP no root",
    "        1..3",
    "        # failed 1 of 3 tests",
    "    not ok 1 - inner # time=3ms",
    "    ok 2 - plain",
    "    1..2",
    "not ok 1 - a.test.js # time=9ms",
    "1..1",
  ].join("\n");
  t.same(outcomes(tap), [
    "passed: a.test.js > inner > one",
    "failed: a.test.js > inner > two",
    "skipped: a.test.js > inner > three # SKIP no root",
    "passed: a.test.js > plain",
  ]);
  t.equal(pointsOf(tap)[1]!.diagnostics.length, 2);
  t.equal(pointsOf(tap)[2]!.reason, "no root");
});

t.test("a file that crashes or times out is one failure", async (t) => {
  const tap = [
    "# Subtest: a.test.js",
    "    ok 1 - one",
    "not ok 1 - a.test.js # time=9ms",
    "# Subtest: b.test.js",
    "    1..0 # no tests found",
    "not ok 2 - b.test.js",
    "# Subtest: c.test.js",
    "    ok 1 - all skipped # SKIP no runsc",
    "    1..1",
    "ok 3 - c.test.js",
    "1..3",
  ].join("\n");
  t.same(outcomes(tap), [
    "passed: a.test.js > one",
    "failed: a.test.js # time=9ms",
    "failed: b.test.js",
    "skipped: c.test.js > all skipped # SKIP no runsc",
  ]);
});
