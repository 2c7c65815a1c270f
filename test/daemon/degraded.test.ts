// A daemon of which some of what it is given is bad starts, and only what leads there fails (pitfalls A8); and one that is replaced under
// a thousand asks that wait ends at once, refuses a file of origins that can't be used, and leaves the sandboxes what they had (A9).

import fs from "node:fs";
import { dirname } from "node:path";
import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { cachePath } from "../../lib/cache/layout.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { exited, noise, publish } from "../suite/daemon-node.ts";
import { scene } from "../suite/daemon-scene.ts";
import { contentOf, stat, walkTo } from "../suite/lisafs-calls.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { serveMount } from "../suite/served.ts";
import { until } from "../suite/wait.ts";

test("of a view with bad layers only what is in them fails", async (t) => {
  const { node, server, published } = await scene(t, { good: noise(5_000, 1) });
  const other = await OriginServer.start(node.store);
  t.teardown(() => other.close());
  const layers = await Promise.all(
    ["forbidden", "missing", "damaged", "cut", "odd"].map((name, i) =>
      publish(node.store, { [name]: noise(6_000 + i, 10 + i) }),
    ),
  );
  const [forbidden, missing, damaged, cut, odd] = layers.map(({ digest }) => digest);
  other.fault = (path) => (path.includes(forbidden!) ? "403" : "none");
  const pathOf = (digest: string) => `${node.store}/indexes/${digest.slice(0, 2)}/${digest}`;
  fs.rmSync(pathOf(missing!));
  const bytes = fs.readFileSync(pathOf(damaged!));
  fs.writeFileSync(pathOf(damaged!), bytes.fill(7, 100, 200));
  fs.truncateSync(pathOf(cut!), 50);
  // Where the cache keeps it there is something that is no file.
  const place = cachePath(node.cache, "indexes", odd!);
  fs.mkdirSync(`${place}/in-the-way`, { recursive: true });
  const id = node.mount(other.url, published.digest, ...layers.map(({ digest }) => digest));
  // One more names an origin that can't be one, another a host that isn't there.
  const path = `${node.state}/mounts/${id}/mount.json`;
  const mount = JSON.parse(fs.readFileSync(path, "utf8"));
  const more = ["ftp://nowhere.invalid/x", "http://127.0.0.1:9/x", `${server.url}/deeper`];
  for (const [i, origin] of more.entries())
    mount.grafts.push({ at: `/more${i}`, snapshot: `sha256:${published.digest}`, origin });
  fs.writeFileSync(path, JSON.stringify(mount));
  await node.start({ deadlineMs: 4_000 });
  const client = await node.connect(id);
  const asks = [0, 1, 2, 3].map((i) => client.askBlob(1 + i, 0));
  t.equal(
    (await client.askBlob(0, 0)).errno,
    0,
    "what is good is served, while others are asked for",
  );
  for (const [i, { errno }] of (await Promise.all(asks)).entries())
    t.not(errno, 0, `layer ${1 + i} fails`);
  for (const digest of [forbidden!, missing!, damaged!, cut!])
    t.match(node.output, digest, "and is named");
  t.equal((await client.askBlob(5, 0)).errno, 0, "what is in the way is put away");
  t.match(node.output, /403/);
  // The table of that snapshot is there by now, whoever sent it: it is what its name says.
  for (const i of [6, 7, 8]) t.equal((await client.askBlob(i, 0)).errno, 0);
  // What was mended is served, without a restart.
  other.fault = () => "none";
  t.equal((await client.askBlob(1, 0)).errno, 0, "rights were given");
  t.notMatch(node.output, /MaxListeners/);
});

test("origins that can't be, or aren't there, fail who asks them alone", async (t) => {
  const { node, published, mountId } = await scene(t, { good: noise(5_000, 1) });
  await node.start({ deadlineMs: 4_000 });
  for (const origin of ["ftp://nowhere.invalid/x", "http://127.0.0.1:9/x", "/no/such/store"]) {
    const client = await node.connect(node.mount(origin, published.digest));
    t.not((await client.askBlob(0, 0)).errno, 0, origin);
    t.ok(await until(() => node.output.includes(origin)), `${origin} is named`);
    client.close();
  }
  const client = await node.connect(mountId);
  t.equal((await client.askBlob(0, 0)).errno, 0);
});

test("a cache in which something is bad is started on", async (t) => {
  const { node, published, mountId } = await scene(t, {
    good: noise(5_000, 1),
    b: noise(6_000, 2),
  });
  const first = await node.start();
  const client = await node.connect(mountId);
  t.equal((await client.askBlob(0, published.row("good"))).errno, 0);
  client.close();
  first.kill("SIGKILL");
  await exited(first);
  const blob = node.blobPath(published.refs.get("b")!.digest);
  fs.mkdirSync(dirname(blob), { recursive: true });
  // It may have come as the other's neighbour.
  fs.rmSync(blob, { force: true });
  fs.symlinkSync("/dev/zero", blob);
  fs.mkdirSync(`${node.cache}/partial/folder/in-it`, { recursive: true });
  fs.writeFileSync(`${node.cache}/blobs/no-folder`, "x");
  fs.mkdirSync(`${node.cache}/tmp/left`);
  fs.writeFileSync(`${node.cache}/boot`, Buffer.alloc(100, 255));
  await node.start();
  const again = await node.connect(mountId);
  for (const name of ["good", "b"])
    t.equal((await again.askBlob(0, published.row(name))).errno, 0, name);
  t.ok(fs.readFileSync(blob).equals(noise(6_000, 2)), "put in the place of what was no file");
});

const CLIENTS = 20;
const ASKS = 50;

test("a daemon is replaced under a thousand asks that wait", { timeout: 120_000 }, async (t) => {
  const large = noise(CLIENTS * ASKS * 1_024, 3);
  const files = { large, small: noise(9_000, 4), other: noise(9_500, 5) };
  const { node, server, published, mountId } = await scene(t, files);
  const limits = { headerMs: 60_000, deadlineMs: 60_000 };
  const first = await node.start(limits);
  const { client: gofer } = await serveMount(t, node, mountId, { channels: 4 });
  gofer.channels[1]!.timeoutMs = 60_000;
  const [small, other] = [walkTo(gofer, "small"), walkTo(gofer, "other")];
  // The index and its locator are here; nothing else comes.
  const probe = await node.connect(mountId);
  t.equal((await probe.askBlob(0, published.row("other"))).errno, 0);
  fs.rmSync(node.blobPath(published.refs.get("small")!.digest), { force: true });
  server.fault = () => "stall-headers";
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => node.connect(mountId)));
  const blocks = Math.floor(large.length / BLOCK_BYTES);
  const asks = clients.flatMap((client) =>
    Array.from({ length: ASKS }, (_, i) =>
      client.askBlocks(0, published.row("large"), i % blocks, 1),
    ),
  );
  const opening = gofer.callBeside(Mid.OpenAt, { fd: small }, gofer.channels[1]);
  t.ok(await until(async () => (await node.status()).fetch["asks"]! > CLIENTS * ASKS));
  gofer.pathway = gofer.channels[2]!;
  const answers = () => {
    t.equal(stat(gofer, other).size, 9_500);
    t.equal(gofer.call(Mid.FStatFS, { fd: gofer.rootFd }).errno, 0);
    t.equal(walkTo(gofer, "small") > 0, true);
  };
  answers();
  const startedMs = performance.now();
  first.kill("SIGTERM");
  t.equal(await exited(first), 0);
  t.comment(`ended ${(performance.now() - startedMs).toFixed(0)} ms after SIGTERM`);
  t.ok(
    (await Promise.all(asks)).every(({ errno }) => errno !== 0),
    "all that waited are told",
  );
  answers();
  // The next one's file has a slip in it: it doesn't serve, and says why; what is served isn't touched.
  const origins = `${node.root}/origins.json`;
  fs.writeFileSync(origins, '{ "format": 1, "orgins": {} }');
  t.not(await exited(node.spawn({ ...limits, origins })), 0);
  t.match(node.output, /no .*orgins/);
  answers();
  server.fault = () => "none";
  await node.start(limits);
  const { errno, fds } = await opening;
  t.equal(errno, 0, "who waited in a sandbox has it from the next daemon");
  t.ok(contentOf(fds[0]!).equals(files.small));
  gofer.takeBack(fds);
  t.not(errno, Errno.EIO);
});
