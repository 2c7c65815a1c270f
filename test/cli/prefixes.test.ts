// Owns: proof that one environment under many prefixes costs little more store than under one, and is served all the same: made,
// counted, compared, brought to a node over HTTP. Plane: control.

import fs from "node:fs";
import { type Test, test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import type { Context } from "../../lib/cli/context.ts";
import { makeEnvironment } from "../../lib/cli/env.ts";
import { conda, PLACEHOLDER } from "../ingest/conda/packages.ts";
import { noise } from "../suite/daemon-node.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { type Node, newNode } from "./cli.ts";

const QUIET = { update: () => {}, line: () => {}, end: () => {} };
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
    return (await makeEnvironment(context, items, options, QUIET)).snapshot;
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
    Math.abs(two.disk.deltas.madeBytes - whole) < 500,
    `${two.disk.deltas.madeBytes} of ${whole}`,
  );
  t.ok(two.disk.deltas.bytes * 10 < two.disk.deltas.madeBytes, `${two.disk.deltas.bytes}`);
  t.match(two, { layers: 2, snapshots: 2, environments: 2 });
  const text = await node.run(["store", "stats"]);
  t.match(text.stdout, /\nmade of deltas: 4 of these, [\d.]+ kB, stored as [\d.]+ kB/);
  const listed = await node.run(["layer", "ls", "--json"]);
  t.equal(JSON.parse(listed.stdout).length, 4, listed.stderr);
  const diff = await node.run(["layer", "diff", "--json", first, `sha256:${second.slice(0, 12)}`]);
  t.equal(diff.code, 0, diff.stderr);
  t.same(JSON.parse(diff.stdout).paths, {
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
  const blobs = fs.readdirSync(`${node.cache}/blobs`, { recursive: true }) as string[];
  t.equal(blobs.filter((name) => name.length > 3).length, 311, "its files and its record");
  const contents = blobs
    .filter((name) => name.length > 3)
    .map((name) => `${node.cache}/blobs/${name}`);
  const naming = contents.filter((name) => fs.readFileSync(name).includes(prefixOf(1)));
  t.equal(naming.length, 10, "scripts and programs");
  t.match(await node.run(["cache", "verify"]), { code: 0 });
});
