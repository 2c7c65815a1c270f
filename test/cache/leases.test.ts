// A gofer that opens a file in the microseconds in which the daemon evicts it: it asks, and gets the file or its successor.

import fs from "node:fs";
import { tmpdir } from "node:os";
import { test } from "tap";
import { Errno, MISS } from "../../lib/base/errno.ts";
import { BlobReader } from "../../lib/cache/blocks.ts";
import { openCache } from "../../lib/cache/cache.ts";
import { Mailbox } from "../../lib/cache/mailbox.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { LocalObjects } from "../../lib/store/objects.ts";
import { native } from "../../lib/sys/native.ts";
import { createWait } from "../../lib/sys/wait.ts";
import { noise } from "../suite/daemon-node.ts";

test("a file under a lease is asked for, not read by block", async (t) => {
  createWait();
  process.on("SIGIO", () => undefined);
  const root = fs.mkdtempSync(`${tmpdir()}/burrow-lease-`);
  t.teardown(() => fs.rmSync(root, { recursive: true, force: true }));
  const cache = openCache(root);
  const bytes = noise(10_000, 3);
  const digest = digestOf(bytes);
  await cache.writeSealed("blobs", digest, bytes);
  const objects = LocalObjects.open(`${root}/blobs`) as LocalObjects;
  const mailbox = new Mailbox(`${root}/daemon.sock`, "m");
  const reader = new BlobReader(0, objects, { partialFd: -1, lazyFd: -1 }, mailbox);
  t.teardown(() => {
    reader.dispose();
    objects.dispose();
    mailbox.dispose();
  });
  const place = { row: 0, bytes: Buffer.from(digest, "hex"), digestOffset: 0, size: bytes.length };
  const fd = fs.openSync(cache.path("blobs", digest), "r");
  t.equal(native.leaseFd(fd), 0);
  t.equal(objects.openDigest(place.bytes, 0, place.size), -Errno.EAGAIN, "what open(2) says");
  t.equal(reader.open(place), MISS);
  native.unleaseFd(fd);
  const opened = reader.open(place);
  t.ok(opened >= 0);
  t.equal(native.leaseFd(fd), -Errno.EAGAIN, "no lease while a gofer has it");
  native.closeFd(opened);
  t.equal(native.leaseFd(fd), 0);
  fs.closeSync(fd);
});
