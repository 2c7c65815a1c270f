// A prefix of a bucket as a stage: which keys become which files, what pins each, what is left out and told, and what a list may cost.

import { test } from "tap";
import { explain } from "../../lib/base/error.ts";
import { BLOCK_DIGESTS_OVER_BYTES } from "../../lib/base/limits.ts";
import { importObjects } from "../../lib/ingest/stage/objects.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { Locator } from "../../lib/store/locator.ts";
import { pinnedDigest } from "../../lib/store/object-pin.ts";
import { listObjects } from "../../lib/store/s3-list.ts";
import { parseS3 } from "../../lib/store/s3-place.ts";
import { type Beside, type S3Server, service } from "../suite/s3-server.ts";

const NAMING = { key: Buffer.alloc(32, 7), tenant: "one" };
const at = (seconds: number) => new Date(seconds * 1000);

function beside(key: string, more: Partial<Beside> = {}): Beside {
  return { key, size: 3, mtime: at(1_700_000_000), etag: '"aa"', ...more };
}

async function imported(server: S3Server, keys: readonly (string | Beside)[], prefix = "box/data") {
  const all = keys.map((key) => (typeof key === "string" ? beside(key) : key));
  server.beside.set("box", all);
  return await importObjects(server.address(prefix), NAMING);
}

function failure(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "none",
    (error: unknown) => explain(error),
  );
}

test("keys become files and directories, with their times; what can't is left out by name", async (t) => {
  const server = await service(t);
  const long = "x".repeat(256);
  const { entries, listing, bytes } = await imported(server, [
    beside("data/", { size: 0 }),
    "data/a b+c%20d&<e>.csv",
    "data/größe/一",
    beside("data/empty/", { size: 0, mtime: at(1_600_000_000) }),
    beside("data/none", { size: 0 }),
    beside("data/large", { size: BLOCK_DIGESTS_OVER_BYTES + 1 }),
    "data/line\nfeed",
    "data/\x01control",
    "database/other",
    "data",
    "data/a//b",
    "data//c",
    "data/./d",
    "data/x/../e",
    `data/${long}`,
    "data/nul\0",
    "data/full/",
    "data/both",
    "data/both/file",
    "data/three",
    beside("data/three/", { size: 0 }),
  ]);
  const byPath = new Map(
    entries.map((entry) => [Buffer.from(entry.path, "latin1").toString(), entry]),
  );
  t.same([...byPath.keys()].sort(), [
    "\x01control",
    "a b+c%20d&<e>.csv",
    "both/file",
    "empty",
    "größe/一",
    "large",
    "line\nfeed",
    "none",
    "three",
  ]);
  t.match(byPath.get("größe/一"), { type: "file", mode: 0o644, mtimeSec: 1_700_000_000 });
  t.match(byPath.get("empty"), { type: "directory", mode: 0o755, mtimeSec: 1_600_000_000 });
  t.match(byPath.get("three"), { type: "directory" });
  t.match(byPath.get("large"), { blob: { blocks: [], isPinned: true } });
  t.notOk("isPinned" in (byPath.get("none") as { blob: object }).blob, "content that is known");
  t.equal(bytes, BLOCK_DIGESTS_OVER_BYTES + 1 + 5 * 3);
  t.equal(listing.skippedCount, 9);
  const why = new Map(listing.skipped.map(({ key, why }) => [key, why]));
  t.match(why.get("a//b"), /empty name/);
  t.match(why.get("/c"), /empty name/);
  t.match(why.get("./d"), /another directory/);
  t.match(why.get("x/../e"), /another directory/);
  t.match(why.get(long), /255 bytes/);
  t.match(why.get("nul\0"), /NUL/);
  t.match(why.get("full/"), /directory with content/);
  t.match(why.get("both"), /other keys make it a directory/);
  t.match(why.get("three"), /other keys make it a directory/);
  t.ok(writeIndex(IndexKind.snapshot, entries).length > 0);
  t.throws(() => writeIndex(IndexKind.layer, entries), { code: "BURROW_BAD_INDEX" });
});

test("a list of many pages is one; the same list gives the same bytes, another state another name", async (t) => {
  const server = await service(t);
  const keys = Array.from({ length: 25 }, (_, i) => `data/${i % 3}/file${i}`);
  for (const isVersioned of [false, true]) {
    if (isVersioned) server.versioned.add("box");
    server.pageKeys = 1000;
    const whole = await imported(server, keys);
    server.pageKeys = 4;
    const paged = await imported(server, keys);
    t.equal(paged.entries.length, 25);
    t.equal(paged.digest, whole.digest);
    t.same(paged.entries, whole.entries);
  }
  const locator = new Locator((await imported(server, keys)).locator);
  t.equal(locator.tenant, "one");
  t.equal(locator.blobCount, 25);
  const place = parseS3(server.address("box/data"));
  for (let row = 0; row < 25; row++) {
    const { path, pin } = locator.pinnedAt(row);
    if (pin === undefined) throw new Error("no pin");
    t.equal(pinnedDigest(NAMING.key, "one", place, path, pin), locator.digestAt(row));
    const others = [
      pinnedDigest(NAMING.key, "two", place, path, pin),
      pinnedDigest(Buffer.alloc(32, 8), "one", place, path, pin),
      pinnedDigest(NAMING.key, "one", place, path, { ...pin, etag: "ab" }),
      pinnedDigest(NAMING.key, "one", place, path, { ...pin, versionId: "x" }),
      pinnedDigest(NAMING.key, "one", place, path, { ...pin, size: 4 }),
      pinnedDigest(NAMING.key, "one", { ...place, bucket: "other" }, path, pin),
    ];
    t.equal(new Set([locator.digestAt(row), ...others]).size, 7);
  }
  const above = await importObjects(server.address("box"), NAMING);
  const below = new Locator(above.locator);
  t.equal(below.digestAt(0), locator.digestAt(0), "one object in two lists is one");
});

async function versionsOf(server: S3Server): Promise<(string | undefined)[]> {
  const found: (string | undefined)[] = [];
  for await (const page of listObjects(server.address("box/data")))
    found.push(...page.map(({ pin }) => pin.versionId));
  return found;
}

test("objects are pinned by version where versions can be listed, by ETag else", async (t) => {
  const server = await service(t);
  server.put("box/data/before", Buffer.from("x"));
  t.same(await versionsOf(server), [undefined]);
  server.versioned.add("box");
  server.put("box/data/later", Buffer.from("y"));
  t.same(await versionsOf(server), [undefined, "v1"], "one of before has none");
  for (const query of ["versioning", "versions"]) {
    for (const [status, code] of [
      [403, "AccessDenied"],
      [501, "NotImplemented"],
    ] as const) {
      server.refusalOf = (_, url) => (url.searchParams.has(query) ? { status, code } : undefined);
      t.same(await versionsOf(server), [undefined, undefined], `${status} to ?${query}`);
    }
  }
  server.refusalOf = (_, url) =>
    url.searchParams.has("versioning") ? { status: 503, code: "SlowDown" } : undefined;
  await t.rejects(
    versionsOf(server),
    { code: "BURROW_ORIGIN" },
    "what may be known later is asked",
  );
});

test("a list that can't be had or believed says why", async (t) => {
  const server = await service(t);
  t.match(await failure(imported(server, [])), /no objects below the prefix \[source: s3:/);
  t.match(
    await failure(imported(server, [beside("data/a", { etag: "" })])),
    /no ETag .*key: data\/a/,
  );
  server.listed =
    "<ListBucketResult><Contents><Key>elsewhere/x</Key><Size>1</Size><ETag>a</ETag></Contents></ListBucketResult>";
  t.match(await failure(imported(server, [])), /key of another prefix/);
  server.listed = `<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken></ListBucketResult>`;
  t.match(await failure(imported(server, [])), /the list has no end/);
  server.listed = `<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>data/a</Key><Size>1</Size><ETag>a</ETag></Contents></ListBucketResult>`;
  t.match(await failure(imported(server, [])), /a list that is cut/);
  server.versioned.add("box");
  server.listed = `<ListVersionsResult><IsTruncated>true</IsTruncated></ListVersionsResult>`;
  t.match(await failure(imported(server, [])), /a list that is cut/);
  server.versioned.clear();
  server.listed = `<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>data/%ff</Key><Size>1</Size><ETag>a</ETag></Contents></ListBucketResult>`;
  t.match(await failure(imported(server, [])), /no UTF-8/);
  server.listed = undefined;
  server.refusalOf = (_, url) =>
    url.searchParams.has("list-type") ? { status: 403, code: "AccessDenied" } : undefined;
  t.match(await failure(imported(server, ["data/a"])), /403 AccessDenied: .*s3:ListBucket/);
  server.refusalOf = () => undefined;
  const deep = Array.from({ length: 2100 }, (_, i) => `data/${i}/${"a/".repeat(240)}x`);
  t.match(await failure(imported(server, deep)), /more than 500000 directories/);
});
