// One read of several runners: an answer that is on its way isn't asked for a second time, one that stops coming is.

import { test } from "tap";
import { type Reason, type Runner, race } from "../../lib/store/race.ts";
import { until } from "../suite/wait.ts";

const PATIENCE_MS = 400;
const RENEWED_MS = 20;

test("who hears that an answer comes waits on, and asks another when it stops", async (t) => {
  const asked: Reason[] = [];
  let renew = () => {};
  let answer: (value: string) => void = () => {};
  const runner = (why: Reason): Runner<string> => ({
    run: () =>
      new Promise((resolve) => {
        if (why === "first") answer = resolve;
      }),
    ended: () => {},
  });
  const next = (why: Reason) => {
    asked.push(why);
    return asked.length <= 2 ? runner(why) : undefined;
  };
  const onRenewal = (again: () => void) => {
    renew = again;
  };
  const raced = race({ next, patienceMs: PATIENCE_MS, onRenewal, signal: undefined });
  const startedMs = performance.now();
  const coming = setInterval(() => renew(), RENEWED_MS);
  t.ok(await until(() => performance.now() - startedMs > 2 * PATIENCE_MS));
  t.same(asked, ["first"], "it comes");
  clearInterval(coming);
  t.ok(await until(() => asked.length === 2));
  t.equal(asked[1], "slow");
  answer("here");
  t.equal(await raced, "here");
});
