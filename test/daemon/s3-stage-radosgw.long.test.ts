// Owns: proof that what stages of a bucket rest on holds on a real S3, Ceph's: lists of objects and of versions over more than a page,
// keys of all kinds, reads of a version, and reads on condition of an ETag. Plane: control.

import fs from "node:fs";
import {
  CompleteMultipartUploadCommand,
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  PutBucketVersioningCommand,
  PutObjectCommand,
  UploadPartCommand,
} from "@aws-sdk/client-s3";
import { type Test, test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { noise, TestNode } from "../suite/daemon-node.ts";
import { client, noRadosgw, radosgw } from "../suite/radosgw.ts";
import { listStage, type Stage } from "../suite/stage-scene.ts";

const LARGE = noise(12 * BLOCK_BYTES + 5, 77);
const NAMES = ["a.csv", "a b+c%20d&<e>.csv", "größe/一", "line\nfeed", "x\x01y", "deep/er/file"];

async function put(Bucket: string, name: string, Body: Uint8Array): Promise<void> {
  await client().send(new PutObjectCommand({ Bucket, Key: `data/${name}`, Body }));
}

async function remove(Bucket: string, name: string): Promise<void> {
  await client().send(new DeleteObjectCommand({ Bucket, Key: `data/${name}` }));
}

async function fill(bucket: string): Promise<void> {
  for (const name of NAMES) await put(bucket, name, Buffer.from(name));
  await put(bucket, "large", LARGE);
  const keys = Array.from({ length: 1_100 }, (_, i) => `many/${i}`);
  for (let at = 0; at < keys.length; at += 16)
    await Promise.all(keys.slice(at, at + 16).map((key) => put(bucket, key, Buffer.from(key))));
}

function latin1(name: string): string {
  return Buffer.from(name).toString("latin1");
}

async function started(t: Test, bucket: string) {
  const node = new TestNode();
  t.teardown(() => node.close());
  const stage = await listStage(node, `s3://${bucket}/data`);
  await node.start({ background: false });
  return { node, stage, asker: await node.connect(stage.mountId) };
}

function content(node: TestNode, stage: Stage, name: string): Buffer {
  return fs.readFileSync(node.blobPath(stage.refs.get(latin1(name))!.digest));
}

test("stages of a real S3", { skip: noRadosgw, timeout: 900_000 }, async (t) => {
  await radosgw(t);
  await t.test("pinned by ETag: what is replaced or removed is ESTALE", async (t) => {
    await fill("box");
    const parts = [noise(5 * 1024 * 1024, 1), noise(1000, 2)];
    const Key = "data/parts";
    const asked = { Bucket: "box", Key };
    const { UploadId } = await client().send(new CreateMultipartUploadCommand(asked));
    const Parts = await Promise.all(
      parts.map(async (Body, i) => {
        const part = { ...asked, UploadId, PartNumber: i + 1, Body };
        const { ETag } = await client().send(new UploadPartCommand(part));
        return { ETag, PartNumber: i + 1 };
      }),
    );
    const whole = { ...asked, UploadId, MultipartUpload: { Parts } };
    await client().send(new CompleteMultipartUploadCommand(whole));
    const { node, stage, asker } = await started(t, "box");
    const objects = 1_100 + NAMES.length + 2;
    t.match(stage.imported.listing, { objects, versioned: 0, skippedCount: 0 });
    for (const name of [...NAMES, "many/0", "many/1099", "parts"]) {
      t.equal((await asker.askBlob(0, stage.row(latin1(name)))).errno, 0, JSON.stringify(name));
      const wanted = name === "parts" ? Buffer.concat(parts) : Buffer.from(name);
      t.ok(content(node, stage, name).equals(wanted));
    }
    const row = stage.row("large");
    t.equal((await asker.askBlocks(0, row, 0, 1)).errno, 0);
    await put("box", "large", noise(LARGE.length, 5));
    t.equal((await asker.askBlocks(0, row, 8, 1)).errno, Errno.ESTALE, "replaced");
    await remove("box", "large");
    t.equal((await asker.askBlocks(0, row, 8, 1)).errno, Errno.ESTALE, "removed");
    await put("box", "large", LARGE);
    t.equal((await asker.askBlob(0, row)).errno, 0, "put back");
    t.ok(content(node, stage, "large").equals(LARGE));
    t.equal((await node.status()).fetch["stale"], 2);
  });

  await t.test("pinned by version: the listed one is served on", async (t) => {
    await client().send(new CreateBucketCommand({ Bucket: "kept" }));
    await put("kept", "before", Buffer.from("of before"));
    await client().send(
      new PutBucketVersioningCommand({
        Bucket: "kept",
        VersioningConfiguration: { Status: "Enabled" },
      }),
    );
    await put("kept", "large", noise(1000, 3));
    await put("kept", "gone", Buffer.from("gone"));
    await remove("kept", "gone");
    await fill("kept");
    const { node, stage, asker } = await started(t, "kept");
    const objects = 1_100 + NAMES.length + 2;
    t.match(stage.imported.listing, { objects, versioned: objects - 1 });
    const row = stage.row("large");
    t.equal((await asker.askBlocks(0, row, 0, 1)).errno, 0);
    await put("kept", "large", noise(LARGE.length, 5));
    await remove("kept", "a.csv");
    t.equal((await asker.askBlob(0, row)).errno, 0);
    t.ok(content(node, stage, "large").equals(LARGE));
    t.equal((await asker.askBlob(0, stage.row("a.csv"))).errno, 0);
    t.equal(content(node, stage, "a.csv").toString(), "a.csv");
    t.equal((await asker.askBlob(0, stage.row("before"))).errno, 0);
    t.equal(content(node, stage, "before").toString(), "of before");
    const later = await listStage(node, "s3://kept/data");
    t.equal(later.imported.listing?.objects, objects - 1, "what was removed is in no later list");
  });
});
