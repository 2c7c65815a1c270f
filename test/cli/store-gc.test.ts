// Owns: proof that burrow store gc, pin, unpin and pins do on directories and S3 what the collector does, and say it. Plane: control.

import fs from "node:fs";
import { test } from "tap";
import { type Digest, showDigest } from "../../lib/base/digest.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { collect } from "../../lib/store/gc.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { UNSEEN_MS } from "../../lib/store/lease.ts";
import { openStore, writingStore } from "../../lib/store/open.ts";
import { openPackWriter } from "../../lib/store/pack-writer.ts";
import { entriesOf, noise } from "../suite/daemon-node.ts";
import { service } from "../suite/s3-server.ts";
import { forget, makeEnvironment, PORTS, packageOf, readAll } from "../suite/store-scene.ts";
import { until } from "../suite/wait.ts";
import { type Node, newNode, ZEROS } from "./cli.ts";

const SHARED = packageOf(1, 2, 3);

/** Two environments of a store, and what only the first one needs. */
async function environments(store: string): Promise<[a: Digest, b: Digest]> {
  const make = (name: string, seed: number) =>
    writingStore(store, "a test", (open) =>
      makeEnvironment(open, { shared: SHARED, [name]: packageOf(seed) }),
    );
  return [await make("one", 50), await make("two", 60)];
}

/** Has everything in a directory's store been written two days ago. */
function age(store: string): void {
  const then = Date.now() / 1000 - 2 * 86_400;
  const names = fs.readdirSync(store, { recursive: true, withFileTypes: true });
  for (const entry of names)
    if (entry.isFile()) fs.utimesSync(`${entry.parentPath}/${entry.name}`, then, then);
}

function filesOf(store: string): string[] {
  const all = fs.readdirSync(store, { recursive: true, withFileTypes: true });
  return all.flatMap((each) => (each.isFile() ? [`${each.parentPath}/${each.name}`] : [])).sort();
}

async function report(node: Node, ...words: string[]) {
  const { code, stdout, stderr } = await node.run(["store", "gc", "--json", ...words]);
  return { code, stderr, ...(JSON.parse(stdout || "{}") as Record<string, { objects: number }>) };
}

test("what nothing refers to goes when it is old; a dry run changes nothing", async (t) => {
  const node = newNode(t);
  const [a, b] = await environments(node.store);
  await forget(await openStore(node.store), a);
  const before = filesOf(node.store);
  t.match(await report(node), { code: 0, freed: { objects: 0 }, faults: [] }, "all is new");
  t.match(await report(node, "--dry-run", "--keep-within", "0"), { freed: { objects: 8 } });
  t.same(filesOf(node.store), before);
  age(node.store);
  const dry = await node.run(["store", "gc", "--dry-run"]);
  t.match(dry.stdout, /^kept 14 objects, [\d.]+ kB\nwould free 8 objects, [\d.]+ kB\n$/);
  t.same(filesOf(node.store), before);
  t.match(await report(node, "--keep-within", "3d"), { freed: { objects: 0 } });
  const done = await node.run(["store", "gc", node.store]);
  t.match(done.stdout, /^kept 14 objects, [\d.]+ kB\nfreed 8 objects, [\d.]+ kB\n$/);
  t.equal(done.code, 0, done.stderr);
  t.equal(filesOf(node.store).length, before.length - 8);
  await readAll(await openStore(node.store), b);
  t.match(await node.run(["store", "verify"]), { code: 0 });
});

test("pins, and what this node's mounts use", async (t) => {
  const node = newNode(t);
  const bases = await Promise.all(
    [1, 2, 3].map((seed) =>
      writingStore(node.store, "a test", async (store) => {
        const writer = await openPackWriter(store);
        const refs = new Map([["file", await writer.addBytes(noise(5_000, seed))]]);
        return showDigest(
          (await writer.finish(writeIndex(IndexKind.snapshot, entriesOf(refs)))).digest,
        );
      }),
    ),
  );
  const [pinned = "", used = "", other = ""] = bases;
  const { base, view } = { base: { snapshot: used, origin: node.store }, view: "view" };
  const mount = { format: 1, kind: view, cache: node.cache, base, grafts: [] };
  node.file("state/mounts/m1/mount.json", JSON.stringify(mount));
  t.match(await node.run(["store", "pins"]), { code: 0, stdout: "none\n" });
  t.match(await node.run(["store", "pin", pinned.slice(0, 20)]), { stdout: `${pinned}\n` });
  t.match(await node.run(["store", "pins", "--json"]), { stdout: `["${pinned}"]\n` });
  const missing = await node.run(["store", "pin", ZEROS]);
  t.match(missing, { code: 1, stderr: /no layer or snapshot/ });
  t.match(await report(node, "--keep-within", "0"), { freed: { objects: 0 } }, "bases stay");
  t.match(await report(node, "--keep-within", "0", "--all"), { freed: { objects: 3 } });
  const store = await openStore(node.store);
  for (const digest of [pinned, used]) await readAll(store, digest.slice(7) as Digest);
  t.equal(await store.has(objectPath("indexes", other.slice(7) as Digest)), false);
  t.match(await node.run(["store", "unpin", pinned]), { code: 0 });
  t.match(await node.run(["store", "unpin", pinned]), { code: 1, stderr: /no pin of/ });
  t.match(await report(node, "--keep-within", "0", "--all"), { freed: { objects: 3 } });
});

test("what is wrong is said, exit 1; what can't be collected is refused", async (t) => {
  const node = newNode(t);
  const [a] = await environments(node.store);
  await forget(await openStore(node.store), a);
  const note = `${node.store}/imports/ab/${"ab".repeat(32)}`;
  node.file(note.slice(node.dir.length + 1), "no JSON");
  const { code, stdout } = await node.run(["store", "gc", "--keep-within", "0s"]);
  t.equal(code, 1);
  t.match(stdout, /freed 8 objects, .*\nimports\/ab\/(ab){32}: .*not valid JSON\n$/);
  const refused: [string[], RegExp, number][] = [
    [["http://127.0.0.1:9/store"], /an HTTP store can't be listed/, 1],
    [["/nonexistent/store"], /there is no store/, 1],
    [["--keep-within", "soon"], /--keep-within: "soon" is no duration/, 2],
    [["ftp://x/y"], /give a directory or an http\(s\) or s3 URL/, 2],
  ];
  for (const [words, why, exitCode] of refused)
    t.match(await node.run(["store", "gc", ...words]), { code: exitCode, stderr: why });
});

test("a check says what is missing, and what nothing refers to", async (t) => {
  const node = newNode(t);
  const [a] = await environments(node.store);
  const check = (...words: string[]) => node.run(["store", "check", ...words]);
  t.match(await check(), {
    code: 0,
    stdout: /^indexes 5, files 5, packs 3\nreferred to: 23 .*\nnot referred to: 0 .*\nfaults 0\n$/,
  });
  await forget(await openStore(node.store), a);
  t.match(await check("--no-content"), {
    code: 0,
    stdout: /^referred to: 14 .*\nnot referred to: 8 objects, .*\nfaults 0\n$/,
  });
  const packs = filesOf(`${node.store}/packs`);
  for (const pack of packs) fs.rmSync(pack);
  const { code, stdout } = await check("--no-content", "--json");
  t.equal(code, 1);
  const { faults } = JSON.parse(stdout) as { faults: { what: string; why: string }[] };
  t.equal(faults.length, 2, "what garbage would need is not missed");
  t.match(faults[0], { what: /^packs\//, why: /it is missing, and locators\/.* refers to it/ });
  t.match(await check(), { code: 1, stdout: /faults [3-9]/ });
});

test("a collector that was killed is waited for for minutes, not an hour", async (t) => {
  const node = newNode(t);
  const [a] = await environments(node.store);
  await forget(await openStore(node.store), a);
  const folder = `${node.store}/collectors`;
  fs.mkdirSync(folder, { recursive: true });
  const child = node.start(["store", "gc", "--keep-within", "0"]);
  const ended = new Promise((resolve) => child.once("exit", resolve));
  await until(() => fs.readdirSync(folder).length > 0 || child.exitCode !== null);
  t.equal(child.exitCode, null, "it has only begun");
  child.kill("SIGKILL");
  await ended;
  const soon = await node.run(["store", "gc"]);
  t.match(soon, { code: 1, stderr: /another collection of this store is at work/ });
  for (const name of fs.readdirSync(folder)) {
    const then = (Date.now() - UNSEEN_MS) / 1000 - 5;
    fs.utimesSync(`${folder}/${name}`, then, then);
  }
  t.match(await report(node, "--keep-within", "0"), { code: 0, faults: [] });
  t.same(fs.readdirSync(folder), []);
  t.equal(fs.existsSync(`${node.store}/${objectPath("locators", a)}`), false);
  t.match(await node.run(["store", "verify"]), { code: 0 });
});

test("a store on S3", async (t) => {
  const server = await service(t);
  const address = server.address("box/store");
  const [a, b] = await environments(address);
  const store = await openStore(address);
  await forget(store, a);
  const options = { keepMs: 86_400_000, isAll: false, isRepacking: true };
  t.match(await collect(store, PORTS, options), { freed: { objects: 0 }, faults: [] });
  const done = await collect(store, PORTS, { ...options, keepMs: 0 });
  t.match(done, { freed: { objects: 8 }, later: { objects: 0 }, faults: [] });
  await readAll(store, b);
  t.same(fs.readdirSync(`${server.root}/box/store/leases`), []);
  t.same(fs.readdirSync(`${server.root}/box/store/collectors`), []);
});
