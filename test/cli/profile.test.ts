// Owns: proof that burrow profile shows what a node has learned as paths, shares it by the store, and forgets it. Plane: control.

import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { cachePath } from "../../lib/cache/layout.ts";
import { conda } from "../ingest/conda/packages.ts";
import { noise, publish } from "../suite/daemon-node.ts";
import { newNode } from "./cli.ts";

const FILES = { "a/one": noise(40_000, 1), "a/two": noise(50_000, 2), three: noise(60_000, 3) };

test("what was learned is shown, pushed and forgotten", async (t) => {
  const node = newNode(t);
  const { digest, row } = await publish(node.store, FILES);
  const name = `sha256:${digest}`;
  const nothing = await node.run(["profile", "show", name]);
  t.match(nothing, { code: 1, stderr: /nothing was learned of sha256:.*\(BURROW_NOT_FOUND\)/ });
  const profile = cachePath(node.cache, "profiles", digest);
  fs.mkdirSync(profile.slice(0, -65), { recursive: true });
  const command = "a7c2fd2c9e7d5b2f";
  const asks = [row("three"), 0, 0, 0, row("a/one"), 0, 0, 0];
  const text = (commands: object[]) => JSON.stringify({ format: 2, snapshot: name, commands });
  fs.writeFileSync(profile, text([{ asks }]));
  t.match(await node.run(["profile", "show", name]), { code: 0, stdout: "three\na/one\n" });
  const list = node.file("list", (await node.run(["profile", "show", digest.slice(0, 8)])).stdout);
  const json = JSON.parse((await node.run(["profile", "show", "--json", name])).stdout);
  t.same(json, { snapshot: name, files: [{ path: "three" }, { path: "a/one" }] });
  t.match(await node.run(["profile", "show", name, "--", "python3", command]), {
    code: 0,
    stdout: "three\na/one\n",
    stderr: /no start of this command has taught/,
  });

  t.match(await node.run(["profile", "push", name]), { code: 0, stdout: `${name}\n` });
  const shared = `${node.store}/profiles/${digest.slice(0, 2)}/${digest}`;
  t.same(JSON.parse(fs.readFileSync(shared, "utf8")), JSON.parse(text([{ asks }])));
  fs.writeFileSync(profile, text([{ asks: [row("a/two"), 0, 0, 0] }]));
  t.match(await node.run(["profile", "push", name]), { code: 0 });
  const joined = [row("a/two"), 0, 0, 0, ...asks];
  t.same(JSON.parse(fs.readFileSync(shared, "utf8")), JSON.parse(text([{ asks: joined }])));

  t.match(await node.run(["profile", "rm", name]), { code: 0, stdout: `${name}\n` });
  t.notOk(fs.existsSync(profile));
  t.match(await node.run(["profile", "rm", name]), {
    code: 0,
    stdout: "",
    stderr: `nothing was learned of ${name}\n`,
  });
  const brought = await node.run(["preload", "--profile", list, name]);
  t.match(brought, { code: 0, stderr: /2 files, all on this node/ }, "preload takes the list");
  t.notOk(fs.existsSync(profile), "and teaches nothing");
});

test("a profile that is damaged, and a store that can't be written", async (t) => {
  const node = newNode(t);
  const { digest } = await publish(node.store, FILES);
  const profile = cachePath(node.cache, "profiles", digest);
  fs.mkdirSync(profile.slice(0, -65), { recursive: true });
  fs.writeFileSync(profile, "{");
  t.match(await node.run(["profile", "push", digest]), { code: 1, stderr: /BURROW_CORRUPT/ });
  t.notOk(fs.existsSync(`${node.store}/profiles`));
  const asks = [0, 0, 0, 0];
  const format = { format: 2, snapshot: `sha256:${digest}` };
  fs.writeFileSync(profile, JSON.stringify({ ...format, commands: [{ asks }] }));
  const shared = `${node.store}/profiles/${digest.slice(0, 2)}/${digest}`;
  fs.mkdirSync(path.dirname(shared), { recursive: true });
  for (const damaged of ["{", " ".repeat(3 << 20), '{"format":3}']) {
    fs.writeFileSync(shared, damaged);
    t.match(await node.run(["store", "repack", digest]), { code: 0 }, "nor here");
    t.match(await node.run(["profile", "push", digest]), { code: 0 }, "one in the store is none");
    t.same(JSON.parse(fs.readFileSync(shared, "utf8")).commands, [{ asks }]);
  }
  const web = ["--store", "http://127.0.0.1:9/", digest];
  t.match(await node.run(["profile", "push", ...web]), { code: 1, stderr: /BURROW_UNSUPPORTED/ });
});

test("what starts read of packages goes with these to other environments", async (t) => {
  const node = newNode(t);
  for (const name of ["small", "more"]) {
    const files = [1, 2, 3].map((i) => ({ name: `share/${name}${i}`, content: noise(100 * i, i) }));
    const of = name === "small" ? files : files.map((each) => ({ ...each, content: name }));
    node.file(`${name}-1.0-0.conda`, await conda({ index: { name }, files: of }));
  }
  const create = async (...words: string[]) => {
    const made = await node.run(["env", "create", ...words]);
    t.equal(made.code, 0, made.stderr);
    return { name: made.stdout.trim(), told: made.stderr };
  };
  const { name } = await create("small-1.0-0.conda");
  const asks = [1, 0, 0, 0];
  const profile = cachePath(node.cache, "profiles", name.slice(7) as Digest);
  fs.mkdirSync(path.dirname(profile), { recursive: true });
  const file = { format: 2, snapshot: name, commands: [{ asks }] };
  fs.writeFileSync(profile, JSON.stringify(file));
  const pushed = await node.run(["profile", "push", name]);
  t.match(pushed, { code: 0, stdout: `${name}\n`, stderr: /what these starts read of 1 package:/ });

  const other = await create("small-1.0-0.conda", "more-1.0-0.conda");
  t.match(other.told, /starts begin with what others read of 1 package/);
  const hex = other.name.slice(7);
  const shared = path.join(node.store, "profiles", hex.slice(0, 2), hex);
  const { commands, packages } = JSON.parse(fs.readFileSync(shared, "utf8"));
  t.same(commands, []);
  t.match(packages, [{ layer: /^sha256:/, asks: [Number, 0, 0, 0] }]);
  fs.rmSync(shared);
  t.equal(
    (await create("small-1.0-0.conda", "more-1.0-0.conda")).told,
    "",
    "one that is there stays as it is",
  );
  const composed = await node.run(["profile", "compose", "--json", other.name]);
  t.same(JSON.parse(composed.stdout), { composed: [{ snapshot: other.name, packages: 1 }] });
  t.same(JSON.parse(fs.readFileSync(shared, "utf8")).packages, packages);
});

test("what was pushed is forgotten where that is asked for, packages' too", async (t) => {
  const node = newNode(t);
  const files = [{ name: "share/small", content: noise(100, 1) }];
  node.file("small-1.0-0.conda", await conda({ index: { name: "small" }, files }));
  const name = (await node.run(["env", "create", "small-1.0-0.conda"])).stdout.trim();
  const profile = cachePath(node.cache, "profiles", name.slice(7) as Digest);
  fs.mkdirSync(path.dirname(profile), { recursive: true });
  const file = { format: 2, snapshot: name, commands: [{ asks: [1, 0, 0, 0] }] };
  fs.writeFileSync(profile, JSON.stringify(file));
  t.match(await node.run(["profile", "push", name]), { code: 0 });
  const inStore = () =>
    fs
      .readdirSync(path.join(node.store, "profiles"), { recursive: true, encoding: "utf8" })
      .filter((each) => each.length > 64)
      .map((each) => `sha256:${path.basename(each)}`);
  t.equal(inStore().length, 2, "of the snapshot and its package");

  const rm = async (...words: string[]) => await node.run(["profile", "rm", ...words, name]);
  const dry = await rm("--pushed", "--dry-run", "--json");
  const { dryRun, removed, pushed } = JSON.parse(dry.stdout);
  t.same({ dryRun, removed }, { dryRun: true, removed: [name] });
  t.same(new Set(pushed), new Set(inStore()));
  t.ok(fs.existsSync(profile) && inStore().length === 2, "nothing has gone");
  t.match(await rm(), { code: 0, stdout: `${name}\n`, stderr: "" });
  t.equal(inStore().length, 2, "what the store has stays");
  const gone = await rm("--pushed");
  t.match(gone, { code: 0, stdout: `${name}\n`, stderr: /store has forgotten .* 1 package, too/ });
  t.same(inStore(), []);
  const again = await rm("--pushed", "--json");
  t.same(JSON.parse(again.stdout), { removed: [], pushed: [] });
  const web = ["--store", "http://127.0.0.1:9/"];
  t.match(await rm("--pushed", ...web), { code: 1, stderr: /BURROW_UNSUPPORTED/ });
});

test("what was learned, or a list of paths, is laid together in the store", async (t) => {
  const node = newNode(t);
  const files = Object.fromEntries(
    Array.from({ length: 12 }, (_, i) => [`f${i + 10}`, noise(200_000 + i, i)]),
  );
  const { digest } = await publish(node.store, files);
  const nothing = await node.run(["store", "repack", digest]);
  t.match(nothing, { code: 1, stderr: /nothing was learned of .*BURROW_NOT_FOUND/ });
  const list = node.file("list", "f20\nf13\nf16\nf10\n");
  const done = await node.run(["store", "repack", "--json", "--profile", list, digest]);
  t.equal(done.code, 0, done.stderr);
  const { before, after, repacked } = JSON.parse(done.stdout);
  t.match({ before, after, repacked }, { before: { count: 4 }, after: { count: 1 } });
  t.equal(repacked.packs, 1);
  const again = await node.run(["store", "repack", "--profile", list, digest.slice(0, 10)]);
  t.match(again, { code: 0, stdout: /^lies together already: 1 range, 800\.0 kB/ });
  const other = await publish(node.store, { other: noise(1_000, 99) });
  const hex = other.digest;
  fs.truncateSync(`${node.store}/locators/${hex.slice(0, 2)}/${hex}`, 10);
  const spread = node.file("spread", "f11\nf21\nf15\nf18\n");
  const failed = await node.run(["store", "repack", "--profile", spread, digest]);
  t.match(failed, { code: 1, stdout: /^not laid together: something failed\n.*locators.*: / });
});
