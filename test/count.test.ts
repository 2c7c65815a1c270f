// Owns: what count.ts promises: the figures that the gate prints. Plane: any.

import t from "tap";
import { failedFiles, pointsOf, withSecondTry } from "./count.ts";

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

t.test("a second try counts where it passed whole, and what failed at first is told", async (t) => {
  const file = (name: string, ...points: string[]) =>
    [`# Subtest: ${name}`, ...points.map((point) => `    ${point}`), `ok 1 - ${name}`].join("\n");
  const first = pointsOf(
    [
      file("a.test.js", "ok 1 - one", "not ok 2 - two", "ok 3 - three # SKIP no root"),
      file("b.test.js", "not ok 1 - four"),
      file("c.test.js", "ok 1 - five"),
      "# Subtest: d.test.js\nnot ok 1 - d.test.js # time=9ms",
    ].join("\n"),
  );
  t.same(failedFiles(first), ["a.test.js", "b.test.js", "d.test.js"]);
  const again = pointsOf(
    [
      file("a.test.js", "ok 1 - one", "ok 2 - two", "ok 3 - three # SKIP no root"),
      file("b.test.js", "ok 1 - three and a half", "not ok 2 - four"),
    ].join("\n"),
  );
  const { points, flaky } = withSecondTry(first, again);
  t.same(
    points.map(({ outcome, name }) => `${outcome}: ${name}`),
    [
      "failed: b.test.js > four",
      "passed: c.test.js > five",
      "failed: d.test.js # time=9ms",
      "passed: a.test.js > one",
      "passed: a.test.js > two",
      "skipped: a.test.js > three # SKIP no root",
    ],
  );
  t.same(
    flaky.map(({ name }) => name),
    ["a.test.js > two"],
  );
  t.same(withSecondTry(first, []).points, first, "no second try");
});
