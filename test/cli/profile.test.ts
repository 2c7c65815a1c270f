// Owns: proof that burrow profile shows what a node has learned as paths, shares it by the store, and forgets it. Plane: control.

import fs from "node:fs";
import { test } from "tap";
import { cachePath } from "../../lib/cache/layout.ts";
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
  const asks = [row("three"), 0, 0, row("a/one"), 0, 0];
  const text = (commands: object[]) => JSON.stringify({ format: 1, snapshot: name, commands });
  fs.writeFileSync(profile, text([{ asks }]));
  t.match(await node.run(["profile", "show", name]), { code: 0, stdout: "three\na/one\n" });
  const list = node.file("list", (await node.run(["profile", "show", digest.slice(0, 8)])).stdout);
  const json = JSON.parse((await node.run(["profile", "show", "--json", name])).stdout);
  t.same(json, { snapshot: name, files: [{ path: "three" }, { path: "a/one" }] });
  t.match(await node.run(["profile", "show", name, "--", "python3", command]), {
    code: 0,
    stdout: "three\na/one\n",
    stderr: /no start of this command has waited/,
  });

  t.match(await node.run(["profile", "push", name]), { code: 0, stdout: `${name}\n` });
  const shared = `${node.store}/profiles/${digest.slice(0, 2)}/${digest}`;
  t.same(JSON.parse(fs.readFileSync(shared, "utf8")), JSON.parse(text([{ asks }])));
  fs.writeFileSync(profile, text([{ asks: [row("a/two"), 0, 0] }]));
  t.match(await node.run(["profile", "push", name]), { code: 0 });
  const joined = [row("a/two"), 0, 0, ...asks];
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
  const web = ["--store", "http://127.0.0.1:9/", digest];
  t.match(await node.run(["profile", "push", ...web]), { code: 1, stderr: /BURROW_UNSUPPORTED/ });
});
