// A daemon with a limit: never past it, whoever asks for what at once (pitfalls C2, C3).

import fs from "node:fs";
import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { AnswerState } from "../../lib/cache/mailbox-wire.ts";
import { exited, noise } from "../suite/daemon-node.ts";
import { scene } from "../suite/daemon-scene.ts";
import { diskBytes } from "../suite/disk-bytes.ts";
import { until } from "../suite/wait.ts";

const MIB = 1024 * 1024;
/** 12 MiB in small files, 10 MiB in large ones. */
const FILES = Object.fromEntries([
  ...Array.from({ length: 240 }, (_, i) => [`s${i}`, noise(51_000 + i, i + 1)]),
  ...[5, 6, 9, 20].map((blocks, i) => [`l${i}`, noise(blocks * BLOCK_BYTES + i, 900 + i)]),
]);
const LIMIT = 6 * MIB;

test("four writers at the limit never pass it", async (t) => {
  const { node, published, mountId } = await scene(t, FILES);
  await node.start({ limitBytes: LIMIT, memoryBytes: 0 });
  let most = 0;
  let isOver = false;
  const watching = (async () => {
    while (!isOver) {
      most = Math.max(most, diskBytes(node.cache));
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  })();
  let state = 7;
  const pick = (count: number) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((state / 2 ** 32) * count);
  };
  const names = Object.keys(FILES);
  let wrong = 0;
  let gone = 0;
  let partial = 0;
  const writer = async () => {
    const client = await node.connect(mountId);
    let again: string | undefined;
    for (let i = 0; i < 60; i++) {
      const name = again ?? names[pick(names.length)]!;
      again = undefined;
      const ref = published.refs.get(name)!;
      const isLarge = name.startsWith("l");
      const answer = isLarge
        ? await client.askBlocks(0, published.row(name), pick(5), 1)
        : await client.askBlob(0, published.row(name));
      if (answer.errno !== 0) t.fail(`${name}: errno ${answer.errno}`);
      if (answer.state === AnswerState.partial) partial++;
      if (isLarge) continue;
      try {
        if (!fs.readFileSync(node.blobPath(ref.digest)).equals(FILES[name]!)) wrong++;
      } catch {
        // As a gofer does.
        gone++;
        again = name;
      }
    }
  };
  await Promise.all([writer(), writer(), writer(), writer()]);
  isOver = true;
  await watching;
  t.equal(wrong, 0);
  t.ok(gone < 24, `${gone} of 240 were evicted between the answer and the open`);
  t.ok(partial > 0);
  t.ok(most <= LIMIT, `${most} of ${LIMIT} bytes at most`);
  t.ok(most > LIMIT / 2, "and it was used");
  const { room } = await node.status();
  t.ok(room.evicted > 50, `${room.evicted} evicted`);
  t.equal(room.limitBytes, LIMIT);
});

test("when all is in use an ask fails with ENOSPC, and works again when it isn't", async (t) => {
  const files = Object.fromEntries(
    Array.from({ length: 12 }, (_, i) => [`f${i}`, noise(900_000 + i, i + 1)]),
  );
  const { node, published, mountId } = await scene(t, files);
  await node.start({ limitBytes: 5 * MIB, memoryBytes: 0 });
  const client = await node.connect(mountId);
  const fds: number[] = [];
  let errno = 0;
  let i = 0;
  for (; i < 12 && errno === 0; i++) {
    ({ errno } = await client.askBlob(0, published.row(`f${i}`)));
    if (errno === 0) fds.push(fs.openSync(node.blobPath(published.refs.get(`f${i}`)!.digest), "r"));
  }
  t.equal(errno, Errno.ENOSPC);
  t.ok(fds.length >= 4, `${fds.length} files fit`);
  t.ok(diskBytes(node.cache) <= 5 * MIB);
  for (const [at, fd] of fds.entries()) {
    t.equal(fs.fstatSync(fd).nlink, 1, "not evicted: that would have freed nothing");
    t.ok(fs.readFileSync(fd).equals(files[`f${at}`]!));
    fs.closeSync(fd);
  }
  const works = async () => (await client.askBlob(0, published.row(`f${i - 1}`))).errno === 0;
  t.ok(await until(works));
});

test("a cache that is over the limit when the daemon starts comes below it", async (t) => {
  const { node, published, mountId } = await scene(t, FILES);
  const first = await node.start();
  let client = await node.connect(mountId);
  for (let i = 0; i < 240; i += 5) await client.askBlob(0, published.row(`s${i}`));
  await node.settled();
  first.kill("SIGTERM");
  await exited(first);
  t.ok(diskBytes(node.cache) > LIMIT);
  await node.start({ limitBytes: LIMIT });
  client = await node.connect(mountId);
  t.equal((await client.askBlocks(0, published.row("l1"), 0, 1)).errno, 0);
  t.ok(await until(() => diskBytes(node.cache) <= LIMIT));
  t.equal((await client.askBlob(0, published.row("s3"))).errno, 0);
});
