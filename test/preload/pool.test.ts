// The pool of workers: what it does with a job that comes when it is closed.

import { test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { WorkerPool } from "../../lib/preload/pool.ts";
import type { InspectJob } from "../../lib/preload/work.ts";

test("a job for a pool that is closed is refused, and not waited for", async (t) => {
  const held = { hidden: new Set<string>() } as never;
  const pool = new WorkerPool({
    origin: "memory:",
    damaged: new Set(),
    held,
    jobs: 1,
    memoryBytes: 1 << 30,
  });
  await pool.close();
  const job = { kind: "inspect", digest: "0".repeat(64) as Digest } as unknown as InspectJob;
  await t.rejects(pool.run(job, 1_000), { code: "BURROW_IO" });
});
