// The cache's disk is full, read-only or failing while sandboxes run (pitfalls C4, C5): they read on, from memory, and the disk is used
// again as soon as it takes writes, without a restart. A real daemon and a real gofer, which was started before.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { dirname } from "node:path";
import { type Test, test } from "tap";
import { DONATE_MAX_BYTES } from "../../lib/base/limits.ts";
import { openCache } from "../../lib/cache/cache.ts";
import { stopDaemon } from "../../lib/cache/client.ts";
import { type Files, noise, publish, TestNode } from "../suite/daemon-node.ts";
import { contentOf, open, walkTo } from "../suite/lisafs-calls.ts";
import { isLong } from "../suite/long.ts";
import { readFile } from "../suite/opened-files.ts";
import { type Served, serveMount } from "../suite/served.ts";
import { until } from "../suite/wait.ts";

const MIB = 1024 * 1024;
const needsRoot = process.getuid?.() === 0 ? false : "mounting needs root";
const needsStrace =
  spawnSync("strace", ["-V"]).status === 0 ? false : "strace makes the disk fail, and isn't here";

const FILES: Files = Object.fromEntries([
  ...Array.from({ length: 30 }, (_, i) => [`s${i}`, noise(60_000 + i, i + 1)]),
  ["middle", noise(3 * MIB, 77)],
  ["large", noise(DONATE_MAX_BYTES + MIB, 78)],
  ["later", noise(DONATE_MAX_BYTES + MIB, 79)],
]);

/** Of a small disk: 256 folders of blobs, and about as many files. */
const INODES = 600;

/** Calls of a write to the cache, and how they fail. In the long run all of them. */
const FAULTS = [
  ["fsync", "EIO"],
  ["utimensat", "EROFS"],
  ["rename", "EIO"],
  ["fsync", "EDQUOT"],
] as const;

interface Scene extends Pick<Served, "client"> {
  readonly node: TestNode;
  path(name: string): string;
  /** Whether a file is read right. */
  isRight(name: string): boolean;
}

async function scene(
  t: Test,
  cache: string,
  prefix: readonly string[] = [],
  limitBytes = 0,
  files: Files = FILES,
): Promise<Scene> {
  const node = new TestNode();
  t.teardown(() => node.close());
  node.cache = cache === "" ? node.cache : `${cache}/cache`;
  const published = await publish(node.store, files);
  const id = node.mount(node.store, published.digest);
  // It becomes a cache before its disk fails.
  openCache(node.cache).startUp(false);
  await node.start({ memoryBytes: 32 * MIB, limitBytes }, prefix);
  // A strace that is killed leaves its daemon behind.
  t.teardown(() => stopDaemon(node.cache));
  const { client } = await serveMount(t, node, id);
  return {
    node,
    client,
    path: (name) => node.blobPath(published.refs.get(name)!.digest),
    isRight: (name) => readFile(client, name, files[name]!.length).bytes.equals(files[name]!),
  };
}

function mountTmpfs(t: Test, path: string, options: string): void {
  fs.mkdirSync(path, { recursive: true });
  const { status, stderr } = spawnSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", path]);
  if (status !== 0) throw new Error(String(stderr));
  t.teardown(() => spawnSync("umount", ["-l", path]));
}

test("a full disk: everything is read from memory, and kept again once there is space", {
  skip: needsRoot,
}, async (t) => {
  const disk = fs.mkdtempSync("/tmp/burrow-disk-");
  t.teardown(() => fs.rmSync(disk, { recursive: true, force: true }));
  mountTmpfs(t, disk, "size=24m");
  const at = await scene(t, disk);
  t.ok(at.isRight("s0"));
  await at.node.settled();
  t.throws(() => fs.writeFileSync(`${disk}/ballast`, Buffer.alloc(32 * MIB)), { code: "ENOSPC" });
  // Of those that did not come along with the first.
  const names = Object.keys(FILES).filter((name) => !fs.existsSync(at.path(name)));
  t.ok(names.length > 5);
  for (const name of names) t.ok(at.isRight(name), name);
  for (const name of names) t.ok(at.isRight(name), `${name} again`);
  const { room } = await at.node.status();
  t.ok(room.memory.blobs > 5 && room.memory.usedBytes < 32 * MIB);
  t.equal(room.isDiskDemoted, false, "a full disk is tried again each time");
  fs.rmSync(`${disk}/ballast`);
  const smalls = names.filter((name) => name.startsWith("s"));
  // What was about to go when the disk was full may go yet.
  const isKept = () =>
    smalls.every((name) => at.isRight(name)) &&
    smalls.every((name) => fs.existsSync(at.path(name)));
  t.ok(await until(isKept), "they went to disk");
});

test("all within the limit is in use: the rest is read from memory", async (t) => {
  const at = await scene(t, "", [], 2 * MIB);
  const smalls = Object.keys(FILES).filter((name) => name.startsWith("s"));
  const held = smalls.map((name) => open(at.client, walkTo(at.client, name)).hostFd);
  t.ok(
    held.every((fd) => fd >= 0),
    "all are donated",
  );
  for (const [i, fd] of held.entries()) t.ok(contentOf(fd).equals(FILES[smalls[i]!]!));
  t.ok(at.isRight("middle") && at.isRight("large"));
  const { room } = await at.node.status();
  t.ok(room.usedBytes <= 2 * MIB && room.memory.blobs > 0, `${room.memory.blobs} in memory`);
  at.client.takeBack(held);
});

test("a disk that takes no writes is demoted, and promoted when it does", {
  skip: needsRoot,
}, async (t) => {
  const at = await scene(t, "");
  t.ok(at.isRight("s0"));
  await at.node.settled();
  const over = ["tmp", "partial"].map((name) => `${at.node.cache}/${name}`);
  for (const path of over) mountTmpfs(t, path, "ro");
  const names = Object.keys(FILES);
  for (const name of names) t.ok(at.isRight(name), name);
  const demoted = (await at.node.status()).room;
  t.match(demoted, { isDiskDemoted: true, demotions: 1 });
  t.ok(demoted.memory.blobs > 0);
  for (const path of over) t.equal(spawnSync("umount", [path]).status, 0);
  t.ok(await until(async () => !(await at.node.status()).room.isDiskDemoted), "promoted");
  for (const name of names) t.ok(at.isRight(name), `${name} after it`);
  t.ok(names.filter((name) => name.startsWith("s")).every((name) => fs.existsSync(at.path(name))));
});

test("each write, fsync and rename of a failing disk may fail: no wrong bytes, no restart", {
  skip: needsRoot || needsStrace,
}, async (t) => {
  for (const [call, errno] of isLong ? FAULTS : FAULTS.slice(0, 1)) {
    const inject = `inject=${call}:error=${errno}:when=3..8`;
    const strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", `trace=${call}`, "-e", inject];
    const at = await scene(t, "", strace);
    for (const name of Object.keys(FILES)) t.ok(at.isRight(name), `${call} ${errno}: ${name}`);
    t.ok(await until(async () => !(await at.node.status()).room.isDiskDemoted), "promoted");
    for (const name of Object.keys(FILES)) t.ok(at.isRight(name), `${name} again`);
    const { room } = await at.node.status();
    t.ok(room.demotions + room.memory.blobs > 0, `${call}: ${room.demotions} demotions`);
    await stopDaemon(at.node.cache);
  }
});

/** Mounts something over a path for as long as the test lasts, or until the result is called. */
function cover(t: Test, path: string, ...mounts: readonly (readonly string[])[]): () => void {
  const uncover = () => spawnSync("umount", ["-l", path]);
  for (const [i, words] of mounts.entries()) {
    const { status, stderr } = spawnSync("mount", [...words, path]);
    if (status !== 0) throw new Error(String(stderr));
    if (i === 0) t.teardown(uncover);
  }
  return () => void t.equal(spawnSync("umount", [path]).status, 0);
}

test("a cache that is mounted read-only under its daemon: all is read, and kept again once it can be", {
  skip: needsRoot,
}, async (t) => {
  const at = await scene(t, "");
  t.ok(at.isRight("s0"));
  await at.node.settled();
  const { cache } = at.node;
  const uncover = cover(t, cache, ["--bind", cache], ["-o", "remount,bind,ro"]);
  const names = Object.keys(FILES);
  for (const name of names) t.ok(at.isRight(name), name);
  t.match((await at.node.status()).room, { isDiskDemoted: true, demotions: 1 });
  uncover();
  t.ok(await until(async () => !(await at.node.status()).room.isDiskDemoted), "promoted");
  for (const name of names) t.ok(at.isRight(name), `${name} after it`);
  t.ok(names.filter((name) => name.startsWith("s")).every((name) => fs.existsSync(at.path(name))));
});

test("folders that can't be read or are none cost a fetch, and no other file", {
  skip: needsRoot,
}, async (t) => {
  const caps = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"];
  const at = await scene(t, "", caps);
  const names = Object.keys(FILES);
  for (const name of names) t.ok(at.isRight(name), name);
  await at.node.settled();
  const shards = names.map((name) => dirname(at.path(name)));
  // The gofer may read everything; what it can't open it asks for.
  for (const shard of shards.slice(0, 10)) {
    fs.rmSync(shard, { recursive: true, force: true });
    fs.mkdirSync(shard, { recursive: true, mode: 0o000 });
  }
  for (const name of names) t.ok(at.isRight(name), `${name}: unreadable`);
  for (const shard of shards.slice(10, 20)) {
    fs.rmSync(shard, { recursive: true, force: true });
    fs.writeFileSync(shard, "x");
  }
  for (const shard of shards.slice(20, 30)) {
    fs.rmSync(shard, { recursive: true, force: true });
    fs.symlinkSync(shard, shard);
  }
  for (const name of names) t.ok(at.isRight(name), `${name}: no folder`);
});

test("a disk with few inodes: older files go for new ones, and all is read and kept", {
  skip: needsRoot,
}, async (t) => {
  const disk = fs.mkdtempSync("/tmp/burrow-disk-");
  t.teardown(() => fs.rmSync(disk, { recursive: true, force: true }));
  mountTmpfs(t, disk, `size=256m,nr_inodes=${INODES}`);
  const files = Object.fromEntries(
    Array.from({ length: 2 * INODES }, (_, i) => [`f${i}`, noise(3_000 + i, i + 1)]),
  );
  const at = await scene(t, disk, [], 0, files);
  for (const name of Object.keys(files)) t.ok(at.isRight(name), name);
  const { room } = await at.node.settled();
  const { files: all, ffree } = fs.statfsSync(disk);
  t.equal(room.inodes, all);
  t.ok(ffree > 0 && ffree < all, `${ffree} inodes of ${all} are free`);
  t.ok(room.evicted > INODES / 2, `${room.evicted} went`);
  t.match(room, { isDiskDemoted: false, demotions: 0 });
  t.ok(room.memory.blobs < INODES, `${room.memory.blobs} in memory`);
  const isKept = () => at.isRight("f0") && fs.existsSync(at.path("f0"));
  t.ok(await until(isKept), "what is asked for is kept on disk again");
});

test("a disk whose inodes others take is full: all is read from memory, and kept again when they give them back", {
  skip: needsRoot,
}, async (t) => {
  const disk = fs.mkdtempSync("/tmp/burrow-disk-");
  t.teardown(() => fs.rmSync(disk, { recursive: true, force: true }));
  mountTmpfs(t, disk, `size=256m,nr_inodes=${INODES}`);
  const at = await scene(t, disk);
  t.ok(at.isRight("s0"));
  await at.node.settled();
  const taken: string[] = [];
  for (let i = 0; fs.statfsSync(disk).ffree > 0; i++) {
    taken.push(`${disk}/taken${i}`);
    fs.writeFileSync(taken[i]!, "");
  }
  const names = Object.keys(FILES);
  for (const name of names) fs.rmSync(at.path(name), { force: true });
  // Those of what went are taken as well.
  while (fs.statfsSync(disk).ffree > 0) {
    taken.push(`${disk}/taken${taken.length}`);
    fs.writeFileSync(taken.at(-1)!, "");
  }
  for (const name of names) t.ok(at.isRight(name), name);
  const { room } = await at.node.status();
  t.ok(room.memory.blobs > 0, `${room.memory.blobs} in memory`);
  t.equal(room.isDiskDemoted, false, "a full disk is no failing one");
  for (const path of taken) fs.rmSync(path);
  t.ok(await until(async () => (await at.node.status()).room.freeInodes > INODES / 4));
  const smalls = names.filter((name) => name.startsWith("s"));
  const isKept = () =>
    smalls.every((name) => at.isRight(name)) &&
    smalls.every((name) => fs.existsSync(at.path(name)));
  t.ok(await until(isKept), "they went to disk");
});
