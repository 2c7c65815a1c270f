// What a client gets of files that are here, on their way, or not fetched yet: a donated FD, bytes by PRead, or a mix of both,
// from a real gofer over a real daemon (pitfalls B11, C1, F1, F8).

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { type Test, test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { BLOCK_BYTES, DONATE_MAX_BYTES } from "../../lib/base/limits.ts";
import { ensureIndex, openCache } from "../../lib/cache/cache.ts";
import type { DaemonConfig } from "../../lib/daemon/config.ts";
import { native } from "../../lib/sys/native.ts";
import {
  exited,
  type Files,
  noise,
  type Published,
  publish,
  TestNode,
} from "../suite/daemon-node.ts";
import { GoferProcess } from "../suite/gofer-process.ts";
import { close, contentOf, type Opened, open, read, walkTo } from "../suite/lisafs-calls.ts";
import { LisafsClient } from "../suite/lisafs-client.ts";

const SMALL = noise(70_000, 3);
const LARGE = noise(DONATE_MAX_BYTES + 5 * BLOCK_BYTES + 11, 4);

interface Sandbox {
  readonly node: TestNode;
  readonly daemon: Awaited<ReturnType<TestNode["start"]>>;
  readonly published: Published;
  readonly client: LisafsClient;
}

/** A gofer and its client over a view that nothing was fetched of. The store is a directory. */
async function sandbox(t: Test, files: Files, config: Partial<DaemonConfig>): Promise<Sandbox> {
  const node = new TestNode();
  t.teardown(() => node.close());
  const published = await publish(node.store, files);
  const id = node.mount(node.store, published.digest);
  const source = `${node.state}/mounts/${id}`;
  const daemon = await node.start(config);
  await ensureIndex(openCache(node.cache), node.store, published.digest);
  const env = { BURROW_STATE: node.state };
  const gofer = GoferProcess.start({
    mounts: [{ destination: "/", source, isReadOnly: true }],
    env,
  });
  const client = LisafsClient.mount(gofer.takeSocket(0), 2);
  t.teardown(async () => {
    client.close();
    const { log } = gofer;
    const code = await gofer.stop();
    if (code !== 0) throw new Error(`the gofer ended with ${code}: ${log}`);
  });
  return { node, daemon, published, client };
}

function opened(t: Test, client: LisafsClient, path: string): Opened {
  const file = open(client, walkTo(client, path));
  t.teardown(() => {
    if (file.hostFd >= 0) native.closeFd(file.hostFd);
  });
  return file;
}

/** All of a file by PRead, in pieces that don't fit its blocks. */
function readAll(client: LisafsClient, fd: number): Buffer {
  const parts: Buffer[] = [];
  for (let offset = 0; ; ) {
    const part = read(client, fd, offset, 300_001);
    if (part.length === 0) return Buffer.concat(parts);
    parts.push(part);
    offset += part.length;
  }
}

test("a file opened before its bytes are here is read by PRead, also once it is whole and its daemon gone", async (t) => {
  const { node, daemon, client } = await sandbox(t, { small: SMALL, large: LARGE }, {});
  const small = opened(t, client, "small");
  t.ok(small.hostFd >= 0, "a small file is completed by its first open");
  t.same(contentOf(small.hostFd), SMALL);
  t.same(readAll(client, small.fd), SMALL, "and PRead of it works, whoever lost the FD");
  const early = opened(t, client, "large");
  t.equal(early.hostFd, -1, "a large one isn't waited for");
  t.same(read(client, early.fd, 3 * BLOCK_BYTES - 7, 100_000).length, 100_000);
  await node.settled();
  const late = opened(t, client, "large");
  t.ok(late.hostFd >= 0, "whole by now: donated");
  t.same(contentOf(late.hostFd), LARGE);
  daemon.kill("SIGKILL");
  await exited(daemon);
  t.same(readAll(client, early.fd), LARGE, "the first open needs no second one, and no daemon");
  t.same(readAll(client, late.fd), LARGE);
  close(client, early.fd, late.fd);
  t.same(contentOf(late.hostFd), LARGE, "a donated FD outlives its open FD");
});

test("evicted under a mapping: the mapping keeps its bytes, and the space counts until it goes", async (t) => {
  const files = Object.fromEntries(
    Array.from({ length: 20 }, (_, i) => [`file${i}`, noise(64_000, i + 10)]),
  );
  const config = { limitBytes: 600_000, idleMs: 0 };
  const { node, published, client } = await sandbox(t, files, config);
  const { hostFd } = opened(t, client, "file6");
  const window = native.map(hostFd, 0, 64_000, false);
  if (typeof window === "number") return t.fail(`map: ${window}`);
  t.teardown(() => native.unmap(window));
  const path = node.blobPath(published.refs.get("file6")!.digest);
  for (let i = 0; i < 20; i++) opened(t, client, `file${i}`);
  for (let i = 0; i < 500 && fs.existsSync(path); i++) await sleep(20);
  const facts = fs.fstatSync(hostFd);
  t.equal(facts.nlink, 0, "evicted by unlink");
  t.equal(facts.size, 64_000, "neither cut");
  t.ok(facts.blocks * 512 >= 64_000, "nor punched");
  t.same(Buffer.from(window), files["file6"], "no SIGBUS, no zeros");
  const again = opened(t, client, "file6");
  t.same(contentOf(again.hostFd), files["file6"], "and it comes again");
});

test("what is donated can't be written by who gets it", async (t) => {
  const { node, published, client } = await sandbox(t, { small: SMALL }, {});
  const { hostFd } = opened(t, client, "small");
  const path = node.blobPath(published.refs.get("small")!.digest);
  t.equal(fs.statSync(path).mode & 0o7777, 0o444);
  t.equal(fs.statSync(path).nlink, 1, "no hard link of it anywhere");
  t.equal(native.writeFd(hostFd, Buffer.from("x")), -Errno.EBADF);
  t.equal(native.pwriteFd(hostFd, Buffer.from("x"), 0), -Errno.EBADF);
  t.throws(() => fs.ftruncateSync(hostFd, 1), { code: "EINVAL" });
  t.type(native.map(hostFd, 0, 4096, true), "number", "nor mapped to write");
  const skip = process.getuid?.() === 0 ? false : "not root: can't become nobody";
  const reopened = spawnSync("sh", ["-c", "echo x 1<>/proc/self/fd/3"], {
    stdio: ["ignore", "ignore", "pipe", hostFd],
    ...(skip === false ? { uid: 65534, gid: 65534 } : {}),
  });
  t.not(reopened.status, 0, "nor opened anew for writing, as the sentry's nobody", { skip });
  t.same(contentOf(hostFd), SMALL);
});
