// Owns: proof that a prefix of a bucket is a stage as a user asks for it: what a sandbox reads of it, and what it and the user are told
// when an object is another by then; and that tenants share none of its files. Plane: control.

import { createHash } from "node:crypto";
import fs from "node:fs";
import { type Test, test } from "tap";
import { isDaemonUp } from "../../lib/cache/client.ts";
import { exitOf, findRevisions } from "../conformance/runsc.ts";
import { noise } from "../suite/daemon-node.ts";
import { type S3Server, service } from "../suite/s3-server.ts";
import { until } from "../suite/wait.ts";
import { busybox, type Node, newNode } from "./cli.ts";

const { found, reasons } = findRevisions();
for (const reason of reasons) console.error(`skipped: ${reason}`);

const LARGE = noise(9 * 1024 * 1024 + 7, 3);

function fill(server: S3Server, node: Node): void {
  Object.assign(node.env, server.environment);
  server.put("box/data/a.csv", Buffer.from("1,2\n"));
  server.put("box/data/b.csv", Buffer.from("5,6\n"));
  server.put("box/data/more/large", LARGE);
}

for (const revision of found) {
  test(`${revision.name}: a sandbox reads a prefix as it was listed; what is another is ESTALE`, {
    timeout: 120_000,
  }, async (t) => {
    const server = await service(t);
    const { node, base } = await busybox(t, revision.path);
    fill(server, node);
    const daemon = node.start(["daemon", "start", "--no-background", "--standbys", "0"]);
    await until(() => isDaemonUp(node.cache));
    const script = `cat /stage/d/a.csv; ls -R /stage/d | tr '\\n' ' '; echo
      exec 3</stage/d/more/large; busybox head -c 1000000 <&3 | busybox sha256sum; echo ready; read line
      cat /stage/d/b.csv; busybox tail -c +8000000 <&3 | busybox wc -c; cat /stage/d/a.csv; exit 7`;
    const words = ["run", "--base", base, "--platform", "ptrace", "--stage", "d=s3://box/data"];
    const child = node.start(
      [...words, "--", "/bin/sh", "-c", script.replaceAll("| tr", "| busybox tr")],
      {
        keepsInput: true,
      },
    );
    const said = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"] as const)
      child[name]?.setEncoding("utf8").on("data", (text: string) => {
        said[name] += text;
      });
    await until(() => said.stdout.includes("ready") || child.exitCode !== null);
    const sum = createHash("sha256").update(LARGE.subarray(0, 1_000_000)).digest("hex");
    t.equal(
      said.stdout,
      `1,2\n/stage/d: a.csv b.csv more  /stage/d/more: large \n${sum}  -\nready\n`,
      said.stderr,
    );
    t.match(said.stderr, "s3://box/data: 3 objects, 9.44 MB, pinned by ETag\n");
    said.stdout = "";
    server.put("box/data/b.csv", Buffer.from("7,8\n"));
    server.put("box/data/more/large", noise(LARGE.length, 4));
    child.stdin?.end("go\n");
    t.equal(await exitOf(child), 7);
    t.equal(said.stdout, "0\n1,2\n", "no byte of another state");
    t.equal(said.stderr.match(/Stale file handle/g)?.length, 2, said.stderr);
    t.match(
      said.stderr,
      /failed with ESTALE.*replaced or removed since it was listed.*\(BURROW_STALE\)\n$/,
    );
    const again = await node.run([...words, "--quiet", "--", "/bin/cat", "/stage/d/b.csv"]);
    t.match(again, { code: 0, stdout: "7,8\n", stderr: "" }, "the next run lists anew");
    t.same(node.leftovers(), []);
    await node.run(["daemon", "stop"]);
    t.equal(await exitOf(daemon), 0);
  });
}

/** Has a stage listed for a tenant: where its snapshot is, as its mount says. */
async function listed(t: Test, node: Node, id: string, ...more: string[]): Promise<string> {
  const words = ["bundle", "--base", "base", "--id", id, "--stage", "d=s3://box/data", ...more];
  const { code, stderr } = await node.run([...words, id, "ls"]);
  t.equal(code, 0, stderr);
  const text = fs.readFileSync(`${node.state}/mounts/${id}/mount.json`, "utf8");
  return (JSON.parse(text) as { grafts: [{ snapshot: string }] }).grafts[0].snapshot;
}

test("a tenant is named by an option or a variable, and has a stage of its own", async (t) => {
  const server = await service(t);
  const node = newNode(t);
  fs.mkdirSync(node.path("base/tmp"), { recursive: true });
  fill(server, node);
  const none = await listed(t, node, "none");
  const one = await listed(t, node, "one", "--tenant", "one");
  t.not(one, none);
  t.not(await listed(t, node, "two", "--tenant", "two"), one);
  t.equal(await listed(t, node, "same", "--tenant", "one"), one);
  node.env["BURROW_TENANT"] = "one";
  t.equal(await listed(t, node, "variable"), one);
  const bad = await node.run(["bundle", "--base", "base", "--tenant", "a/b", "x", "ls"]);
  t.match(bad, { code: 2, stderr: /"a\/b" is no tenant/ });
  t.equal(fs.statSync(`${node.cache}/stage.key`).mode & 0o777, 0o600);
});

test("what a prefix holds that can't be files is told; what can't be listed says why", async (t) => {
  const server = await service(t);
  const node = newNode(t);
  fs.mkdirSync(node.path("base/tmp"), { recursive: true });
  fill(server, node);
  const beside = { size: 3, mtime: new Date(1e12), etag: '"x"' };
  server.beside.set("box", [
    { ...beside, key: "data/a//b" },
    { ...beside, key: "data/../c" },
    { ...beside, key: "data/cold", storageClass: "GLACIER" },
  ]);
  const bundle = (id: string, source: string) =>
    node.run(["bundle", "--base", "base", "--id", id, "--stage", `d=${source}`, id, "ls"]);
  const { code, stderr } = await bundle("odd", "s3://box/data");
  t.equal(code, 0, stderr);
  t.match(stderr, "4 objects, 9.44 MB, pinned by ETag\n");
  t.match(stderr, "1 object archived: reading it fails until it is restored\n");
  t.match(
    stderr,
    'left out "../c" (a name that means another directory), "a//b" (an empty name)\n',
  );
  const empty = await bundle("empty", "s3://box/nothing");
  t.match(empty, { code: 1, stderr: /no objects below the prefix .*BURROW_NOT_FOUND/ });
  const gone = await bundle("gone", "s3://other/data");
  t.match(gone, { code: 1, stderr: /404 NoSuchBucket: there is no such bucket/ });
  const made = await node.run(["stage", "create", "s3://box/data"]);
  t.match(made, { code: 2, stderr: /one on S3 needs none: burrow run --stage NAME=s3:/ });
});
