// kill -9 at a system call of a daemon's work on its cache: publish, evict, pin (pitfalls B2, C7). Whatever the call, no file of blobs/ or
// indexes/ is wrong or unsealed, and the next start clears what was half. BURROW_LONG=1: at every call; else at a few of them.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "tap";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { openCache, statCache } from "../../lib/cache/cache.ts";
import { listPins } from "../../lib/cache/pins.ts";
import { Survey } from "../../lib/cache/survey.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { MARK } from "../suite/crash-program.ts";
import { noise, publish, TestNode } from "../suite/daemon-node.ts";
import { diskBytes } from "../suite/disk-bytes.ts";
import { isLong } from "../suite/long.ts";

const POINTS = isLong ? Number.POSITIVE_INFINITY : 8;
/** All that changes something on disk, and what eviction asks the kernel. */
const CALLS =
  "openat,write,pwrite64,fsync,fchmod,chmod,utimensat,rename,unlink,mkdir,ftruncate,fcntl,close".split(
    ",",
  );
const canTrace =
  process.getuid?.() === 0 && spawnSync("strace", ["-V"]).status === 0
    ? false
    : "needs root and strace";

const FILES = {
  ...Object.fromEntries(Array.from({ length: 6 }, (_, i) => [`s${i}`, noise(9_000 + i, i + 1)])),
  large: noise(5 * BLOCK_BYTES + 7, 99),
};

interface Point {
  readonly call: string;
  /** The how many-th call of a thread. */
  readonly when: number;
}

/** Every call that a traced run made after MARK, by the thread's own count. */
function pointsOf(trace: string): Point[] {
  const counts = new Map<string, number>();
  const points = new Map<string, Point>();
  let hasBegun = false;
  for (const line of trace.split("\n")) {
    if (line.includes(MARK)) hasBegun = true;
    const match = /^(\d+) +([a-z0-9_]+)\(/.exec(line);
    if (match === null || !CALLS.includes(match[2]!)) continue;
    const key = `${match[1]} ${match[2]}`;
    const when = (counts.get(key) ?? 0) + 1;
    counts.set(key, when);
    if (hasBegun) points.set(`${match[2]} ${when}`, { call: match[2]!, when });
  }
  return [...points.values()];
}

test("kill -9 at a system call leaves a cache that is right", {
  skip: canTrace,
  timeout: 3_600_000,
}, async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const published = await publish(node.store, FILES);
  const smalls = ["s0", "s3", "s5"].map((name) => published.row(name)).join(",");
  const program = fileURLToPath(new URL("../suite/crash-program.js", import.meta.url));
  const run = (cache: string, strace: readonly string[]) =>
    spawnSync(
      "strace",
      [
        ...["-f", "-qq", ...strace, process.execPath, "--no-warnings", program],
        ...[
          cache,
          node.state,
          node.store,
          published.digest,
          smalls,
          String(published.row("large")),
        ],
      ],
      // One thread of the pool: a call is found again by its number in its thread.
      {
        encoding: "utf8",
        timeout: 60_000,
        env: { ...process.env, UV_THREADPOOL_SIZE: "1" },
      },
    );
  const traced = `${node.root}/trace`;
  const whole = run(node.cache, [
    "-o",
    traced,
    "-e",
    `trace=stat,statx,access,newfstatat,${CALLS}`,
  ]);
  t.equal(whole.stdout, "done\n", whole.stderr);
  const all = pointsOf(fs.readFileSync(traced, "utf8"));
  t.ok(all.length >= 300, `${all.length} calls`);
  const step = Math.max(1, all.length / POINTS);
  let killed = 0;
  let most = 0;
  for (let at = Date.now() % Math.ceil(step); at < all.length; at += step) {
    const { call, when } = all[Math.floor(at)]!;
    const cache = `${node.root}/c${Math.floor(at)}`;
    const inject = `inject=${call}:signal=SIGKILL:when=${when}`;
    const { stdout } = run(cache, ["-o", "/dev/null", "-e", `trace=${call}`, "-e", inject]);
    if (stdout !== "done\n") killed++;
    if (!fs.existsSync(`${cache}/burrow-cache.json`)) continue;
    const fault = faultOf(cache);
    if (fault !== "") t.fail(`${call} ${when}: ${fault}`);
    const startedMs = performance.now();
    const opened = openCache(cache);
    opened.startUp(false);
    most = Math.max(most, performance.now() - startedMs);
    t.same(fs.readdirSync(`${cache}/tmp`), []);
    t.same(fs.readdirSync(`${cache}/partial`), []);
    const pins = listPins(opened);
    t.ok(pins.length === 0 || pins[0] === published.digest, "a pin is there or not");
    opened.room.unknown(0);
    await new Survey(opened).run();
    const shards = fs.readdirSync(`${cache}/blobs`).map((shard) => `${cache}/blobs/${shard}`);
    const there = shards.reduce((sum, shard) => sum + diskBytes(shard), 0);
    t.ok(opened.room.usedBytes >= there, "what is there is counted");
    t.ok(statCache(opened).blobs <= Object.keys(FILES).length);
    fs.rmSync(cache, { recursive: true });
  }
  t.ok(killed > 0);
  t.comment(`${killed} kills, the next start took ${most.toFixed(0)} ms at most`);
});

/** What is wrong in a cache right after a kill, before anybody mends it. */
function faultOf(root: string): string {
  const cache = openCache(root);
  for (const folder of ["blobs", "indexes"] as const) {
    for (const digest of cache.digests(folder)) {
      const path = cache.path(folder, digest);
      if (cache.check(folder, digest, -1) !== "sealed") return `${path} has no seal`;
      if (digestOf(fs.readFileSync(path)) !== digest) return `${path} is wrong`;
    }
  }
  return "";
}
