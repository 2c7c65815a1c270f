// Owns: proof that what is damaged in a store has the code that docs/errors.md gives it, whichever command meets it, and that nothing
// damaged reaches the cache. Plane: control.

import fs from "node:fs";
import { type Test, test } from "tap";
import { showDigest } from "../../lib/base/digest.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { noise, type Published, publish } from "../suite/daemon-node.ts";
import { type Node, newNode } from "./cli.ts";

const FILES = { large: noise(3_000_000, 3), small: noise(3_000, 1) };

function packsOf(node: Node): string[] {
  const names = fs.readdirSync(`${node.store}/packs`, { recursive: true, encoding: "utf8" });
  return names.filter((name) => name.length > 3).map((name) => `packs/${name}`);
}

type Change = (bytes: Buffer) => Buffer | undefined;
const flip: Change = (bytes) => {
  for (let at = 50; at < bytes.length; at += 1_000) bytes[at] = bytes[at]! ^ 1;
  return bytes;
};
const cut: Change = (bytes) => bytes.subarray(0, 200);
const gone: Change = () => undefined;

/** Does `work` with an object of the store changed. */
async function withDamage(node: Node, object: string, change: Change, work: () => Promise<void>) {
  const file = `${node.store}/${object}`;
  const right = fs.readFileSync(file);
  const wrong = change(Buffer.from(right));
  if (wrong === undefined) fs.unlinkSync(file);
  else fs.writeFileSync(file, wrong);
  await work();
  fs.writeFileSync(file, right);
}

function cases(node: Node, { digest }: Published): [string, string, Change, string][] {
  const pack = packsOf(node)[0]!;
  const index = objectPath("indexes", digest);
  const locator = objectPath("locators", digest);
  return [
    ["bytes of a pack", pack, flip, "BURROW_DIGEST_MISMATCH"],
    ["a pack's end", pack, cut, "BURROW_CORRUPT"],
    ["a pack that is gone", pack, gone, "BURROW_ORIGIN"],
    ["bytes of an index", index, flip, "BURROW_DIGEST_MISMATCH"],
    ["an index that is cut", index, cut, "BURROW_DIGEST_MISMATCH"],
    ["a locator that is cut", locator, (bytes) => bytes.subarray(0, 40), "BURROW_CORRUPT"],
  ];
}

async function scene(t: Test): Promise<{ node: Node; made: Published }> {
  const node = newNode(t);
  return { node, made: await publish(node.store, FILES) };
}

test("what is brought to a node", async (t) => {
  const { node, made } = await scene(t);
  const warm = () => node.run(["preload", "--quiet", showDigest(made.digest)]);
  for (const [name, object, change, code] of cases(node, made)) {
    await withDamage(node, object, change, async () => {
      const { code: exit, stderr } = await warm();
      t.equal(exit, 1, name);
      t.match(stderr, `(${code})\n`, name);
    });
    await node.run(["daemon", "stop"]);
    fs.rmSync(node.cache, { recursive: true, force: true });
  }
  t.match(await warm(), { code: 0 }, "the right bytes will do again");
  t.equal((await node.run(["cache", "verify"])).code, 0);
});

test("what is looked at", async (t) => {
  const { node, made } = await scene(t);
  const shown = showDigest(made.digest);
  for (const [name, object, change, code] of cases(node, made)) {
    if (!object.startsWith("indexes/")) continue;
    await withDamage(node, object, change, async () => {
      for (const words of [
        ["layer", "show", shown],
        ["layer", "ls"],
        ["store", "stats"],
      ]) {
        const { code: exit, stderr } = await node.run(words);
        t.equal(exit, 1, `${name}: ${words.join(" ")}`);
        t.match(stderr, `(${code})\n`, `${name}: ${words.join(" ")}`);
      }
    });
  }
});
