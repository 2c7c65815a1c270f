// burrow mount at length: each signal, either of its processes killed, and who isn't root. Needs root and /dev/fuse. Plane: control.
import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { typeMountedAt } from "../../lib/daemon/fuse-mount.ts";
import { exitOf } from "../conformance/runsc.ts";
import { noFuse } from "../suite/fuse.ts";
import { until } from "../suite/wait.ts";
import { makeNode, start } from "./mount-node.ts";

const skip = noFuse;
const NOBODY = 65_534;

test("each signal unmounts it, with files open, too", { skip }, async (t) => {
  const { node, at } = makeNode(t);
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    const { child, said } = await start(node, ["tree", at]);
    const open = fs.openSync(path.join(at, "README"), "r");
    child.kill(signal);
    t.equal(await exitOf(child), 0, signal);
    t.equal(typeMountedAt(at), undefined);
    t.ok(await until(() => !fs.existsSync(`/proc/${said.server}`)));
    try {
      fs.closeSync(open);
    } catch {} // it would ask the server
  }
  t.strictSame(node.leftovers(), []);
});

test("whichever process dies, the mount goes", { skip }, async (t) => {
  const { node, at } = makeNode(t);
  const first = await start(node, ["tree", at]);
  process.kill(first.said.server, "SIGKILL");
  t.equal(await exitOf(first.child), 1, "the command says that it failed");
  t.equal(typeMountedAt(at), undefined);
  const second = await start(node, ["tree", at]);
  second.child.kill("SIGKILL");
  t.ok(await until(() => typeMountedAt(at) === undefined), "the server takes it away");
});

test("who isn't root is told of fusermount3", { skip }, async (t) => {
  const { node } = makeNode(t);
  fs.chmodSync(node.dir, 0o777);
  const at = node.path("theirs");
  fs.mkdirSync(at);
  fs.chownSync(at, NOBODY, NOBODY);
  const env = { PATH: path.dirname(process.execPath), TMPDIR: node.dir };
  const { code, stderr } = await node.run(["mount", "--quiet", "tree", at], { uid: NOBODY, env });
  t.equal(code, 1);
  t.match(stderr, /who isn't root needs fusermount3; install the package fuse3/);
});
