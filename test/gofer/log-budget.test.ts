// What clients bring about fills no log: a line a second, after some at once, and how many were left out.

import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import { join } from "node:path";
import t from "tap";
import { openLog } from "../../lib/gofer/log.ts";
import { LogBudget } from "../../lib/gofer/log-budget.ts";
import { native } from "../../lib/sys/native.ts";
import { temporary } from "../suite/served.ts";

t.test("a flood is some lines and then one a second", (t) => {
  const budget = new LogBudget(0);
  let written = 0;
  for (let i = 0; i < 100_000; i++) if (budget.take(5) >= 0) written++;
  t.ok(written >= 20 && written <= 100, `${written} at once`);
  t.equal(budget.take(500), -1);
  t.equal(budget.take(1_010), 100_001 - written, "it is said how many were left out");
  t.equal(budget.take(1_020), -1);
  t.equal(budget.take(3_000), 1);
  t.equal(budget.take(3_600_000), 0);
  t.end();
});

t.test("no FIFO is waited for", (t) => {
  const path = join(temporary(t), "log");
  execFileSync("mkfifo", [path]);
  t.ok(openLog(path) < 0, "that nobody reads");
  const reader = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  const fd = openLog(path);
  t.ok(fd >= 0);
  while (native.writeFd(fd, Buffer.alloc(4096)) > 0);
  t.pass("nor one that is full");
  native.closeFd(fd);
  fs.closeSync(reader);
  t.end();
});
