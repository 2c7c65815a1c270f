// Files of the cache whose place something else has taken: a FIFO, a symlink to a file without an end, a socket's name, a
// directory. None may be waited for, followed or believed; each is dropped and what belongs there comes again.

import { execFileSync } from "node:child_process";
import fs from "node:fs";
import { dirname } from "node:path";
import { type Test, test } from "tap";
import {
  ensureIndex,
  heldWhole,
  listBlobs,
  openCache,
  statCache,
  verifyCache,
} from "../../lib/cache/cache.ts";
import { BOOT_FILE, CACHE_MARKER, DAEMON_LOCK } from "../../lib/cache/layout.ts";
import { DAEMON_DEFAULTS } from "../../lib/daemon/config.ts";
import { startDaemon } from "../../lib/daemon/supervisor.ts";
import { exited, type Files, noise, publish, TestNode } from "../suite/daemon-node.ts";

const FILES: Files = { one: noise(10_000, 1), two: noise(20_000, 2) };

/** What may stand at a path instead of a file. */
const STRANGERS: Readonly<Record<string, (path: string) => void>> = {
  fifo: (path) => execFileSync("mkfifo", [path]),
  "link to /dev/zero": (path) => fs.symlinkSync("/dev/zero", path),
  "link to a right file": (path) => {
    // Its seal is right, so that only the link tells.
    const kept = `${dirname(dirname(dirname(path)))}/kept`;
    if (fs.existsSync(kept)) fs.symlinkSync(kept, path);
    else fs.symlinkSync("/nowhere", path);
  },
  directory: (path) => fs.mkdirSync(`${path}/below`, { recursive: true }),
};

function displace(path: string, stranger: string): void {
  const kept = `${dirname(dirname(dirname(path)))}/kept`;
  fs.rmSync(kept, { force: true });
  if (fs.existsSync(path) && !path.endsWith(CACHE_MARKER)) fs.renameSync(path, kept);
  fs.rmSync(path, { force: true, recursive: true });
  fs.mkdirSync(dirname(path), { recursive: true });
  STRANGERS[stranger]!(path);
}

async function nodeWith(t: Test) {
  const node = new TestNode();
  t.teardown(() => node.close());
  const published = await publish(node.store, FILES);
  const mountId = node.mount(node.store, published.digest);
  const cache = openCache(node.cache);
  await ensureIndex(cache, node.store, published.digest);
  return { node, published, mountId, cache };
}

const isRegular = (path: string) => fs.lstatSync(path).isFile();

for (const stranger of Object.keys(STRANGERS)) {
  test(`instead of a blob: ${stranger}`, { timeout: 120_000 }, async (t) => {
    const { node, published, mountId, cache } = await nodeWith(t);
    await node.start();
    const client = await node.connect(mountId);
    for (const name of ["one", "two"]) await client.askBlob(0, published.row(name));
    await node.settled();
    const path = node.blobPath(published.refs.get("one")!.digest);
    displace(path, stranger);
    const status = node.status();
    t.equal((await client.askBlob(0, published.row("one"))).errno, 0);
    t.ok(isRegular(path));
    t.same(fs.readFileSync(path), FILES["one"]);
    await status;
    displace(path, stranger);
    t.same([...listBlobs(cache)].length, 1, "listed are files");
    t.same(statCache(cache).blobs, 1);
    const { wrong } = await verifyCache(cache);
    t.same(wrong, [published.refs.get("one")!.digest], "found wrong");
    t.notOk(fs.existsSync(path));
  });

  test(`instead of a suspect blob: ${stranger}`, { timeout: 120_000 }, async (t) => {
    const { node, published, mountId, cache } = await nodeWith(t);
    await node.start();
    const path = cache.path("suspect", published.refs.get("one")!.digest);
    displace(path, stranger);
    const client = await node.connect(mountId);
    t.equal((await client.askBlob(0, published.row("one"))).errno, 0);
    t.same(fs.readFileSync(cache.path("blobs", published.refs.get("one")!.digest)), FILES["one"]);
  });

  test(`instead of an index: ${stranger}`, { timeout: 120_000 }, async (t) => {
    const { node, published, mountId, cache } = await nodeWith(t);
    const path = cache.path("indexes", published.digest);
    displace(path, stranger);
    t.equal(await heldWhole(cache, "indexes", published.digest), undefined);
    await ensureIndex(cache, node.store, published.digest);
    t.ok(isRegular(path));
    t.same(fs.readFileSync(path), published.index.bytes);
    displace(path, stranger);
    await node.start();
    const client = await node.connect(mountId);
    t.equal((await client.askBlob(0, published.row("one"))).errno, 0, "by the daemon, too");
    t.ok(isRegular(path));
  });

  test(`instead of a locator: ${stranger}`, { timeout: 120_000 }, async (t) => {
    const { node, published, mountId, cache } = await nodeWith(t);
    const path = cache.path("locators", published.digest);
    await node.start();
    displace(path, stranger);
    const client = await node.connect(mountId);
    t.equal((await client.askBlob(0, published.row("one"))).errno, 0);
    t.ok(isRegular(path), "replaced");
    displace(path, stranger);
    await ensureIndex(cache, node.store, published.digest);
    t.ok(isRegular(path), "by the CLI, too");
  });

  test(`instead of the marker or the boot file: ${stranger}`, { timeout: 120_000 }, async (t) => {
    const { node, published, mountId } = await nodeWith(t);
    for (const file of [CACHE_MARKER, BOOT_FILE]) {
      displace(`${node.cache}/${file}`, stranger);
      const daemon = await node.start();
      const client = await node.connect(mountId);
      t.equal((await client.askBlob(0, published.row("one"))).errno, 0, file);
      t.ok(isRegular(`${node.cache}/${file}`));
      daemon.kill("SIGTERM");
      t.equal(await exited(daemon), 0);
    }
  });

  test(`instead of the lock: ${stranger}`, { timeout: 120_000 }, async (t) => {
    const { node } = await nodeWith(t);
    const path = `${node.cache}/${DAEMON_LOCK}`;
    displace(path, stranger);
    const config = { ...DAEMON_DEFAULTS, cache: node.cache, state: node.state };
    await t.rejects(
      startDaemon(config, () => undefined),
      { code: "BURROW_DAEMON" },
      "two daemons could remove it under each other: left to who put it there",
    );
  });

  test(`instead of a shard: ${stranger}`, { timeout: 120_000 }, async (t) => {
    const { node, published, mountId, cache } = await nodeWith(t);
    await node.start();
    const path = dirname(node.blobPath(published.refs.get("one")!.digest));
    fs.rmSync(path, { force: true, recursive: true });
    STRANGERS[stranger]!(path);
    const client = await node.connect(mountId);
    t.equal((await client.askBlob(0, published.row("one"))).errno, 0);
    await node.settled();
    t.ok(statCache(cache).blobs >= 1);
  });
}
