// Owns: proof that what is damaged in a store is written again by the command that made it, with --repair; and what is left alone
// without. Plane: control.

import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { noise } from "../suite/daemon-node.ts";
import { isLong } from "../suite/long.ts";
import { newNode } from "./cli.ts";
import { imageIn } from "./kill-node.ts";
import { damageEach, objectsOf, scene } from "./repair-node.ts";

test("an object of each kind, damaged, is written again", (t) => damageEach(t, false));

test("what was repaired can be brought to a node; without --repair the note is believed", async (t) => {
  const { node, words } = await scene(t);
  const create = ["env", "create", "--quiet", ...words];
  const first = await node.run(create);
  t.equal(first.code, 0, first.stderr);
  const pack = path.join(node.store, objectsOf(node, "packs")[0]!);
  fs.unlinkSync(pack);
  const warm = ["preload", "--quiet", first.stdout.trim()];
  t.match(await node.run(create), { code: 0, stdout: first.stdout });
  t.match(await node.run(warm), { code: 1, stderr: /no such object|can't bring/ });
  const verified = await node.run(["store", "verify"]);
  t.match(verified, { code: 1, stdout: /packs\/\S+: it is not there, and \d+ files need it/ });
  t.match(verified.stdout, /layers and snapshots that need what is wrong: .*sha256:/);
  const refused = await node.run(["preload", "--repair", first.stdout.trim()]);
  t.match(refused, { code: 2, stderr: /--repair needs packages or a lock/ });
  const repaired = await node.run(["preload", "--repair", ...words]);
  t.match(repaired, { code: 0, stdout: first.stdout }, repaired.stderr);
  t.match(repaired.stderr, /^faults: 1$/m);
  t.match(await node.run(["store", "verify"]), { code: 0 });
  const again = await node.run(["preload", "--repair", "--json", ...words]);
  t.match(again.stdout, /"nothing is damaged"/);
  t.match(again.stdout, /"ingested":0,"present":2/);
});

test("layers of trees are repaired, too", async (t) => {
  const node = newNode(t);
  for (let i = 0; i < 20; i++) node.file(`tree/file${i}`, noise(9_000, i + 1));
  const words = ["layer", "import", "--snapshot", "--quiet", "tree"];
  const first = await node.run(words);
  const pack = path.join(node.store, objectsOf(node, "packs")[0]!);
  const bytes = fs.readFileSync(pack);
  bytes[500]! ^= 1;
  fs.writeFileSync(pack, bytes);
  t.match(await node.run(words), { code: 0, stdout: first.stdout });
  t.match(await node.run(["store", "verify"]), { code: 1 }, "what is known is believed");
  t.match(await node.run([...words, "--repair"]), { code: 0, stdout: first.stdout });
  t.match(await node.run(["store", "verify"]), { code: 0 });
});

test("what is kept of an image is checked and repaired, too", async (t) => {
  const node = newNode(t);
  const words = ["layer", "import", "--snapshot", "--quiet", imageIn(node)];
  const first = await node.run(words);
  t.equal(first.code, 0, first.stderr);
  for (const change of isLong ? ["", "{}\n"] : ["{}\n"]) {
    fs.writeFileSync(path.join(node.store, objectsOf(node, "images")[0]!), change);
    const verified = await node.run(["store", "verify"]);
    t.match(verified, { code: 1, stdout: /\nimages\/\S+: .*not what its snapshot says/ });
    t.match(await node.run([...words, "--repair"]), { code: 0, stdout: first.stdout });
    t.match(await node.run(["store", "verify"]), { code: 0 });
  }
});

test("a document of an environment that can't be read is a fault", async (t) => {
  const { node, words } = await scene(t);
  const create = ["env", "create", "--quiet", words[0]!];
  const first = await node.run(create);
  const file = path.join(node.store, objectsOf(node, "environments")[0]!);
  fs.truncateSync(file, 20);
  const verified = await node.run(["store", "verify"]);
  t.match(verified, { code: 1, stdout: /\nenvironments\/\S+: it is no JSON/ });
  t.match(await node.run(["env", "ls"]), { code: 1, stderr: /it is no JSON.*BURROW_CORRUPT/ });
  t.match(await node.run(create), { code: 0, stdout: first.stdout });
  t.match(await node.run(["store", "verify"]), { code: 0 });
  // What it names is gone, and nothing else leads there.
  const lost = objectsOf(node, "locators");
  for (const locator of lost) fs.rmSync(path.join(node.store, locator));
  const named = await node.run(["store", "verify"]);
  t.match(named, {
    code: 1,
    stdout: /\nlocators\/\S+: it is missing, and environments\/\S+ names/,
  });
  t.match(await node.run([...create, "--repair"]), { code: 0, stdout: first.stdout });
  t.match(await node.run(["store", "verify"]), { code: 0 });
});
