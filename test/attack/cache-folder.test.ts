// Owns: proof that a cache directory whose parts another user made, or something else has taken the place of, neither has a daemon
// remove or mount over what is not the cache's, nor keeps it from starting. Plane: control.

import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import { type Test, test } from "tap";
import { openCache } from "../../lib/cache/cache.ts";
import { CACHE_FOLDERS, DAEMON_LOCK } from "../../lib/cache/layout.ts";
import { daemonConfig } from "../../lib/daemon/config.ts";
import { startDaemon } from "../../lib/daemon/supervisor.ts";
import { noise, publish, TestNode } from "../suite/daemon-node.ts";

const needsRoot = process.getuid?.() === 0 ? false : "acting as another user needs root";

function newNode(t: Test): TestNode {
  const node = new TestNode();
  t.teardown(() => node.close());
  fs.mkdirSync(node.cache);
  return node;
}

/** Has a daemon live for a moment in this process, and do `meanwhile`. */
async function live(t: Test, node: TestNode, meanwhile: () => unknown = () => undefined) {
  const config = daemonConfig({ cache: node.cache, state: node.state, idleMs: 0, standbys: 0 });
  const daemon = await startDaemon(config, () => undefined);
  t.ok(daemon !== undefined, "it starts");
  await meanwhile();
  daemon?.stop("test");
  await daemon?.ended;
}

test("no other user can hold the daemon's lock", { skip: needsRoot }, async (t) => {
  const node = newNode(t);
  const path = `${node.cache}/${DAEMON_LOCK}`;
  for (const each of [node.root, node.cache]) fs.chmodSync(each, 0o755);
  const nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
  const tryLock = () => spawnSync("setpriv", [...nobody, "flock", "-n", "-x", path, "true"]);
  await live(t, node, () => t.not(tryLock().status, 0));
  t.match(tryLock().stderr.toString(), /Permission denied/);
  // As a daemon of an earlier version has left it.
  fs.chmodSync(path, 0o644);
  await live(t, node);
  t.equal(fs.statSync(path).mode & 0o777, 0o600);
});

test("a folder of the cache that is a symlink is replaced, and what it leads to stays", async (t) => {
  const node = newNode(t);
  const kept = `${node.root}/kept`;
  fs.mkdirSync(`${kept}/below`, { recursive: true });
  fs.writeFileSync(`${kept}/below/file`, "mine");
  for (const folder of [...CACHE_FOLDERS, "standby", "lazy"])
    fs.symlinkSync(kept, `${node.cache}/${folder}`);
  await live(t, node);
  t.equal(fs.readFileSync(`${kept}/below/file`, "utf8"), "mine");
  t.same(fs.readdirSync(kept), ["below"]);
  for (const folder of CACHE_FOLDERS)
    t.ok(fs.lstatSync(`${node.cache}/${folder}`).isDirectory(), folder);
});

test("a symlink that takes a folder's place after the look is not followed", (t) => {
  const node = newNode(t);
  const cache = openCache(node.cache);
  const kept = `${node.root}/kept`;
  fs.mkdirSync(kept);
  fs.writeFileSync(`${kept}/file`, "mine");
  fs.rmdirSync(`${node.cache}/partial`);
  fs.symlinkSync(kept, `${node.cache}/partial`);
  t.throws(() => cache.startUp(false), { code: "ENOTDIR" });
  t.equal(fs.readFileSync(`${kept}/file`, "utf8"), "mine");
  t.end();
});

test("a lazy mount is not made over what a symlink leads to", { skip: needsRoot }, async (t) => {
  const node = newNode(t);
  const kept = `${node.root}/kept`;
  fs.mkdirSync(kept);
  fs.symlinkSync(kept, `${node.cache}/lazy`);
  const daemon = await node.start({ lazyMount: true });
  const mounts = fs.readFileSync("/proc/self/mountinfo", "utf8");
  t.notMatch(mounts, ` ${kept} `);
  if (!/no lazy mount/.test(node.output)) t.equal(node.lazyMounts, 1);
  daemon.kill("SIGTERM");
});

test("whatever stands for a folder or a shard, the daemon starts", async (t) => {
  const strangers: Readonly<Record<string, (path: string) => void>> = {
    file: (path) => fs.writeFileSync(path, "x"),
    fifo: (path) => execFileSync("mkfifo", [path]),
    "link to nowhere": (path) => fs.symlinkSync("/nowhere", path),
  };
  for (const [what, make] of Object.entries(strangers)) {
    const node = newNode(t);
    for (const folder of CACHE_FOLDERS) make(`${node.cache}/${folder}`);
    await live(t, node);
    for (const shard of ["blobs/ab", "suspect/cd"]) {
      fs.mkdirSync(`${node.cache}/${shard}`);
      fs.writeFileSync(`${node.cache}/${shard}/${shard.slice(-2).repeat(32)}`, "x");
    }
    fs.mkdirSync(`${node.cache}/blobs/cd`);
    make(`${node.cache}/suspect/ab`);
    fs.rmSync(`${node.cache}/boot`);
    await live(t, node);
    t.ok(fs.existsSync(`${node.cache}/suspect/ab/${"ab".repeat(32)}`), `${what}: suspect`);
    t.same(fs.readdirSync(`${node.cache}/blobs`), []);
  }
});

test("a daemon serves what it must after such a start", async (t) => {
  const node = newNode(t);
  const { digest } = await publish(node.store, { a: noise(10) });
  fs.writeFileSync(`${node.cache}/blobs`, "x");
  await live(t, node, async () => {
    const client = await node.connect(node.mount(node.store, digest));
    t.equal((await client.askBlob(0, 0)).errno, 0);
    client.close();
  });
});
