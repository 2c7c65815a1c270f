// Owns: proof that what holds on the small S3 of the tests holds on a real one, Ceph's: the suite of all backends, errors, and the way
// of a channel's packages through a store to a node's cache. Plane: control.

import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { PutObjectCommand } from "@aws-sdk/client-s3";
import { test } from "tap";
import { explain } from "../../lib/base/error.ts";
import { s3Backend } from "../../lib/store/s3.ts";
import { create, packagesIn, scene } from "../cli/channel-node.ts";
import { writableSuite } from "../suite/backend-suite.ts";
import { client, noRadosgw, radosgw } from "../suite/radosgw.ts";

test("a real S3", { skip: noRadosgw }, async (t) => {
  const environment = await radosgw(t);
  await t.test("the suite of all backends", async (t) => {
    await writableSuite(t, s3Backend("s3://box/some/prefix"));
    const store = s3Backend("s3://box");
    const bytes = randomBytes(33 * 1024 * 1024);
    await store.put("packs/ab/large", bytes);
    const range = { offset: 32 * 1024 * 1024 - 7, length: 100_000 };
    const part = bytes.subarray(range.offset, range.offset + range.length);
    t.ok((await store.get("packs/ab/large", { range })).equals(part));
    t.ok((await store.get("packs/ab/large")).equals(bytes));
  });

  await t.test("more objects than a page of a list has", async (t) => {
    const store = s3Backend("s3://box/many");
    const names = Array.from({ length: 1_100 }, (_, i) => `indexes/ab/${i}`);
    for (let at = 0; at < names.length; at += 16) {
      const some = names.slice(at, at + 16);
      await Promise.all(some.map((name) => store.put(name, Buffer.from(name))));
    }
    const listed: string[] = [];
    for await (const name of store.list("indexes")) listed.push(name);
    t.same(listed.sort(), names.sort());
  });

  await t.test("errors", async (t) => {
    const failureOf = async (address: string) =>
      await s3Backend(address)
        .get("x")
        .then(
          () => "none",
          (error: unknown) => explain(error),
        );
    t.match(await failureOf("s3://other"), /404 NoSuchBucket: there is no such bucket/);
    t.match(await failureOf("s3://box?anonymous=true"), /403 AccessDenied/);
    process.env["AWS_SECRET_ACCESS_KEY"] = "another";
    t.match(await failureOf("s3://box?region=other"), /403 SignatureDoesNotMatch/);
    process.env["AWS_ACCESS_KEY_ID"] = "NOBODY";
    t.match(await failureOf("s3://box?region=third"), /403 InvalidAccessKeyId/);
    Object.assign(process.env, environment);
  });

  await t.test("from a channel through a store to a node's cache", async (t) => {
    const node = await scene(t);
    Object.assign(node.env, environment);
    const folder = node.path("channel");
    for (const name of fs.readdirSync(folder, { recursive: true, encoding: "utf8" })) {
      if (!fs.statSync(path.join(folder, name)).isFile()) continue;
      const Body = fs.readFileSync(path.join(folder, name));
      await client().send(new PutObjectCommand({ Bucket: "box", Key: `channel/${name}`, Body }));
    }
    const store = "s3://box/stores/one";
    const words = ["-c", "s3://box/channel", "--store", store, "app"];
    const made = await node.run(["preload", ...words, "--json"]);
    t.equal(made.code, 0, made.stderr);
    const digest = await create(t, node, words);
    t.match(made.stdout, digest);
    node.env["BURROW_STORE"] = store;
    t.same(await packagesIn(node, digest), ["lib-1.5", "app-2.0"]);
    const verified = await node.run(["store", "verify"]);
    t.equal(verified.code, 0, verified.stderr);
    const other = await node.run(["preload", "--cache", node.path("other"), "--json", digest]);
    t.equal(other.code, 0, other.stderr);
    await node.run(["daemon", "stop", "--cache", node.path("other")]);
  });
});
