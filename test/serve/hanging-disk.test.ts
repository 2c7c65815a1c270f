// A system call on the cache's disk hangs for a minute (pitfall C5): the disk is demoted within 2 s, all is read from origin and memory,
// nobody else waits, and it is used again when it moves. A real daemon, a gofer that was started before, an origin on another disk.

import { type ChildProcess, spawnSync } from "node:child_process";
import fs from "node:fs";
import { type Test, test } from "tap";
import { BLOCK_BYTES, DONATE_MAX_BYTES } from "../../lib/base/limits.ts";
import { openCache } from "../../lib/cache/cache.ts";
import { STALL_MS } from "../../lib/cache/disk.ts";
import { AnswerState } from "../../lib/cache/mailbox-wire.ts";
import { exited, type Files, noise, publish, TestNode } from "../suite/daemon-node.ts";
import type { LisafsClient } from "../suite/lisafs-client.ts";
import { isLong } from "../suite/long.ts";
import { readFile } from "../suite/opened-files.ts";
import { startOrigin } from "../suite/origin-process.ts";
import { serveMount } from "../suite/served.ts";
import { otherThreads, traceThreads } from "../suite/strace.ts";
import { LATE_MS, until } from "../suite/wait.ts";

const MIB = 1024 * 1024;
const canTrace =
  process.getuid?.() === 0 && spawnSync("strace", ["-V"]).status === 0
    ? false
    : "needs root and strace";

/** Calls that hang, by what the daemon does with them. */
const LOOKS = ["openat", "newfstatat"];
const WRITES = ["pwrite64", "fsync", "fchmod", "utimensat", "rename"];
const CALLS = isLong ? [...LOOKS, ...WRITES] : ["openat", "rename"];
/**
 * The fault is for all files, not for those on the disk alone, and glibc opens one of /sys in whichever thread is the first to want a ninth
 * arena of malloc, to count CPUs: that one would hang in the middle of a hash of memory. With a number of arenas given it needs no count.
 * man mallopt(3), M_ARENA_TEST.
 */
const COUNTS_NO_CPUS = ["env", "MALLOC_ARENA_MAX=8"];

const FILES: Files = {
  // Far apart in content, so that each is a file of its own.
  ...Object.fromEntries(Array.from({ length: 6 }, (_, i) => [`s${i}`, noise(20_000 + i, i + 1)])),
  middle: noise(3 * BLOCK_BYTES + 9, 77),
  large: noise(DONATE_MAX_BYTES + MIB, 78),
};
const NAMES = Object.keys(FILES);

interface Scene {
  readonly node: TestNode;
  readonly daemon: ChildProcess;
  readonly client: LisafsClient;
  readonly mountId: string;
  row(name: string): number;
  isRight(name: string): boolean;
  path(name: string): string;
}

async function sceneOf(t: Test, config: { limitBytes?: number } = {}): Promise<Scene> {
  const node = new TestNode();
  t.teardown(() => node.close());
  const published = await publish(node.store, FILES);
  const mountId = node.mount(await startOrigin(t, node.store), published.digest);
  openCache(node.cache).startUp(false);
  const daemon = await node.start({ memoryBytes: 64 * MIB, ...config }, COUNTS_NO_CPUS);
  const { client } = await serveMount(t, node, mountId);
  return {
    node,
    daemon,
    client,
    mountId,
    row: (name) => published.row(name),
    isRight: (name) => readFile(client, name, FILES[name]!.length).bytes.equals(FILES[name]!),
    path: (name) => node.blobPath(published.refs.get(name)!.digest),
  };
}

/** Where strace writes. */
const traceOf = ({ node }: Scene): string => `${node.root}/trace`;

/** Has a call of every thread of the daemon's but its first hang for a minute; the result ends that. */
function hang(scene: Scene, call: string): Promise<() => Promise<string>> {
  const inject = `inject=${call}:delay_enter=60000000`;
  const threads = otherThreads(scene.daemon.pid!);
  return traceThreads(traceOf(scene), threads, ["-e", `trace=${call}`, "-e", inject]);
}

test("the daemon's own thread asks its disk nothing", { skip: canTrace }, async (t) => {
  const scene = await sceneOf(t, { limitBytes: 64 * MIB });
  const { node } = scene;
  const words = ["-y", "-e", "trace=%file,%desc"];
  const end = await traceThreads(traceOf(scene), [String(scene.daemon.pid)], words);
  for (const name of NAMES) t.ok(scene.isRight(name), name);
  const client = await node.connect(scene.mountId);
  for (const name of NAMES) t.equal((await client.askBlob(0, scene.row(name))).errno, 0);
  await node.settled();
  const lines = (await end()).split("\n");
  t.ok(lines.length > 20, `${lines.length} calls`);
  // Leases and copies of FDs are the kernel's own business, and the socket lies in the cache.
  const ofDisk = lines.filter(
    (line) => line.includes(node.root) && !/^(fcntl|dup\w*)\(|\.sock/.test(line),
  );
  t.same(ofDisk, []);
});

for (const call of CALLS) {
  test(`a disk whose ${call} hangs is demoted, and nobody waits for it`, {
    skip: canTrace,
    timeout: 120_000,
  }, async (t) => {
    const scene = await sceneOf(t);
    const { node } = scene;
    t.ok(scene.isRight("s0"));
    await node.settled();
    const client = await node.connect(scene.mountId);
    // Whole on this node, as an ask finds it.
    t.match(await client.askBlob(0, scene.row("s0")), { state: AnswerState.complete });
    for (const name of NAMES.slice(2)) fs.rmSync(scene.path(name), { force: true });
    const release = await hang(scene, call);
    const startedMs = performance.now();
    const asked = client.askBlob(0, scene.row("s0"));
    const missing = client.askBlob(0, scene.row("s3"));
    const before = performance.now();
    await node.status();
    t.ok(performance.now() - before < LATE_MS, "others are answered meanwhile");
    const isDemoted = await until(async () => (await node.status()).room.isDiskDemoted);
    t.ok(isDemoted, "demoted");
    const tookMs = performance.now() - startedMs;
    t.ok(tookMs < STALL_MS + LATE_MS, `demoted after ${Math.round(tookMs)} ms`);
    t.comment(`${call}: demoted after ${Math.round(tookMs)} ms`);
    t.equal((await asked).errno, 0);
    t.match(await missing, { errno: 0, state: AnswerState.completeHere });
    for (const name of NAMES) t.ok(scene.isRight(name), name);
    const again = await node.status();
    t.match(again.room, { isDiskDemoted: true, demotions: 1 });
    t.ok(again.room.memory.blobs > 0);
    await release();
    t.ok(await until(async () => !(await node.status()).room.isDiskDemoted), "promoted");
    for (const name of NAMES) t.ok(scene.isRight(name), `${name} after it`);
    t.equal((await node.settled()).room.reservedBytes, 0);
    t.ok(fs.existsSync(scene.path("s3")), "what is small is kept on it again");
  });
}

/** Whether a process has no thread left that runs. man proc_pid_stat(5). */
function hasEnded(pid: number): boolean {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8");
  return stat.slice(stat.lastIndexOf(")") + 2)[0] === "Z";
}

test("a daemon whose disk hangs ends when it is told to", {
  skip: canTrace,
  timeout: 120_000,
}, async (t) => {
  const scene = await sceneOf(t);
  const { node, daemon } = scene;
  const client = await node.connect(scene.mountId);
  t.equal((await client.askBlob(0, scene.row("s0"))).errno, 0);
  await node.settled();
  const release = await hang(scene, "openat");
  t.match(await client.askBlob(0, scene.row("s0")), { errno: 0 });
  const gone = exited(daemon);
  daemon.kill("SIGTERM");
  // Nobody can wait for it while strace holds its threads: it is a zombie by then.
  t.ok(await until(() => hasEnded(daemon.pid!)), "it ends in no more time than another");
  await release();
  t.equal(await gone, 0);
  await node.start({ memoryBytes: 64 * MIB });
  t.ok(scene.isRight("s0"), "and another one serves");
});
