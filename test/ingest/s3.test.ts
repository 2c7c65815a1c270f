// Owns: proof that channels and packages on S3 are what they are over HTTP: copies are revalidated, downloads go on where they broke,
// all that fails or lies is named. Plane: control.

import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { type Test, test } from "tap";
import { explain } from "../../lib/base/error.ts";
import { download } from "../../lib/cli/download.ts";
import { channelsOf } from "../../lib/ingest/conda/channel.ts";
import { parseExplicit } from "../../lib/ingest/conda/explicit.ts";
import { loadRepodata } from "../../lib/ingest/conda/repodata.ts";
import { solve } from "../../lib/ingest/conda/solve.ts";
import { importStage } from "../../lib/ingest/stage/import.ts";
import { createManifest } from "../../lib/ingest/stage/scan.ts";
import type { Fault } from "../suite/origin-server.ts";
import { type S3Server, service } from "../suite/s3-server.ts";
import { compress, repodataOf } from "./conda/channels.ts";

const SETTINGS = { alias: "https://channels.invalid/", folder: "/srv" };
/** For servers that are silent; the first request also loads the SDK, which takes longer. */
const FAST = { pauseMs: 1, stallMs: 300 };
const PATIENT = { pauseMs: 1, stallMs: 20_000 };
const PLAIN = "linux-64/repodata.json";

function writeRepodata(server: S3Server, names: readonly string[], info = {}): void {
  const folder = path.join(server.root, "box/channel/linux-64");
  fs.mkdirSync(folder, { recursive: true });
  const value = JSON.parse(repodataOf(names.map((name) => ({ name })))) as { info: object };
  Object.assign(value.info, info);
  fs.writeFileSync(path.join(folder, "repodata.json"), JSON.stringify(value));
}

/** Method and path of the requests since the last call, with the conditions. */
function taken(server: S3Server): string[] {
  const seen = server.seen.splice(0).map((headers) => (headers["if-none-match"] ? "if " : ""));
  const asked = server.files.requests.splice(0).map((one) => one.path.slice("box/channel/".length));
  return asked.map((name, i) => `${seen[i] ?? ""}${name}`);
}

test("repodata on S3 is kept, and fetched again only when it changed", async (t) => {
  const server = await service(t);
  const cache = path.join(t.testdir({}), "repodata");
  const channel = channelsOf("s3://box/channel/", SETTINGS)[0]!;
  const load = async () => {
    const index = await loadRepodata(channel, "linux-64", { cache });
    return index === undefined ? undefined : [...index.records.keys()];
  };
  t.equal(await load(), undefined, "no such subdir");
  taken(server);
  writeRepodata(server, ["lib"]);
  t.same(await load(), ["lib"]);
  t.same(taken(server), [`${PLAIN}.zst`, PLAIN]);
  t.same(await load(), ["lib"]);
  t.same(taken(server), [`if ${PLAIN}`]);
  writeRepodata(server, ["lib", "more"]);
  t.same(await load(), ["lib", "more"]);
  fs.rmSync(cache, { recursive: true });
  compress(path.join(server.root, "box/channel"));
  taken(server);
  t.same(await load(), ["lib", "more"]);
  t.same(taken(server), [`${PLAIN}.zst`]);
});

test("a bucket that isn't there, or can't be read, is no empty channel", async (t) => {
  const server = await service(t);
  const cache = path.join(t.testdir({}), "repodata");
  const failureOf = async (text: string, pace = PATIENT) => {
    const channel = channelsOf(text, SETTINGS)[0]!;
    return await loadRepodata(channel, "linux-64", { cache, ...pace }).then(
      () => "none",
      (error: unknown) => explain(error),
    );
  };
  t.match(await failureOf("s3://nothing/x"), /can't download the repodata: .*NoSuchBucket.*bucket/);
  server.keys.set("AKIDTEST", { secret: "another" });
  t.match(await failureOf("s3://box/channel"), /SignatureDoesNotMatch: the secret key/);
  server.keys.clear();
  t.match(await failureOf("s3://box/channel"), /InvalidAccessKeyId/);
  for (const fault of ["stall-headers", "stall-body", "short-body", "503", "reset"] as const) {
    const other = await service(t);
    writeRepodata(other, ["lib"]);
    other.files.fault = () => fault;
    t.match(await failureOf("s3://box/channel", FAST), /can't download the repodata/, fault);
  }
});

test("repodata sends nobody to a bucket but that of a channel on S3", async (t) => {
  const server = await service(t);
  const cache = path.join(t.testdir({}), "repodata");
  writeRepodata(server, ["lib"], { base_url: "s3://box/elsewhere" });
  const solved = async (text: string) => {
    const channels = channelsOf(text, SETTINGS);
    return (await solve(["lib"], channels, { cache, virtual: [], ...PATIENT }))[0]?.url;
  };
  t.match(await solved("s3://box/channel"), /^s3:\/\/box\/elsewhere\/lib-.*\.conda$/);
  await t.rejects(solved(path.join(server.root, "box/channel")), { code: "BURROW_BAD_REPODATA" });
});

const BYTES = randomBytes(300_000);

async function packageOnS3(t: Test) {
  const server = await service(t);
  fs.writeFileSync(`${server.root}/box/a-1-0.conda`, BYTES);
  return { server, folder: t.testdir({}), url: "s3://box/a-1-0.conda" };
}

test("a package on S3 is downloaded, and gone on with where the connection broke", async (t) => {
  const { server, folder, url } = await packageOnS3(t);
  t.ok(fs.readFileSync(await download(url, folder)).equals(BYTES));
  const file = path.join(folder, "part");
  server.files.requests.length = 0;
  server.files.fault = (_path, count) => (count === 1 ? "short-body" : "none");
  await download(url, "", { path: file, resume: true, ...PATIENT });
  t.ok(fs.readFileSync(file).equals(BYTES));
  const [first, second, ...more] = server.files.requests.map(({ range }) => range);
  t.same([first, more], ["", []]);
  // A busy machine may have taken less of it when it broke.
  t.match(second, /^bytes=[1-9]\d*-$/);
  await download(url, "", { path: file, resume: true, ...PATIENT });
  t.ok(fs.readFileSync(file).equals(BYTES), "what is whole stays so");
});

test("a download from S3 ends, whatever the service does", async (t) => {
  const { server, folder, url } = await packageOnS3(t);
  const failureOf = async (options = {}) =>
    await download(url, folder, { ...FAST, ...options }).then(
      () => "none",
      (error: unknown) => explain(error),
    );
  const expected: [Fault, RegExp][] = [
    ["stall-headers", /no answer|silent/],
    ["stall-body", /silent for 0\.3 s/],
    ["short-body", /the connection failed/],
    ["reset", /can't be reached/],
    ["503", /answered 503/],
    ["403", /answered 403.*s3:GetObject/],
    ["404", /answered 404/],
    ["gzip", /Content-Encoding "gzip"/],
    ["redirect", /answered 302/],
  ];
  for (const [fault, message] of expected) {
    server.files.fault = () => fault;
    const failure = await failureOf();
    t.match(failure, message, fault);
    t.match(failure, "can't download the package");
    t.match(failure, "s3://box/a-1-0.conda");
  }
  server.files.fault = () => "slow";
  t.match(await failureOf({ stallMs: 10_000, slowMs: 300, slowBytes: 200_000 }), /bytes in 0\.3 s/);
  server.files.fault = (_path, count) => (count % 3 === 0 ? "none" : "429");
  server.files.requests.length = 0;
  t.equal(await failureOf(), "none", "asked for again, as the service wants it");
});

test("locks name packages on S3", (t) => {
  const items = parseExplicit("@EXPLICIT\ns3://box/linux-64/a-1-0.conda\n", "lock");
  t.match(items, [{ url: "s3://box/linux-64/a-1-0.conda", line: 2 }]);
  t.equal(items[0]!.path, undefined);
  for (const url of ["s3://a-1-0.conda", "s3://me:x@box/a-1-0.conda", "s3://box/a//b-1-0.conda"]) {
    t.throws(() => parseExplicit(`@EXPLICIT\n${url}\n`, "lock"), { code: "BURROW_BAD_LOCK" }, url);
  }
  t.throws(() => channelsOf("s3://box/x?region=here", SETTINGS), { code: "BURROW_USAGE" });
  t.throws(() => channelsOf("s3://", SETTINGS), { code: "BURROW_USAGE" });
  t.end();
});

test("a stage on S3 is what its manifest says", async (t) => {
  const server = await service(t);
  fs.mkdirSync(`${server.root}/box/orders`);
  await t.rejects(importStage("s3://box/orders"), { code: "BURROW_NOT_FOUND" });
  fs.writeFileSync(`${server.root}/box/orders/a.csv`, "one,two\n");
  await createManifest(`${server.root}/box/orders`);
  const stage = await importStage("s3://box/orders");
  t.equal(stage.bytes, 8);
  t.equal(stage.origin, "s3://box/orders");
});
