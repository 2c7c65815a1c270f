// The machine's clock is set, forth and back, while daemons wait and end: nothing waits by it.

import { test } from "tap";
import { daemonStatus, stopDaemon } from "../../lib/cache/client.ts";
import { daemonConfig } from "../../lib/daemon/config.ts";
import { startDaemon } from "../../lib/daemon/supervisor.ts";
import { exited, TestNode } from "../suite/daemon-node.ts";
import { until } from "../suite/wait.ts";

const HOUR_MS = 3_600_000;

/** Has each look at this process's clock find it moved by so much more, until the work has ended. */
async function jumping<T>(byMs: number, work: () => Promise<T>): Promise<T> {
  const { now } = Date;
  let jumpedMs = 0;
  Date.now = () => {
    jumpedMs += byMs;
    return now() + jumpedMs;
  };
  try {
    return await work();
  } finally {
    Date.now = now;
  }
}

for (const byMs of [HOUR_MS, -HOUR_MS]) {
  const way = byMs > 0 ? "forth" : "back";
  test(`the clock is set ${way}: an idle daemon lives on, and knows its age`, async (t) => {
    const node = new TestNode();
    t.teardown(() => node.close());
    const given = { cache: node.cache, state: node.state, idleMs: 10 * HOUR_MS, standbys: 0 };
    await jumping(byMs, async () => {
      const daemon = await startDaemon(daemonConfig(given), () => undefined);
      let why = "";
      void daemon!.ended.then((reason) => {
        why = reason;
      });
      const ageMs = async () => (await daemonStatus(node.cache))?.upMs ?? Number.NaN;
      // Forth: past its first looks at how long it was idle.
      const oldMs = byMs > 0 ? 1_200 : 0;
      t.ok(await until(async () => why !== "" || (await ageMs()) > oldMs));
      t.equal(why, "");
      const age = await ageMs();
      t.ok(age > 0 && age < HOUR_MS, `${age} ms`);
      daemon!.stop("test");
      await daemon!.ended;
    });
  });
}

test("the clock is set forth while a daemon ends: who stops it waits for that", async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const daemon = await node.start();
  t.equal(await jumping(HOUR_MS, () => stopDaemon(node.cache)), true);
  t.equal(await exited(daemon), 0);
});
