// Owns: that the committed plot is that of the committed figures, and that docs/benchmarks.md knows the benches that it names. Plane: any.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { BENCHES } from "../../bench/list.ts";
import { plot, pointsOf } from "../../bench/plot.ts";

const DOCS = path.resolve(import.meta.dirname, "../../../docs");
const read = (name: string) => fs.readFileSync(path.join(DOCS, name), "utf8");

test("the plot is that of the figures beside it", async (t) => {
  const points = pointsOf(read("benchmarks/cold-start.jsonl"));
  t.equal(points.length, 12);
  t.equal(plot(points), read("benchmarks/cold-start.svg"), "else: npm run bench:plot");
  t.match(plot([{ mode: "a<b", delayMs: 0, runMedianSeconds: 0 }]), /a&lt;b/);
  t.same(pointsOf('{"bench":"cold-start","skipped":"no"}\n\n'), []);
});

test("each yardstick names a bench that there is", async (t) => {
  const table = /## Yardsticks\n([\s\S]*?)\n## /.exec(read("benchmarks.md"))![1]!;
  const names = [...table.matchAll(/`bench ([a-z-]+)`/g)].map(([, name]) => name!);
  t.ok(names.length > 10, "the table was read");
  t.same(
    names.filter((name) => !Object.hasOwn(BENCHES, name)),
    [],
  );
  const used = Object.entries(BENCHES).filter(([, { yardsticks }]) => yardsticks.length > 0);
  t.same(
    used.map(([name]) => name).filter((name) => !names.includes(name)),
    [],
  );
});

test("words that the runner doesn't understand are its usage", async (t) => {
  const runner = path.resolve(import.meta.dirname, "../../bench/run.js");
  const run = (...words: string[]) =>
    spawnSync(process.execPath, [runner, ...words], { encoding: "utf8" });
  const cases: [what: RegExp, words: string[]][] = [
    [/^bench: 5,x: no numbers\n/, ["--ms", "5,x"]],
    [/^bench: : no numbers\n/, ["--mbit", ""]],
    [/^bench: no environment is called x\n/, ["--environment", "x"]],
    [/^bench: Unknown option '--fast'\n/, ["--fast"]],
    [/^bench: no bench is called no-such-bench\n/, ["no-such-bench"]],
  ];
  for (const [what, words] of cases) {
    const { status, stderr, stdout } = run(...words);
    t.equal(status, 2, words.join(" "));
    t.match(stderr, what);
    t.match(stderr, /usage: .*--ms 0,5,20/);
    t.equal(stdout, "");
  }
  t.match(run("--help"), {
    status: 0,
    stdout: /^usage: .*\n(.*\n)*benches: hot-start, /,
    stderr: "",
  });
});
