// The lazy mount: large files are donated before they are here. What is read of them is right, or EIO; their kernel's cache is
// shared; and whatever ends the daemon leaves nothing mounted that the next one doesn't mend.

import fs from "node:fs";
import { promisify } from "node:util";
import { t as file, type Test, test } from "tap";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { isDaemonUp } from "../../lib/cache/client.ts";
import type { DaemonConfig } from "../../lib/daemon/config.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { noise } from "../suite/daemon-node.ts";
import { type Scene, scene } from "../suite/daemon-scene.ts";
import { noFuse } from "../suite/fuse.ts";
import { walkTo } from "../suite/lisafs-calls.ts";
import type { LisafsClient } from "../suite/lisafs-client.ts";
import { serveMount } from "../suite/served.ts";
import { until } from "../suite/wait.ts";

// The origin lives in this process: what is read from the mount must not block it.
const read = promisify(fs.read);
const close = promisify(fs.close);
file.setTimeout(120_000);

const LARGE = noise(48 * BLOCK_BYTES + 77, 5);
const CONFIG: Partial<DaemonConfig> = { lazyMount: true, background: false };

const skip = noFuse;

interface Lazy extends Scene {
  readonly client: LisafsClient;
}

async function lazyScene(t: Test, config: Partial<DaemonConfig> = {}): Promise<Lazy> {
  const given = await scene(t, { large: LARGE });
  await given.node.start({ ...CONFIG, ...config });
  const { client } = await serveMount(t, given.node, given.mountId);
  return { ...given, client };
}

/** Opens the large file: the FD that is donated. */
async function donated(t: Test, client: LisafsClient): Promise<number> {
  const { errno, fds } = await client.callBeside(Mid.OpenAt, { fd: walkTo(client, "large") });
  t.equal(errno, 0);
  t.equal(fds.length, 1, "a file is donated");
  t.teardown(() => close(fds[0]!).catch(() => undefined));
  return fds[0]!;
}

async function bytesAt(fd: number, offset: number, length: number): Promise<Buffer> {
  const { bytesRead, buffer } = await read(fd, Buffer.alloc(length), 0, length, offset);
  return buffer.subarray(0, bytesRead);
}

test("a large file is donated, and read before it is here", { skip }, async (t) => {
  const { node, server, client, published } = await lazyScene(t);
  const fd = await donated(t, client);
  const facts = fs.fstatSync(fd);
  t.equal(facts.size, LARGE.length);
  t.equal(facts.mode, 0o100444);
  t.equal(server.count("packs"), 0, "opening it fetches nothing");
  const at = 20 * BLOCK_BYTES - 1000;
  t.ok((await bytesAt(fd, at, 5000)).equals(LARGE.subarray(at, at + 5000)), "right");
  const { requests, bytes } = Object.values((await node.status()).origins)[0]!;
  t.ok(requests <= 3 && bytes < LARGE.length / 2, `${bytes} bytes in ${requests} requests`);

  const other = await serveMount(t, node, node.mount(server.url, published.digest));
  const shared = await donated(t, other.client);
  t.equal(fs.fstatSync(shared).ino, facts.ino, "another sandbox has the same file");
  const before = (await node.status()).lazy!["reads"];
  t.ok((await bytesAt(shared, at, 5000)).equals(LARGE.subarray(at, at + 5000)));
  t.equal((await node.status()).lazy!["reads"], before, "and its pages");

  t.ok((await bytesAt(fd, 0, LARGE.length)).equals(LARGE), "all of it");
  t.equal((await bytesAt(fd, LARGE.length - 7, 100)).length, 7, "its end");
  t.equal((await bytesAt(fd, LARGE.length, 100)).length, 0);
  await until(() => fs.existsSync(node.blobPath(published.refs.get("large")!.digest)));
  const whole = await donated(t, client);
  t.not(fs.fstatSync(whole).dev, facts.dev, "a whole blob is donated as a plain file");
  t.ok((await bytesAt(fd, 3, 5)).equals(LARGE.subarray(3, 8)), "the lazy one goes on");
  t.throws(() => fs.writeSync(fd, "x"), { code: "EBADF" });
  t.throws(() => fs.openSync(`/proc/self/fd/${fd}`, "r+"), { code: "EROFS" });
});

test("what can't be had is EIO, never zeros, and right once it can", { skip }, async (t) => {
  const { node, server, client } = await lazyScene(t, {
    deadlineMs: 400,
    stallMs: 200,
    headerMs: 200,
  });
  const fd = await donated(t, client);
  for (const [i, fault] of (
    ["flip", "reset", "stall-body", "404", "short-body"] as const
  ).entries()) {
    server.fault = (path) => (path.startsWith("packs/") ? fault : "none");
    const at = i * 8 * BLOCK_BYTES + 123;
    const got = await bytesAt(fd, at, 4096).catch((error) => error.code);
    // The bit that is flipped may be another block's.
    if (fault === "flip" && got !== "EIO") t.ok(LARGE.subarray(at, at + 4096).equals(got));
    else t.equal(got, "EIO", fault);
    server.fault = () => "none";
    // By these deadlines it may be late on a loaded machine.
    const isRight = (bytes: Buffer) => bytes.equals(LARGE.subarray(at, at + 4096));
    const again = () => bytesAt(fd, at, 4096).then(isRight, () => false);
    t.ok(await until(again), `after ${fault}`);
  }
  t.ok((await node.status()).lazy!["failedReads"]! >= 4);
});

test("names are told, not found", { skip }, async (t) => {
  const { node, published, mountId } = await lazyScene(t);
  const folder = `${node.cache}/lazy`;
  const open = promisify(fs.open);
  const { digest } = published.refs.get("large")!;
  await t.rejects(open(`${folder}/${digest}`, "r"), { code: "ENOENT" });
  const mailbox = await node.connect(mountId);
  const { name } = await mailbox.askLazy(0, published.row("large"));
  t.match(name, new RegExp(`^${digest}\\.[0-9a-f]+\\.[0-9a-f]{8}$`));
  t.same(await fs.promises.readdir(folder), [], "nothing is listed");
  await close(await open(`${folder}/${name}`, "r"));
  await t.rejects(open(`${folder}/x`, "w"), { code: "EROFS" });
  await t.rejects(fs.promises.unlink(`${folder}/${name}`), { code: "EROFS" });
  await t.rejects(open(`${folder}/${name}/x`, "r"), { code: "ENOTDIR" });
  t.equal((await node.status()).lazy!["known"], 1);
});

test("a daemon that is killed is a pause for who reads", { skip }, async (t) => {
  const { node, server, client, published, mountId } = await lazyScene(t);
  const fd = await donated(t, client);
  t.ok((await bytesAt(fd, 0, 100)).equals(LARGE.subarray(0, 100)));
  // One read waits for the origin when the daemon dies, one is asked while there is none.
  server.fault = (path) => (path.startsWith("packs/") ? "stall-headers" : "none");
  const [first, second] = [20 * BLOCK_BYTES + 5, 40 * BLOCK_BYTES + 5];
  const waiting = bytesAt(fd, first, 100);
  await until(async () => (await node.status()).lazy!["underWay"]! > 0);
  process.kill((await node.status()).pid, "SIGKILL");
  await until(async () => !(await isDaemonUp(node.cache)));
  const later = bytesAt(fd, second, 100);
  server.fault = () => "none";
  // Whoever needs a daemon starts it, and not with the options of the last one.
  const next = await node.start({ ...CONFIG, lazyMount: false });
  t.ok((await waiting).equals(LARGE.subarray(first, first + 100)), "asked before");
  t.ok((await later).equals(LARGE.subarray(second, second + 100)), "asked meanwhile");
  t.equal(node.lazyMounts, 1);
  const again = await donated(t, client);
  t.equal(fs.fstatSync(again).ino, fs.fstatSync(fd).ino, "the same file to who had it");
  const other = await serveMount(t, node, mountId);
  t.equal(fs.fstatSync(await donated(t, other.client)).ino, fs.fstatSync(fd).ino, "and to others");

  next.kill("SIGTERM");
  await until(() => next.exitCode !== null);
  t.equal(node.lazyMounts, 1, "one that is told to end leaves it while gofers are there");
  const restarted = await node.start(CONFIG);
  t.ok((await bytesAt(fd, 0, LARGE.length)).equals(LARGE), "all of it");
  await until(() => fs.existsSync(node.blobPath(published.refs.get("large")!.digest)));
  t.equal((await node.status()).lazy!["failedReads"], 0);
  restarted.kill("SIGKILL");
});

test("a daemon that ends without gofers unmounts it", { skip }, async (t) => {
  const node = (await scene(t, { large: LARGE })).node;
  const daemon = await node.start(CONFIG);
  t.equal(node.lazyMounts, 1);
  daemon.kill("SIGTERM");
  await until(() => daemon.exitCode !== null);
  t.equal(daemon.exitCode, 0);
  t.equal(node.lazyMounts, 0);
  t.notOk(fs.existsSync(`${node.cache}/lazy.state`));
});

function holderOf(cache: string): number {
  const [head] = fs.readFileSync(`${cache}/lazy.state`, "utf8").split("\n");
  return Number(JSON.parse(head!).holder.split("-")[2]);
}

test("a holder that is killed while files are read has a successor", { skip }, async (t) => {
  const { node, server, client } = await lazyScene(t);
  const fd = await donated(t, client);
  server.fault = (path) => (path.startsWith("packs/") ? "stall-headers" : "none");
  const waiting = bytesAt(fd, 5, 100);
  await until(async () => (await node.status()).lazy!["underWay"]! > 0);
  const holder = holderOf(node.cache);
  process.kill(-holder, "SIGKILL");
  t.ok(await until(() => holderOf(node.cache) !== holder), "another one holds it");
  // Then its daemon, too, with that read under way.
  process.kill((await node.status()).pid, "SIGKILL");
  await until(async () => !(await isDaemonUp(node.cache)));
  server.fault = () => "none";
  const next = await node.start(CONFIG);
  t.ok((await waiting).equals(LARGE.subarray(5, 105)));
  t.ok((await bytesAt(fd, 0, LARGE.length)).equals(LARGE));
  t.equal(node.lazyMounts, 1);
  next.kill("SIGKILL");
});

test("a mount whose holder is gone, too, is made anew", { skip }, async (t) => {
  const { node, client, mountId } = await lazyScene(t);
  const fd = await donated(t, client);
  const holder = holderOf(node.cache);
  process.kill((await node.status()).pid, "SIGKILL");
  await until(async () => !(await isDaemonUp(node.cache)));
  process.kill(-holder, "SIGKILL");
  await t.rejects(bytesAt(fd, 0, 4096), "what was not read before is an error");
  await node.start(CONFIG);
  t.equal(node.lazyMounts, 1, "mounted once");
  const late = await client.callBeside(Mid.OpenAt, { fd: walkTo(client, "large") });
  t.same([late.errno, late.fds], [0, []], "who knew the first mount reads by PRead");
  const other = await serveMount(t, node, mountId);
  const again = await donated(t, other.client);
  t.ok(
    (await bytesAt(again, 0, 4096)).equals(LARGE.subarray(0, 4096)),
    "who comes now has the second",
  );
});

test("where it can't be mounted the daemon serves without it", { skip }, async (t) => {
  const node = (await scene(t, { large: LARGE })).node;
  await node.start(CONFIG, ["setpriv", "--bounding-set=-sys_admin"]);
  t.match(node.output, /no lazy mount.*lazy/);
  t.notOk((await node.status()).lazy);
});

test("without it large files are read by PRead", async (t) => {
  const { node, client } = await lazyScene(t, { lazyMount: false });
  t.notOk(fs.existsSync(`${node.cache}/lazy`));
  const { errno, fds } = await client.callBeside(Mid.OpenAt, { fd: walkTo(client, "large") });
  t.equal(errno, 0);
  t.same(fds, []);
});
