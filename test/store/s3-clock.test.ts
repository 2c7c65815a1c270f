// A clock that is off, on this machine or at the service (pitfalls D12): requests are signed by the service's from the next try on, and
// what can't be mended so names the clock.

import fs from "node:fs";
import { test } from "tap";
import { type BurrowError, explain } from "../../lib/base/error.ts";
import { openOrigin } from "../../lib/store/open.ts";
import { s3Backend } from "../../lib/store/s3.ts";
import { service } from "../suite/s3-server.ts";

const HOUR_MS = 3_600_000;

for (const [what, clockMs] of [
  ["behind", 2 * HOUR_MS],
  ["ahead", -3 * HOUR_MS],
] as const)
  test(`this machine's clock is hours ${what}: one request more, and all is read`, async (t) => {
    const server = await service(t);
    fs.writeFileSync(`${server.root}/box/x`, "content");
    const before = server.seen.length;
    server.clockMs = clockMs;
    // An address of its own: what is known of a service's clock is kept with its client.
    const backend = openOrigin(`${server.address("box")}&region=clock-${what}`, { baseMs: 1 });
    t.teardown(() => backend.close());
    t.equal(String(await backend.get("x")), "content");
    t.equal(server.seen.length - before, 2, "refused, and signed by the service's clock");
    t.equal(String(await backend.get("x")), "content");
    t.equal(server.seen.length - before, 3, "which is known from there on");
    t.equal(await backend.has("x"), true);
    server.clockMs = 0;
    t.equal(String(await backend.get("x")), "content", "also when it has been put right");
  });

test("a first request without a body finds out, too", async (t) => {
  const server = await service(t);
  fs.writeFileSync(`${server.root}/box/x`, "content");
  server.clockMs = 2 * HOUR_MS;
  const backend = openOrigin(`${server.address("box")}&region=clock-head`, { baseMs: 1 });
  t.teardown(() => backend.close());
  t.equal(await backend.has("x"), true);
});

test("the error says how far the clock is off", async (t) => {
  const server = await service(t);
  server.clockMs = 2 * HOUR_MS;
  const error = await s3Backend(`${server.address("box")}&region=clock-said`)
    .get("x")
    .catch((error: unknown) => error as BurrowError);
  t.match(
    explain(error),
    /RequestTimeTooSkewed: this machine's clock is 120 minutes behind that of the service: set it/,
  );
  t.match(error, { class: "transient" });
  server.clockMs = -90 * 60_000;
  const head = await s3Backend(`${server.address("box")}&region=clock-head-said`)
    .has("x")
    .catch((error: unknown) => error as BurrowError);
  t.match(explain(head), /403: this machine's clock is 90 minutes ahead of that of the service/);
});
