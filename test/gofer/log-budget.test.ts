// What clients bring about fills no log: a line a second, after some at once, and how many were left out.

import t from "tap";
import { LogBudget } from "../../lib/gofer/log-budget.ts";

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
