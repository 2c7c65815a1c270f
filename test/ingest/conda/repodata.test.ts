// Owns: repodata over HTTP: what is kept in the cache, when it is fetched again, and servers that fail or lie. Plane: control.

import fs from "node:fs";
import path from "node:path";
import { type Test, test } from "tap";
import { channelsOf } from "../../../lib/ingest/conda/channel.ts";
import { loadRepodata } from "../../../lib/ingest/conda/repodata.ts";
import { freePort } from "../../suite/free-port.ts";
import { OriginServer } from "../../suite/origin-server.ts";
import { ChannelServer, compress, folderOf, repodataOf } from "./channels.ts";
import { failureOf, zst } from "./packages.ts";

const SETTINGS = { alias: "https://channels.invalid/", folder: "/srv" };
const FAST = { pauseMs: 1, stallMs: 500 };

/** A folder with a channel of one package, a server over it, and a cache. */
async function scene(t: Test) {
  const root = folderOf(t);
  const file = path.join(root, "linux-64/repodata.json");
  const write = (...names: string[]) => {
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, repodataOf(names.map((name) => ({ name }))));
  };
  write("lib");
  const server = await ChannelServer.start(t, root);
  const cache = path.join(folderOf(t), "repodata");
  const load = async (url = server.url) => {
    const index = await loadRepodata(channelsOf(url, SETTINGS)[0]!, "linux-64", { cache, ...FAST });
    return index === undefined ? undefined : [...index.records.keys()];
  };
  return { root, write, server, cache, load };
}

const PLAIN = "linux-64/repodata.json";
const COMPRESSED = `${PLAIN}.zst`;

test("a copy is kept, and taken again only when it changed", async (t) => {
  const { write, server, cache, load } = await scene(t);
  t.same(await load(), ["lib"]);
  t.same(server.take(), [`404 ${COMPRESSED}`, `200 ${PLAIN}`]);
  t.same(await load(), ["lib"]);
  t.same(server.take(), [`304 ${PLAIN}`], "the file that was there is asked for first");
  write("lib", "more");
  t.same(await load(), ["lib", "more"]);
  t.same(server.take(), [`200 ${PLAIN}`]);
  t.equal(fs.readdirSync(cache).length, 2, "one copy and its note");
  t.equal(fs.statSync(cache).mode & 0o777, 0o700);
});

test("the compressed file is preferred, and a date does as well as an ETag", async (t) => {
  const { root, server, load } = await scene(t);
  compress(root);
  server.by = "date";
  t.same(await load(), ["lib"]);
  t.same(await load(), ["lib"]);
  t.same(server.take(), [`200 ${COMPRESSED}`, `304 ${COMPRESSED}`]);
  server.by = "nothing";
  t.same(await load(), ["lib"]);
  server.take();
  t.same(await load(), ["lib"]);
  t.same(server.take(), [`200 ${COMPRESSED}`], "without either it is fetched each time");
  server.answer = (file) => (file === COMPRESSED ? { status: 403 } : undefined);
  t.equal(await load(), undefined, "the channel has none");
  t.same(server.take(), [`403 ${COMPRESSED}`, `404 ${PLAIN}`]);
});

test("a copy that was changed or lost is fetched again", async (t) => {
  const { server, cache, load } = await scene(t);
  await load();
  const copy = path.join(cache, fs.readdirSync(cache).find((name) => name.endsWith(".json"))!);
  const text = fs.readFileSync(copy, "utf8");
  for (const damage of [
    () => fs.writeFileSync(copy, text.replace("lib", "evi")),
    () => fs.rmSync(copy),
    () => fs.writeFileSync(path.join(cache, "note"), "{"),
  ]) {
    damage();
    server.take();
    t.same(await load(), ["lib"]);
  }
  const note = path.join(cache, fs.readdirSync(cache).find((name) => name.endsWith(".note"))!);
  fs.writeFileSync(note, "{");
  server.take();
  t.same(await load(), ["lib"]);
  t.same(server.take(), [`404 ${COMPRESSED}`, `200 ${PLAIN}`]);
  fs.writeFileSync(path.join(cache, "aside-0"), "half");
  fs.utimesSync(path.join(cache, "aside-0"), 0, 0);
  fs.writeFileSync(path.join(cache, "aside-1"), "half");
  server.by = "nothing";
  await load();
  t.ok(!fs.existsSync(path.join(cache, "aside-0")), "what a killed process left is swept");
  t.ok(fs.existsSync(path.join(cache, "aside-1")), "what another is writing is not");
});

test("what is no repodata is not kept", async (t) => {
  const { root, server, cache, load } = await scene(t);
  server.answer = (file) => (file === PLAIN ? { status: 200, body: "<html>" } : undefined);
  const failure = await failureOf(load());
  t.match(failure, /^BURROW_BAD_REPODATA\nit is no repodata\.json .*\nrepodata: http:.*json$/);
  t.same(fs.readdirSync(cache), []);
  server.answer = () => undefined;
  t.same(await load(), ["lib"]);
  fs.writeFileSync(path.join(root, COMPRESSED), zst(Buffer.alloc(1 << 20)).subarray(0, 30));
  fs.rmSync(cache, { recursive: true });
  t.match(await failureOf(load()), /^BURROW_BAD_REPODATA\nit can't be decompressed/);
  t.same(fs.readdirSync(cache), []);
});

test("errors of a server name the file, and no password or token", async (t) => {
  const { server, load } = await scene(t);
  let count = 0;
  server.answer = () => (count++ === 0 ? { status: 503 } : undefined);
  t.same(await load(), ["lib"], "a busy server is asked again");
  server.answer = () => ({ status: 500 });
  const secret = server.url.replace("http://", "http://ann:p%40ss@");
  const failure = await failureOf(load(`${secret}/t/abc/`));
  t.match(failure, /^BURROW_ORIGIN\ncan't download the repodata: HTTP status 500\nurl: http:/);
  t.notMatch(failure, /ann|p%40ss|abc/);
  server.answer = () => undefined;
  server.requests.length = 0;
  t.same(await load(secret), ["lib"]);
  const basic = `Basic ${Buffer.from("ann:p@ss").toString("base64")}`;
  t.equal(server.requests[0]?.authorization, basic);
  const faulty = await OriginServer.start(folderOf(t));
  t.teardown(() => faulty.close());
  faulty.fault = () => "stall-headers";
  t.match(await failureOf(load(faulty.url)), /^BURROW_TIMEOUT\n.*silent for 0\.5 s/);
  faulty.fault = () => "reset";
  t.match(await failureOf(load(faulty.url)), /^BURROW_ORIGIN\n.*the connection failed/);
  const port = await freePort();
  for (const [url, message] of [
    [`http://127.0.0.1:${port}/c`, /failed \(ECONNREFUSED\): nothing listens there/],
    ["http://no-such-name.invalid/c", /failed \((ENOTFOUND|EAI_AGAIN)\): .*resolv\.conf/],
    [faulty.url.replace("http:", "https:"), /failed \(E[A-Z_]*\): .*TLS|it ended the connection/],
  ] as const)
    t.match(await failureOf(load(url)), message);
});

test("channels by directory, URL and name", async (t) => {
  const urls = (text: string) => channelsOf(text, SETTINGS).map(({ url, name }) => [url, name]);
  t.same(urls("./channel"), [["file:///srv/channel/", "channel"]]);
  t.same(urls(".hidden/channel"), [["file:///srv/.hidden/channel/", "channel"]]);
  t.same(urls("/data/x/"), [["file:///data/x/", "x"]]);
  t.same(urls("file:///data/x"), [["file:///data/x/", "x"]]);
  t.same(urls("https://h/c//?x#y"), [["https://h/c/", "c"]]);
  t.same(urls("conda-forge"), [["https://channels.invalid/conda-forge/", "conda-forge"]]);
  t.same(urls("a/label/dev"), [["https://channels.invalid/a/label/dev/", "a/label/dev"]]);
  t.same(urls("nodefaults"), []);
  t.equal(urls("defaults").length, 2);
  for (const text of ["", "a b", "ftp://h/c", "https://[", "file://other/x"]) {
    t.match(await failureOf((async () => channelsOf(text, SETTINGS))()), /^BURROW_USAGE/, text);
  }
});
