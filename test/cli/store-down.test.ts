// Owns: proof that a node that has everything launches from itself alone, whatever became of its store, and that one that has not says
// what would have helped. Sandboxes need root, a runsc and busybox; skipped with the reason otherwise. Plane: control.

import fs from "node:fs";
import path from "node:path";
import { type Test, test } from "tap";
import { findRevisions } from "../conformance/runsc.ts";
import { conda } from "../ingest/conda/packages.ts";
import { layer, layoutOf, tarOf } from "../ingest/oci/images.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { type Node, newNode } from "./cli.ts";

const { found, reasons } = findRevisions();
const skip = found.length === 0 ? reasons.join("; ") : false;

interface Scene {
  readonly node: Node;
  readonly server: OriginServer;
  /** An image with a config. */
  readonly base: string;
  readonly env: string;
  /** Runs a command that needs bytes of both. */
  readonly run: (...options: string[]) => ReturnType<Node["run"]>;
}

/** A node that knows its store by HTTP alone. */
async function scene(t: Test, runsc = found.at(-1)?.path): Promise<Scene> {
  const node = newNode(t);
  node.env["BURROW_RUNSC"] = runsc;
  const folder = (name: string) => ({ name: `${name}/`, type: "5", mode: 0o755 });
  const tree = layer(
    ...["bin", "dev", "etc", "proc", "sys", "tmp"].map(folder),
    { name: "bin/busybox", mode: 0o755, content: fs.readFileSync("/bin/busybox") },
    { name: "bin/sh", type: "2", linkname: "busybox" },
  );
  const config = { Env: ["PATH=/bin", "FROM=image"], User: "5" };
  node.file("image.tar", tarOf(layoutOf({ "": { layers: [tree], config } })));
  node.file("pkg-1.0-0.conda", await conda({ files: [{ name: "share/x", content: "of pkg\n" }] }));
  const made = async (...words: string[]) => {
    const { code, stdout, stderr } = await node.run([...words, "--quiet"]);
    t.equal(code, 0, stderr);
    return stdout.trim();
  };
  const base = await made("layer", "import", "--snapshot", "image.tar");
  const env = await made("env", "create", "pkg-1.0-0.conda");
  const server = await OriginServer.start(node.store);
  t.teardown(() => server.close());
  node.env["BURROW_STORE"] = server.url;
  const script = "busybox cat /opt/env/share/x; echo $FROM; busybox id -u";
  const words = ["--base", base, "--env", env, "--", "/bin/sh", "-c", script];
  const run = (...options: string[]) =>
    node.run(["run", "--platform", "ptrace", ...options, ...words]);
  return { node, server, base, env, run };
}

const RIGHT = { code: 0, stdout: "of pkg\nimage\n5\n" };

test("what was preloaded runs without its store", { skip }, async (t) => {
  const { node, server, base, env, run } = await scene(t);
  const loaded = await node.run(["preload", "--quiet", base, env]);
  t.equal(loaded.code, 0, loaded.stderr);
  const asked = server.requests.length;
  t.match(await run(), RIGHT);
  t.equal(server.requests.length, asked, "nothing was asked for");
  await server.close();
  t.match(await run(), RIGHT);
  // Neither does the daemon of another start ask.
  t.match(await node.run(["daemon", "stop"]), { code: 0 });
  const { stdout, stderr, code } = await run();
  t.match({ stdout, code }, RIGHT, stderr);
});

test("a first launch keeps what the next one needs", { skip }, async (t) => {
  const { server, run } = await scene(t);
  t.match(await run(), RIGHT);
  await server.close();
  t.match(await run(), RIGHT);
});

test("what is kept of an image is believed as its snapshot names it", { skip }, async (t) => {
  const { node, server, base, run } = await scene(t);
  t.match(await run(), RIGHT);
  const folder = path.join(node.cache, "images");
  const [kept] = fs
    .readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.length > 3);
  const file = path.join(folder, kept!);
  const wrong = fs.readFileSync(file, "utf8").replace("FROM=image", "FROM=enemy");
  fs.chmodSync(file, 0o644);
  fs.writeFileSync(file, wrong);
  t.match(await node.run(["cache", "verify"]), { code: 1, stdout: /1 of them wrong/ });
  fs.writeFileSync(file, wrong);
  t.match(await run(), RIGHT, "read anew");
  fs.rmSync(file);
  server.fault = (name) => (name.startsWith("images/") ? "503" : "none");
  const { code, stderr } = await run();
  t.equal(code, 1);
  t.match(stderr, `burrow preload ${base} brings all of it`);
});

test("without its store, a node that lacks something says what would have helped", async (t) => {
  const { node, server, base, env } = await scene(t, "/bin/true");
  await server.close();
  const { code, stderr } = await node.run(["run", "--base", base, "--env", env, "--", "x"]);
  t.equal(code, 1);
  t.match(stderr, /is not on this node, and its store gives none: .*\(BURROW_ORIGIN\)\n$/s);
  t.match(stderr, `burrow preload ${base} brings all of it`);
});
