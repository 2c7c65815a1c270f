// The network goes away in the middle of a read, for a sixth of the deadline, six times it, and long past it (pitfall B6): every
// answer meanwhile is right and whole, or EIO by the deadline; never short, never zeros; and right again after. Deadlines are a
// hundredth of the real ones; BURROW_LONG=1 takes the real ones and cuts of 5 s, 3 min and 30 min.

import { t as file, type Test, test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { BLOCK_BYTES, MISS_DEADLINE_MS } from "../../lib/base/limits.ts";
import { DAEMON_DEFAULTS } from "../../lib/daemon/config.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { noise } from "../suite/daemon-node.ts";
import { scene } from "../suite/daemon-scene.ts";
import { contentOf, open, walkTo } from "../suite/lisafs-calls.ts";
import type { LisafsClient } from "../suite/lisafs-client.ts";
import { isLong } from "../suite/long.ts";
import type { Fault } from "../suite/origin-server.ts";
import { serveMount } from "../suite/served.ts";
import { sleep, until } from "../suite/wait.ts";

const SCALE = isLong ? 1 : 100;
const DEADLINE_MS = MISS_DEADLINE_MS / SCALE;
const { deadlineMs, headerMs, stallMs } = DAEMON_DEFAULTS;
const CONFIG = {
  deadlineMs: deadlineMs / SCALE,
  headerMs: headerMs / SCALE,
  stallMs: stallMs / SCALE,
  background: false,
};
const CUTS_MS = (isLong ? [5_000, 180_000, 1_800_000] : [5_000, 180_000]).map((ms) => ms / SCALE);
/** How much later than its deadline an answer may be seen on a busy machine. */
const SLACK_MS = 5_000;
/** What a cut looks like to a request under way, then to the next ones. */
const KINDS: Readonly<Record<string, readonly [Fault, Fault]>> = {
  "a black hole": ["stall-body", "stall-headers"],
  "connections reset": ["short-body", "reset"],
};
file.setTimeout(isLong ? 7_000_000 : 120_000);

const LARGE_BLOCKS = 40;
const FILES = Object.fromEntries(
  CUTS_MS.flatMap((_, i) => [
    [`large${i}`, noise(LARGE_BLOCKS * BLOCK_BYTES + 7, 40 + i)],
    ...[0, 1, 2].map((k) => [`small${i}.${k}`, noise(300_000 + k, 50 + 10 * i + k)] as const),
  ]),
);

interface Outcome {
  readonly errno: number;
  readonly isRight: boolean;
  readonly tookMs: number;
}

async function readAt(
  client: LisafsClient,
  fd: number,
  offset: number,
  wanted: Buffer,
): Promise<Outcome> {
  const startedMs = performance.now();
  const fields = { fd, offset, count: wanted.length };
  const { errno, payload } = await client.callBeside(Mid.PRead, fields);
  const isRight = errno === 0 && payload.subarray(8).equals(wanted);
  return { errno, isRight, tookMs: performance.now() - startedMs };
}

async function openWhole(client: LisafsClient, name: string): Promise<Outcome> {
  const startedMs = performance.now();
  const { errno, fds } = await client.callBeside(Mid.OpenAt, { fd: walkTo(client, name) });
  const isRight = errno === 0 && fds.length === 1 && contentOf(fds[0]!).equals(FILES[name]!);
  client.takeBack(fds);
  return { errno, isRight, tookMs: performance.now() - startedMs };
}

/** Reads on while the origin is cut off: what came, in order. */
async function readThrough(
  client: LisafsClient,
  i: number,
  fd: number,
  endMs: number,
): Promise<Outcome[]> {
  const large = FILES[`large${i}`]!;
  const outcomes: Outcome[] = [];
  // The first block was read before the cut: it needs no network. Each other one may be new.
  for (let step = 0; performance.now() < endMs || step === 0; step++) {
    const isHere = step % 4 === 3;
    const from = isHere ? 0 : (1 + ((step * 7) % (LARGE_BLOCKS - 2))) * BLOCK_BYTES - 1000;
    const length = isHere ? 5000 : BLOCK_BYTES + 2000;
    const outcome =
      step % 4 === 2
        ? await openWhole(client, `small${i}.${step % 3}`)
        : await readAt(client, fd, from, large.subarray(from, from + length));
    if (isHere && !outcome.isRight) throw new Error("what is here needs no network");
    outcomes.push(outcome);
    await sleep(1);
  }
  return outcomes;
}

/** How many were not right. */
function check(t: Test, outcomes: readonly Outcome[], message: string): number {
  const wrong = outcomes.filter(({ errno, isRight }) => !isRight && errno !== Errno.EIO);
  t.same(wrong, [], `${message}: right, or EIO`);
  const lateMs = Math.max(...outcomes.map(({ tookMs }) => tookMs));
  t.ok(lateMs < DEADLINE_MS + SLACK_MS, `${message}: the latest after ${lateMs.toFixed(0)} ms`);
  return outcomes.filter(({ isRight }) => !isRight).length;
}

for (const [kind, [first, next]] of Object.entries(KINDS)) {
  test(`cut off by ${kind}: right bytes or EIO in time, and right again after`, {
    timeout: isLong ? 7_000_000 : 60_000,
  }, async (t) => {
    const { node, server, mountId } = await scene(t, FILES);
    await node.start(CONFIG);
    const env = { BURROW_MISS_DEADLINE_MS: String(DEADLINE_MS) };
    const { client } = await serveMount(t, node, mountId, { env });
    client.channels[0]!.timeoutMs = 2 * DEADLINE_MS + 10_000;
    for (const [i, cutMs] of CUTS_MS.entries()) {
      const name = `large${i}`;
      const { fd } = open(client, walkTo(client, name));
      const [head, tail] = [FILES[name]!.subarray(0, 5000), FILES[name]!.subarray(-5000)];
      const before = async () => (await readAt(client, fd, 0, head)).isRight;
      t.ok(await until(before), "before");
      let cut = 0;
      server.fault = () => (cut++ === 0 ? first : next);
      const endMs = performance.now() + cutMs;
      const healed = sleep(cutMs).then(() => {
        server.fault = () => "none";
      });
      const outcomes = await readThrough(client, i, fd, endMs);
      await healed;
      const failed = check(t, outcomes, `cut for ${cutMs} ms`);
      if (cutMs > DEADLINE_MS) t.ok(failed > 0, `${failed} of ${outcomes.length} were EIO`);
      // At once, but for a machine so busy that a read passes the deadline of this test.
      const end = () => readAt(client, fd, FILES[name]!.length - 5000, tail);
      const small = () => openWhole(client, `small${i}.0`);
      for (const read of [end, small]) {
        const isAgain = until(async () => check(t, [await read()], "after the cut") === 0);
        t.ok(await isAgain, "right again");
      }
    }
  });
}
