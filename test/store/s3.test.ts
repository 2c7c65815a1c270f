// Owns: proof that a store on S3 behaves as every other, that what a service or the way to it gets wrong is never taken, and that
// errors say what to do and hold no secret. Plane: control.

import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { test } from "tap";
import { explain } from "../../lib/base/error.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { newMeter } from "../../lib/store/meter.ts";
import { isStore, openOrigin, openStore } from "../../lib/store/open.ts";
import { retryingStore } from "../../lib/store/retry.ts";
import { s3Backend } from "../../lib/store/s3.ts";
import { classOf } from "../../lib/store/store.ts";
import { writableSuite } from "../suite/backend-suite.ts";
import type { Fault } from "../suite/origin-server.ts";
import { service, setEnvironment } from "../suite/s3-server.ts";

test("the suite of all backends, over pages of one key", async (t) => {
  const server = await service(t);
  server.pageKeys = 1;
  await writableSuite(t, s3Backend(server.address("box/some/prefix")));
  await writableSuite(t, s3Backend(server.address("box")));
  t.match(fs.readdirSync(`${server.root}/box`).sort(), ["packs", "some", "with space"]);
  for await (const path of s3Backend(server.address("box/some")).list("prefix/packs"))
    t.match(path, /^prefix\/packs\/../);
});

/** What each fault makes of a read of a range, and of a whole object. */
const FAULTS: [Fault, string][] = [
  ["short-body", "transient"],
  ["short-range", "transient"],
  ["long-body", "transient"],
  ["wrong-range", "transient"],
  ["whole", "transient"],
  ["gzip", "transient"],
  ["redirect", "permanent"],
  ["stall-headers", "transient"],
  ["stall-body", "transient"],
  ["503", "transient"],
  ["429", "transient"],
  ["reset", "transient"],
  ["404", "notFound"],
  ["403", "permanent"],
];

test("a wrong answer to a range is refused, then retried and taken when right", async (t) => {
  const server = await service(t);
  const bytes = randomBytes(2 * 1024 * 1024);
  const address = server.address("box/store");
  await s3Backend(address).put("packs/ab/big", bytes);
  const deadlines = { headerMs: 200, stallMs: 200, baseMs: 1 };
  const range = { offset: 100_000, length: 70_000 };
  for (const [fault, expected] of FAULTS) {
    const bare = s3Backend(address, deadlines);
    server.files.fault = () => fault;
    const failure = await bare.get("packs/ab/big", { range }).catch((error: unknown) => error);
    t.equal(classOf(failure), expected, `${fault} is ${expected}`);
    t.match((failure as { context: unknown }).context, {
      bucket: "box",
      key: "store/packs/ab/big",
    });
    bare.close();
    const meter = newMeter();
    const retrying = openOrigin(address, { ...deadlines, meter });
    let count = 0;
    server.files.fault = () => (count++ === 0 ? fault : "none");
    const again = retrying.get("packs/ab/big", { range });
    if (expected === "transient") {
      t.same(await again, bytes.subarray(100_000, 170_000), `right after ${fault}`);
      t.ok(
        meter.requests >= 2,
        "again: more than once where a machine is slower than the deadlines",
      );
    } else {
      await t.rejects(again, `${fault} is not retried`);
      t.equal(meter.requests, 1);
    }
    retrying.close();
  }
});

test("a trickle ends with the caller's patience, and a flipped bit is fetched again", async (t) => {
  const server = await service(t);
  const bytes = randomBytes(1000);
  const path = objectPath("packs", digestOf(bytes));
  const address = server.address("box");
  await s3Backend(address).put(path, bytes);
  const backend = openOrigin(address, { baseMs: 1 });
  t.teardown(() => backend.close());
  server.files.fault = () => "slow"; // 25 s at a byte each 50 ms, none of them a stall
  const late = backend.get(path, { signal: AbortSignal.timeout(150) });
  await t.rejects(late, { code: "BURROW_TIMEOUT" });
  let count = 0;
  server.files.fault = () => (count++ === 0 ? "flip" : "none");
  t.same(await backend.get(path), bytes);
  server.files.fault = () => "flip";
  await t.rejects(backend.get(path), { code: "BURROW_DIGEST_MISMATCH" });
});

test("ranges of an object that was replaced meanwhile are not mixed", async (t) => {
  const server = await service(t);
  const bare = s3Backend(server.address("box"));
  await bare.put("packs/ab/x", Buffer.alloc(1000, "a"));
  const get = (offset: number) => bare.get("packs/ab/x", { range: { offset, length: 10 } });
  t.equal(String(await get(0)), "aaaaaaaaaa");
  fs.writeFileSync(`${server.root}/box/packs/ab/x`, Buffer.alloc(1000, "b"));
  await t.rejects(get(10), { class: "transient", message: /another ETag/ });
  t.equal(String(await get(10)), "bbbbbbbbbb", "the next read is of the new one");
});

test("an upload that is refused or cut is retried, and no half of it is ever seen", async (t) => {
  const server = await service(t);
  const address = server.address("box");
  const bytes = randomBytes(3 * 1024 * 1024);
  const path = objectPath("packs", digestOf(bytes));
  const bare = s3Backend(address, { headerMs: 200, stallMs: 200 });
  for (const fault of ["503", "reset", "stall-headers", "403"] as const) {
    server.files.fault = () => fault;
    const failure = await bare.put(path, bytes).catch((error: unknown) => error);
    t.equal(classOf(failure), fault === "403" ? "permanent" : "transient", fault);
    server.files.fault = () => "none";
    t.equal(await bare.has(path), false, `nothing after ${fault}`);
  }
  let count = 0;
  server.files.fault = () => (count++ === 0 ? "reset" : "none");
  await retryingStore(bare, { baseMs: 1 }).put(path, bytes);
  t.ok((await bare.get(path)).equals(bytes));
});

test("a list that lies is refused", async (t) => {
  const server = await service(t);
  const bare = s3Backend(server.address("box/p"), { tries: 1 });
  const listed = async () => {
    const paths: string[] = [];
    for await (const path of bare.list("packs")) paths.push(path);
    return paths;
  };
  fs.mkdirSync(`${server.root}/box/p/packs`, { recursive: true });
  for (const name of ["a&b<c>", "x"]) fs.writeFileSync(`${server.root}/box/p/packs/${name}`, "");
  t.same(await listed(), ["packs/a&b<c>", "packs/x"]);
  const answers: Record<string, string> = {
    "the key of another folder": "<Contents><Key>other/x</Key></Contents>",
    "has no end": "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>",
    "is cut": "<Contents><Key>p/packs/x</Key></Contents><IsTruncated>true</IsTruncated>",
    "can't be read": "<Contents><Key>p/pa",
    "is too long": " ".repeat(9_000_000),
  };
  for (const [message, inner] of Object.entries(answers)) {
    server.listed = `<ListBucketResult>${inner}</ListBucketResult>`;
    const failure = await listed().catch((error: unknown) => error);
    t.match((failure as Error).message, message);
  }
  server.listed = "<ListBucketResult><Contents><Key>p/packs//x</Key></Contents></ListBucketResult>";
  t.same(await listed(), [], "what is no path of a store is passed over");
});

test("what a service refuses says what to do, and shows no secret", async (t) => {
  const server = await service(t);
  const failureOf = async (address: string) => {
    const failure = await s3Backend(address)
      .get("x")
      .then(
        () => "none",
        (error: unknown) => explain(error),
      );
    t.notMatch(failure, /do not show|StringToSign|SECRET|WRONG/);
    return failure;
  };
  t.match(
    await failureOf(server.address("other")),
    /NoSuchBucket: there is no such bucket.*bucket: other/,
  );
  t.match(
    await failureOf(`${server.address("box")}&anonymous=1`),
    /403 AccessDenied.*s3:GetObject/,
  );
  server.open.add("box");
  fs.writeFileSync(`${server.root}/box/x`, "all");
  t.equal(String(await s3Backend(`${server.address("box")}&anonymous=true`).get("x")), "all");
  server.keys.set("AKIDTEST", { secret: "ANOTHER" });
  t.match(await failureOf(server.address("box")), /SignatureDoesNotMatch: the secret key/);
  server.keys.delete("AKIDTEST");
  t.match(await failureOf(server.address("box")), /InvalidAccessKeyId: the service doesn't know/);
});

test("a bucket of another region is followed there, and none need be named", async (t) => {
  const server = await service(t);
  fs.writeFileSync(`${server.root}/box/x`, "all");
  setEnvironment(t, { AWS_REGION: "", AWS_CONFIG_FILE: "/nowhere" });
  const scopeOf = (at: number) => String(server.seen.at(at)?.authorization);
  t.equal(String(await s3Backend(server.address("box")).get("x")), "all");
  t.match(scopeOf(-1), "/us-east-1/s3/");
  server.region = "eu-central-1";
  t.equal(String(await s3Backend(server.address("box")).get("x")), "all");
  t.match(scopeOf(-1), "/eu-central-1/s3/");
  server.region = "no region/x"; // what is none is not gone to
  const failure = await s3Backend(server.address("box")).get("x").catch(explain);
  t.match(failure, /301 PermanentRedirect: the bucket lies in another region|can't be read/);
});

test("requests say who pays, and carry no checksum but the signed one", async (t) => {
  const server = await service(t);
  const store = s3Backend(`${server.address("box")}&requester-pays=true`);
  await store.put("x", Buffer.from("x"));
  await store.get("x");
  await store.has("x");
  for await (const _ of store.list("x"));
  t.equal(server.seen.length, 4);
  for (const headers of server.seen) {
    t.equal(headers["x-amz-request-payer"], "requester");
    t.notOk(
      Object.keys(headers).some((name) => /x-amz-(checksum|sdk-checksum|trailer)/.test(name)),
    );
    t.equal(headers["expect"], undefined);
  }
});

test("credentials that were renewed are found by who is reading already", async (t) => {
  const server = await service(t);
  fs.writeFileSync(`${server.root}/box/x`, "all");
  const file = `${t.testdir({})}/credentials`;
  const write = (id: string, secret: string) =>
    fs.writeFileSync(file, `[p]\naws_access_key_id=${id}\naws_secret_access_key=${secret}\n`);
  setEnvironment(t, { AWS_SHARED_CREDENTIALS_FILE: file, AWS_CONFIG_FILE: `${file}.none` });
  server.keys.set("OLD", { secret: "S1" });
  write("OLD", "S1");
  const backend = openOrigin(`${server.address("box")}&profile=p`, { baseMs: 1 });
  t.teardown(() => backend.close());
  t.equal(String(await backend.get("x")), "all");
  server.keys.set("OLD", { secret: "S1", isExpired: true });
  await t.rejects(backend.get("x"), { message: /ExpiredToken: the credentials have expired/ });
  server.keys.set("NEW", { secret: "S2" });
  write("NEW", "S2");
  t.equal(String(await backend.get("x")), "all");
});

test("a store is made in a bucket, and found", async (t) => {
  const server = await service(t);
  const address = server.address("box/stores/one");
  t.equal(await isStore(openOrigin(address)), false);
  await openStore(address);
  t.equal(await isStore(openOrigin(address)), true);
  t.ok(fs.existsSync(`${server.root}/box/stores/one/burrow-store.json`));
  await t.rejects(openStore(server.address("none/x")), { message: /NoSuchBucket/ });
});

test("what is no address on S3 is refused", (t) => {
  const bad = [
    "s3://",
    "s3:///x",
    "s3://b u",
    "s3://me:SECRET@box/x",
    "s3://box/a//b",
    "s3://box/../x",
    "s3://box/%zz",
    "s3://box?endpoint=ftp://x",
    "s3://box?endpoint=http://me:SECRET@x",
    "s3://box?region=x&secret=SECRET",
    "s3://box?path-style=perhaps",
    "s3://box/x#y",
  ];
  for (const text of bad) {
    try {
      openOrigin(text);
      t.fail(text);
    } catch (error) {
      t.match(error, { code: "BURROW_USAGE" }, text);
      t.notMatch(explain(error), "SECRET");
    }
  }
  t.end();
});
