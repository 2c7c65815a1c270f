// A stage that is a prefix of a bucket without a manifest: every read is of the object as it was when it was listed, or ESTALE; never of
// two states of it, whatever happens to the object between the list and the read, or between two reads.

import fs from "node:fs";
import { promisify } from "node:util";
import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import type { DaemonConfig } from "../../lib/daemon/config.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { noise, type TestNode } from "../suite/daemon-node.ts";
import { noFuse } from "../suite/fuse.ts";
import { walkTo } from "../suite/lisafs-calls.ts";
import { serveMount } from "../suite/served.ts";
import { listStage, type Stage, stageScene } from "../suite/stage-scene.ts";

const CONFIG: Partial<DaemonConfig> = { background: false };
const LARGE = noise(12 * BLOCK_BYTES + 5, 77);
const FILES = { "a.csv": Buffer.from("1,2\n"), "more/large": LARGE, "more/empty": Buffer.alloc(0) };

function content(node: TestNode, stage: Stage, name: string): Buffer {
  return fs.readFileSync(node.blobPath(stage.refs.get(name)!.digest));
}

test("what is listed is read: small files whole, large ones by block", async (t) => {
  const { server, node, source } = await stageScene(t, FILES);
  const stage = await listStage(node, source);
  t.match(stage.imported.listing, { objects: 3, versioned: 0, skippedCount: 0 });
  await node.start(CONFIG);
  const client = await node.connect(stage.mountId);
  server.files.requests.length = 0;
  t.match(await client.askBlob(0, stage.row("a.csv")), { errno: 0, state: 1 });
  t.equal(content(node, stage, "a.csv").toString(), "1,2\n");
  t.equal((await client.askBlob(0, stage.row("more/empty"))).errno, 0);
  const answer = await client.askBlocks(0, stage.row("more/large"), 3, 1);
  t.match(answer, { errno: 0, state: 2 });
  const partial = fs.readFileSync(`${node.cache}/partial/${answer.name}`);
  const [from, to] = [3 * BLOCK_BYTES, 4 * BLOCK_BYTES];
  t.ok(partial.subarray(from, to).equals(LARGE.subarray(from, to)));
  const ranges = server.files.requests.map(({ path, range }) => `${path} ${range}`);
  // On a loaded machine a read may be sent twice.
  t.equal(new Set(ranges).size, 2, "no more than what was asked for");
  t.equal((await client.askBlob(0, stage.row("more/large"))).errno, 0);
  t.ok(content(node, stage, "more/large").equals(LARGE));
  t.equal((await node.settled()).fetch["stale"], 0);
});

/** What the service holds becomes something else, and how a read of what isn't here yet ends then. */
const CHANGES: Readonly<
  Record<string, (replace: (bytes: Buffer) => void, gone: () => void) => void>
> = {
  "another of the same size": (replace) => replace(noise(LARGE.length, 5)),
  "a longer one": (replace) => replace(noise(LARGE.length + 9, 5)),
  "a shorter one": (replace) => replace(noise(1000, 5)),
  none: (_, gone) => gone(),
};

for (const isHeeding of [true, false]) {
  const heeds = isHeeding ? "heeds" : "doesn't heed";
  test(`an object that is replaced is ESTALE, on a service that ${heeds} If-Match`, async (t) => {
    const { server, node, source } = await stageScene(t, FILES);
    server.isHeeding = isHeeding;
    const stage = await listStage(node, source);
    await node.start(CONFIG);
    const client = await node.connect(stage.mountId);
    const row = stage.row("more/large");
    t.equal((await client.askBlocks(0, row, 0, 1)).errno, 0, "two blocks of the first come");
    let stale = 0;
    for (const [name, change] of Object.entries(CHANGES)) {
      change(
        (bytes) => server.put("box/data/more/large", bytes),
        () => server.remove("box/data/more/large"),
      );
      t.equal(
        (await client.askBlocks(0, row, 8, 1)).errno,
        Errno.ESTALE,
        `between blocks: ${name}`,
      );
      t.equal((await client.askBlob(0, row)).errno, Errno.ESTALE, `all of it: ${name}`);
      t.equal((await client.askBlocks(0, row, 0, 1)).errno, 0, "what is here stays");
      stale += 2;
    }
    server.put("box/data/a.csv", Buffer.from("3,4\n"));
    t.equal((await client.askBlob(0, stage.row("a.csv"))).errno, Errno.ESTALE, "a small one");
    server.put("box/data/more/large", LARGE);
    t.equal((await client.askBlob(0, row)).errno, 0, "put back: the same bytes, the same ETag");
    t.ok(content(node, stage, "more/large").equals(LARGE), "no byte of another");
    const status = await node.settled();
    t.equal(status.fetch["stale"], stale + 1);
    t.equal(status.lastFailure?.code, "BURROW_STALE");
    t.match(node.output, /"event":"ask failed".*not what it was when it was listed/);
    const origin = Object.values(status.origins)[0]!;
    t.equal(origin.retries, 0, "nothing is tried again");
  });
}

test("where versions are kept the listed one is served on, replaced or removed", async (t) => {
  const { server, node, source } = await stageScene(t, FILES, true);
  const stage = await listStage(node, source);
  t.match(stage.imported.listing, { objects: 3, versioned: 3 });
  await node.start(CONFIG);
  const client = await node.connect(stage.mountId);
  const row = stage.row("more/large");
  t.equal((await client.askBlocks(0, row, 0, 1)).errno, 0);
  server.put("box/data/more/large", noise(LARGE.length, 5));
  server.remove("box/data/a.csv");
  t.equal((await client.askBlob(0, row)).errno, 0);
  t.ok(content(node, stage, "more/large").equals(LARGE));
  t.equal((await client.askBlob(0, stage.row("a.csv"))).errno, 0);
  t.equal(content(node, stage, "a.csv").toString(), "1,2\n");
  const later = await listStage(node, source);
  t.match(later.imported.listing, { objects: 2, versioned: 2 });
  const again = await node.connect(later.mountId);
  t.equal((await again.askBlob(0, later.row("more/large"))).errno, 0);
  t.ok(content(node, later, "more/large").equals(noise(LARGE.length, 5)), "a list of later");
  t.ok(content(node, stage, "more/large").equals(LARGE), "both are here");
  fs.rmSync(`${server.root}/.versions`, { recursive: true });
  fs.rmSync(node.blobPath(stage.refs.get("a.csv")!.digest));
  t.equal((await client.askBlob(0, stage.row("a.csv"))).errno, Errno.ESTALE, "the version is gone");
});

test("a service that can't be had, and an archived object, are EIO and no news of the object", async (t) => {
  const { server, node, source } = await stageScene(t, FILES);
  const stage = await listStage(node, source);
  await node.start({ ...CONFIG, deadlineMs: 1500, headerMs: 300, stallMs: 300 });
  const client = await node.connect(stage.mountId);
  const row = stage.row("a.csv");
  for (const fault of ["503", "reset", "403"] as const) {
    server.files.fault = () => fault;
    const { errno } = await client.askBlob(0, row);
    t.ok([Errno.EIO, Errno.ETIMEDOUT].includes(errno as 5), `${fault}: ${errno}`);
  }
  server.files.fault = () => "none";
  server.refusalOf = () => ({ status: 403, code: "InvalidObjectState" });
  t.equal((await client.askBlob(0, row)).errno, Errno.EIO);
  t.match((await node.status()).lastFailure?.error, /archived: restore it first/);
  server.refusalOf = () => ({ status: 404, code: "NoSuchBucket" });
  t.equal((await client.askBlob(0, row)).errno, Errno.EIO, "a bucket that isn't there");
  server.refusalOf = () => undefined;
  t.equal((await client.askBlob(0, row)).errno, 0);
  t.equal((await node.status()).fetch["stale"], 0);
});

test("bytes that aren't those of their ETag are asked for again; an ETag that is no MD5 is believed", async (t) => {
  const { server, node, source } = await stageScene(t, FILES);
  const stage = await listStage(node, source);
  await node.start(CONFIG);
  const client = await node.connect(stage.mountId);
  let asked = 0;
  server.files.fault = (path) => (path.endsWith("a.csv") && ++asked === 1 ? "flip" : "none");
  t.equal((await client.askBlob(0, stage.row("a.csv"))).errno, 0);
  t.equal(content(node, stage, "a.csv").toString(), "1,2\n");
  t.equal(asked, 2);
  server.tagOf = (path) =>
    path.endsWith("b.csv") ? `"${"ab".repeat(16)}"` : `"${"0".repeat(32)}-7"`;
  server.put("box/data/b.csv", Buffer.from("5,6\n"));
  const odd = await listStage(node, source);
  const other = await node.connect(odd.mountId);
  t.equal((await other.askBlob(0, odd.row("b.csv"))).errno, 0);
  t.equal(content(node, odd, "b.csv").toString(), "5,6\n");
  t.equal((await other.askBlob(0, odd.row("a.csv"))).errno, 0, "of parts");
});

test("after a boot what is here is compared with what it was when it came", async (t) => {
  const { server, node, source } = await stageScene(t, FILES);
  const stage = await listStage(node, source);
  const first = await node.start(CONFIG);
  const client = await node.connect(stage.mountId);
  for (const name of ["a.csv", "more/large"])
    t.equal((await client.askBlob(0, stage.row(name))).errno, 0);
  first.kill("SIGTERM");
  await new Promise((resolve) => first.once("exit", resolve));
  fs.writeFileSync(`${node.cache}/boot`, "another boot\n");
  const small = node.blobPath(stage.refs.get("a.csv")!.digest);
  // A flipped bit that its disk doesn't notice: seal, size and what was noted of it stay.
  const { mtimeMs } = fs.statSync(small);
  fs.chmodSync(small, 0o644);
  fs.writeFileSync(small, "1,3\n");
  fs.chmodSync(small, 0o444);
  fs.utimesSync(small, mtimeMs / 1000, mtimeMs / 1000);
  server.files.requests.length = 0;
  await node.start(CONFIG);
  const again = await node.connect(stage.mountId);
  t.equal((await again.askBlob(0, stage.row("more/large"))).errno, 0);
  t.equal(server.files.requests.length, 0, "what is right needs no request");
  t.equal((await again.askBlob(0, stage.row("a.csv"))).errno, 0);
  t.ok(server.files.requests.length > 0, "what is wrong is fetched anew");
  t.equal(content(node, stage, "a.csv").toString(), "1,2\n");
  const { fetch } = await node.settled();
  t.match(fetch, { resealed: 1, dropped: 1 });
});

test("a file of the lazy mount is read on from what is here, and ESTALE beyond", {
  skip: noFuse,
}, async (t) => {
  const { server, node, source } = await stageScene(t, { large: noise(48 * BLOCK_BYTES, 6) });
  const stage = await listStage(node, source);
  await node.start({ ...CONFIG, lazyMount: true });
  const { client } = await serveMount(t, node, stage.mountId);
  const { errno, fds } = await client.callBeside(Mid.OpenAt, { fd: walkTo(client, "large") });
  t.equal(errno, 0);
  const read = (offset: number) =>
    promisify(fs.read)(fds[0]!, Buffer.alloc(4096), 0, 4096, offset).then(
      ({ buffer }) => buffer,
      ({ errno }) => errno as number,
    );
  const first = noise(48 * BLOCK_BYTES, 6).subarray(0, 4096);
  t.same(await read(0), first);
  server.put("box/data/large", noise(48 * BLOCK_BYTES, 7));
  t.equal(await read(40 * BLOCK_BYTES), -Errno.ESTALE);
  t.same(await read(0), first);
  await promisify(fs.close)(fds[0]!);
});
