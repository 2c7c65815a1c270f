// Owns: proof that burrow explain says why a file is what it is: its package and whom it hides, the prefix in it, the symlinks that lead
// to it, whether its bytes are here; and that what isn't there is named. Plane: control.

import fs from "node:fs";
import t, { test } from "tap";
import type { Explained } from "../../lib/cli/explain-path.ts";
import { native } from "../../lib/sys/native.ts";
import { NOFID, Type, VERSION } from "../../lib/wire/ninep/type.ts";
import { exitOf } from "../conformance/runsc.ts";
import { conda, PLACEHOLDER } from "../ingest/conda/packages.ts";
import { type Fields, NinepClient } from "../suite/ninep-client.ts";
import { until } from "../suite/wait.ts";
import { type Node, newNode } from "./cli.ts";

async function environmentOf(node: Node): Promise<string> {
  const text = `#!${PLACEHOLDER}/bin/tool\n`;
  const first = {
    index: { name: "first", build: "0" },
    files: [
      { name: "bin/tool", content: text },
      { name: "share/both", content: "of the first" },
      { name: "lib/large", content: "x".repeat(1_200_000) },
    ],
    placeholders: { "bin/tool": "text" as const },
  };
  const second = {
    index: { name: "second", build: "0" },
    files: [
      { name: "share/both", content: "of the second" },
      { name: "bin/also", type: "symlink" as const, target: "tool" },
      { name: "empty", content: "" },
    ],
  };
  node.file("first-1.0-0.conda", await conda(first));
  node.file("second-1.0-0.conda", await conda(second));
  const made = await node.run(["env", "create", "first-1.0-0.conda", "second-1.0-0.conda"]);
  if (made.code !== 0) throw new Error(made.stderr);
  return made.stdout.trim();
}

const node = newNode(t);
const env = await environmentOf(node);

async function explained(node: Node, ...words: string[]): Promise<Explained[]> {
  const { code, stdout, stderr } = await node.run(["explain", "--json", ...words]);
  if (code !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as Explained[];
}

test("a file's package, prefix, content and whereabouts", async (t) => {
  t.match(env, /^sha256:/);
  const [tool, both, also, large, empty, share] = await explained(
    node,
    ...[env, "bin/tool", "share/both", "/opt/env/bin/also", "lib/large", "empty", "/opt/env"],
  );
  t.match(tool, {
    path: "bin/tool",
    resolved: "/opt/env/bin/tool",
    type: "file",
    place: { at: "/opt/env", snapshot: env, origin: node.store },
    owner: { kind: "package", title: "first-1.0-0", sha256: /^[0-9a-f]{64}$/, layer: /^sha256:/ },
    hides: [],
    prefix: { written: "/opt/env", placeholder: PLACEHOLDER, mode: "text", before: /^sha256:/ },
    content: { names: 1, blocks: 0, here: "no", stored: { packs: [/^sha256:/], deltas: 0 } },
  });
  t.not(tool!.prefix!.before, tool!.content!.digest, "the prefix made another file of it");
  t.match(both, { owner: { title: "second-1.0-0" }, hides: ["first-1.0-0"], prefix: null });
  t.match(also, {
    resolved: "/opt/env/bin/tool",
    links: [{ path: "/opt/env/bin/also", target: "tool" }],
    owner: { title: "first-1.0-0" },
  });
  t.match(large, { content: { bytes: 1_200_000, blocks: 5 } });
  t.match(empty, { content: { bytes: 0, here: "empty" } });
  t.match(share, { type: "directory", owner: null, content: null });
  t.same(
    share!.below!.map(({ title }) => title),
    ["second-1.0-0", "first-1.0-0"],
  );
  const people = await node.run(["explain", env, "bin/also"]);
  t.match(people.stdout, /symlink +\/opt\/env\/bin\/also -> tool\n/);
  t.match(people.stdout, /package +first-1\.0-0, file:.*first-1\.0-0\.conda\n/);
  t.match(people.stdout, /here +no: it is fetched when it is first read/);
});

test("what the cache has is here, whole or in part; a bundle's mounts are explained by their id", async (t) => {
  const warmed = await node.run(["preload", env, "--quiet"]);
  t.equal(warmed.code, 0, warmed.stderr);
  const [tool, large] = await explained(node, env, "bin/tool", "lib/large");
  t.equal(tool!.content!.here, "whole");
  const digest = large!.content!.digest.slice("sha256:".length);
  const blob = `${node.cache}/blobs/${digest.slice(0, 2)}/${digest}`;
  fs.rmSync(blob);
  fs.writeFileSync(`${node.cache}/partial/${digest}.0123456789abcdef`, "");
  const [part] = await explained(node, env, "lib/large");
  t.equal(part!.content!.here, "partly");
  node.file("base/etc/name", "of the base");
  fs.symlinkSync("/opt/env/bin", node.path("base/tools"));
  const base = (await node.run(["layer", "import", "--snapshot", "base"])).stdout.trim();
  const made = await node.run([
    "bundle",
    "--base",
    base,
    "--env",
    env,
    "--id",
    "seen",
    "b",
    "--",
    "x",
  ]);
  t.equal(made.code, 0, made.stderr);
  const [name, through, opt] = await explained(node, "seen", "etc/name", "/tools/also", "/opt");
  t.match(name, { place: { at: "/", snapshot: base }, owner: null, content: { bytes: 11 } });
  t.match(through, {
    resolved: "/opt/env/bin/tool",
    links: [{ path: "/tools" }, { path: "/opt/env/bin/also" }],
    place: { at: "/opt/env", snapshot: env },
  });
  t.match(opt, { type: "directory", place: null });
  fs.renameSync(node.store, `${node.store}.away`);
  const away = await node.run(["explain", "seen", "/opt/env/bin/tool"]);
  fs.renameSync(`${node.store}.away`, node.store);
  t.match(
    away,
    { code: 0, stdout: /here +yes, whole/, stderr: /doesn't say all/ },
    "what is known is said",
  );
});

test("what isn't there is named, and the rest is explained", async (t) => {
  const some = await node.run(["explain", env, "bin/none", "empty"]);
  t.match(some, {
    code: 1,
    stderr: /bin\/none: there is no \/opt\/env\/bin\/none; the view shows snapshots at \/opt\/env/,
    stdout: /^empty\n/,
  });
  t.match(await node.run(["explain", "nobody", "x"]), {
    code: 1,
    stderr: /no mounts of the id nobody, and it is no digest; burrow env ls/,
  });
  t.match(await node.run(["explain", env]), {
    code: 2,
    stderr: /missing required argument 'path'/,
  });
});

test("a bundle and a server with --explain show it in the view", async (t) => {
  const base = (await node.run(["layer", "import", "--snapshot", "base"])).stdout.trim();
  const words = [
    "bundle",
    "--base",
    base,
    "--env",
    env,
    "--id",
    "shown",
    "--explain",
    "c",
    "--",
    "x",
  ];
  t.match(await node.run(words), { code: 0, stderr: "" });
  const mounts = node.leftovers();
  const path = `${node.state}/mounts/shown/explain.json`;
  const { manifest, snapshots } = JSON.parse(fs.readFileSync(path, "utf8"));
  t.match(manifest, {
    mount: "shown",
    cache: node.cache,
    places: [
      { at: "/", snapshot: base, environment: null },
      { at: "/opt/env", environment: { prefix: "/opt/env", packages: { length: 2 } } },
    ],
  });
  t.equal(snapshots[0], null);
  const socket = node.path("9p");
  const listen = ["--listen", `unix:${socket}`];
  const server = node.start([
    "serve",
    "--base",
    base,
    "--env",
    env,
    "--explain",
    "--quiet",
    ...listen,
  ]);
  t.ok(await until(() => fs.existsSync(socket)));
  const client = new NinepClient(native.connectUnix(socket));
  t.teardown(() => client.close());
  const call = async (type: number, fields: Fields) => {
    const { errno, body } = await client.later(client.send(type, fields));
    if (errno !== 0) throw new Error(`errno ${errno}`);
    return body;
  };
  await call(Type.version, { count: 65_536, name: VERSION });
  await call(Type.attach, { fid: 1, otherFid: NOFID, name: "root", uid: 0 });
  await call(Type.walk, { fid: 1, otherFid: 2, names: ["opt", "env", "share", "both"] });
  await call(Type.xattrwalk, { fid: 2, otherFid: 3, name: "user.burrow.package" });
  const value = await call(Type.read, { fid: 3, count: 4096 });
  t.equal(value.toString("latin1", 4), "second-1.0-0", "by the layer that is served");
  await call(Type.walk, { fid: 1, otherFid: 4, names: [".burrow", "manifest.json"] });
  await call(Type.lopen, { fid: 4 });
  const text = (await call(Type.read, { fid: 4, count: 65_000 })).toString("latin1", 4);
  t.match(JSON.parse(text), { places: [{ at: "/" }, { at: "/opt/env" }] });
  server.kill("SIGTERM");
  t.equal(await exitOf(server), 0);
  t.same(node.leftovers(), mounts, "of the server nothing is left");
});
