// Owns: proof that one environment under many prefixes costs little more store than under one, and is served all the same: made,
// counted, compared, brought to a node over HTTP. Plane: control.

import fs from "node:fs";
import { type Test, test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import type { Context } from "../../lib/cli/context.ts";
import { makeEnvironment } from "../../lib/cli/env.ts";
import { SILENCE } from "../../lib/cli/output.ts";
import { Index } from "../../lib/layer/index.ts";
import { conda, PLACEHOLDER } from "../ingest/conda/packages.ts";
import { noise } from "../suite/daemon-node.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { type Node, newNode } from "./cli.ts";

const prefixOf = (i: number) => (i === 0 ? "/opt/env" : `/srv/environments/number-${i}`);

const NOISE = noise(300 * 20_000);

/** A package of many files, some of which name their prefix: text, small and large programs. */
async function packageOf(): Promise<Buffer> {
  const plain = Array.from({ length: 300 }, (_, i) => ({
    name: `lib/plain-${i}`,
    content: NOISE.subarray(i * 20_000, (i + 1) * 20_000),
  }));
  const program = (size: number) => {
    const bytes = Buffer.from(NOISE.subarray(size, 2 * size));
    bytes.write(`${PLACEHOLDER}/lib\0`, 40_000, "latin1");
    bytes.write(`${PLACEHOLDER}/share\0`, size - 50_000, "latin1");
    return bytes;
  };
  const script = (i: number) => {
    const body = NOISE.subarray(i * 1_500, (i + 1) * 1_500).toString("hex");
    return { name: `bin/script-${i}`, content: `#!${PLACEHOLDER}/bin/python\n# ${body}\n` };
  };
  const scripts = Array.from({ length: 8 }, (_, i) => script(i));
  const programs = [
    { name: "lib/small.so", content: program(300_000) },
    { name: "lib/large.so", content: program(1_500_000) },
  ];
  const placeholders = Object.fromEntries([
    ...scripts.map(({ name }) => [name, "text"] as const),
    ...programs.map(({ name }) => [name, "binary"] as const),
  ]);
  const files = [...plain, ...scripts, ...programs];
  return await conda({ index: { name: "many" }, files, placeholders });
}

interface Scene {
  readonly node: Node;
  readonly context: Context;
  readonly make: (i: number) => Promise<Digest>;
}

async function scene(t: Test): Promise<Scene> {
  const node = newNode(t);
  const file = node.file("many-1.0-h0_0.conda", await packageOf());
  const { state, cache, store } = node;
  const context = { state, cache, store, isJson: false };
  const items = [{ line: 1, url: `file://${file}`, path: file }];
  const make = async (i: number) => {
    const options = { prefix: prefixOf(i) };
    return (await makeEnvironment(context, items, options, SILENCE)).snapshot;
  };
  return { node, context, make };
}

test("indexes and locators of further prefixes are deltas, and all commands read them", async (t) => {
  const { node, make } = await scene(t);
  const first = await make(0);
  const one = JSON.parse((await node.run(["store", "stats", "--json"])).stdout);
  t.match(one.disk.deltas, { count: 0, bytes: 0, madeBytes: 0 });
  const second = await make(1);
  t.equal(await make(1), second, "again, it is the same");
  const two = JSON.parse((await node.run(["store", "stats", "--json"])).stdout);
  t.same(two.disk.indexes, one.disk.indexes);
  t.same(two.disk.locators, one.disk.locators);
  t.equal(two.disk.deltas.count, 4, "of a layer and a snapshot");
  const whole = one.disk.indexes.bytes + one.disk.locators.bytes;
  t.ok(
    Math.abs(two.disk.deltas.madeBytes / whole - 1) < 0.05,
    `${two.disk.deltas.madeBytes} of ${whole}`,
  );
  t.ok(two.disk.deltas.bytes * 10 < two.disk.deltas.madeBytes, `${two.disk.deltas.bytes}`);
  t.match(two, { layers: 2, snapshots: 2, environments: 2 });
  const text = await node.run(["store", "stats"]);
  t.match(
    text.stdout,
    /\nindexes and locators made of deltas: 4, [\d.]+ kB, stored as [\d.]+ kB\n/,
  );
  t.match(text.stdout, /\nchunks of files made of deltas: 16, [\d.]+ MB, stored as [\d.]+ kB\n/);
  const listed = await node.run(["layer", "ls", "--json"]);
  t.equal(JSON.parse(listed.stdout).length, 4, listed.stderr);
  const diff = await node.run(["layer", "diff", "--json", first, `sha256:${second.slice(0, 12)}`]);
  t.equal(diff.code, 0, diff.stderr);
  const { content, paths } = JSON.parse(diff.stdout);
  const { count, rawBytes, storedBytes } = content.deltaChunks;
  t.same(
    [count, rawBytes],
    [16, content.onlyB.rawBytes],
    "ten files, of which one has six blocks, and the record",
  );
  t.ok(storedBytes * 100 < rawBytes, `${storedBytes} of ${rawBytes}`);
  t.same(paths, {
    added: 0,
    removed: 0,
    changed: 11,
    attributes: 0,
    same: 300,
  });
  const shown = await node.run(["env", "show", second]);
  t.match(shown.stdout, /^prefix \/srv\/environments\/number-1/);
});

test("an environment that is deltas comes to a node over HTTP, all of it", async (t) => {
  const { node, make } = await scene(t);
  await make(0);
  const second = await make(1);
  const server = await OriginServer.start(node.store);
  t.teardown(() => server.close());
  const run = await node.run(["preload", "--json", "--store", server.url, second]);
  t.equal(run.code, 0, run.stderr + run.stdout);
  const at = (folder: string, digest: string) =>
    `${node.cache}/${folder}/${digest.slice(0, 2)}/${digest}`;
  const index = new Index(fs.readFileSync(at("indexes", second)));
  t.equal(index.blobCount, 311, "its files and its record");
  let naming = 0;
  for (let row = 0; row < index.blobCount; row++)
    if (fs.readFileSync(at("blobs", index.blobDigest(row))).includes(prefixOf(1))) naming++;
  t.equal(naming, 10, "scripts and programs");
  t.match(await node.run(["cache", "verify"]), { code: 0 });
});

test("ten prefixes cost less than 2% more store than one", async (t) => {
  const { node, make } = await scene(t);
  const bytesBelow = () => {
    const names = fs.readdirSync(node.store, { recursive: true }) as string[];
    const stats = names.map((name) => fs.statSync(`${node.store}/${name}`));
    return stats.reduce((sum, stat) => sum + (stat.isFile() ? stat.size : 0), 0);
  };
  const first = await make(0);
  const one = bytesBelow();
  const others: Digest[] = [];
  for (let i = 1; i < 10; i++) others.push(await make(i));
  t.equal(new Set([first, ...others]).size, 10);
  const ten = bytesBelow();
  t.ok(ten < one * 1.02, `${ten} bytes for ten, ${one} for one`);
});
