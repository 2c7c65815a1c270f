// Owns: proof that a sandbox which does not start, or is killed for want of memory, is told as such; and that digests are taken as
// people give them. Most need root and a runsc; skipped with the reason otherwise. Plane: control.

import fs from "node:fs";
import path from "node:path";
import { type Test, test } from "tap";
import { memoryKills, memoryNote } from "../../lib/cli/memory-kill.ts";
import { findRevisions } from "../conformance/runsc.ts";
import { conda } from "../ingest/conda/packages.ts";
import { until } from "../suite/wait.ts";
import { busybox, type Node, newNode } from "./cli.ts";
import { hasCgroups } from "./python-node.ts";

const { found, reasons } = findRevisions();
const skip = found.length === 0 ? reasons.join("; ") : false;

/** The node's base with another runtime. */
async function withRunsc(t: Test, script: string): Promise<{ node: Node; base: string }> {
  const scene = await busybox(t);
  scene.node.env["BURROW_RUNSC"] = scene.node.file("runsc", `#!/bin/sh\n${script}\n`, 0o755);
  return scene;
}

test("a sandbox that never starts is ended and told of", { skip }, async (t) => {
  const { node, base } = await withRunsc(t, '[ "$1" = --version ] && exit 0; exec sleep 600');
  const run = ["run", "--base", base, "--start-timeout", "0.5", "--", "/bin/pwd"];
  const { code, stdout, stderr } = await node.run(run);
  t.same([code, stdout], [128, ""]);
  t.match(
    stderr,
    /asked for no file within 0.5 s and was ended; burrow doctor .*\(BURROW_START\)\n$/,
  );
  t.same(node.leftovers(), []);
  t.ok(await until(() => node.processes().length === 0), node.processes().join("\n"));
  for (const text of ["0", "soon", "9999999"]) {
    const wrong = ["run", "--base", base, "--start-timeout", text, "--", "/bin/pwd"];
    t.match(await node.run(wrong), { code: 2, stderr: /--start-timeout: / });
  }
});

test("what the kernel kills for want of memory", async (t) => {
  const node = newNode(t);
  const vmstat = node.file("vmstat", "pgfault 1\noom_kill 27\nunevictable 3\n");
  t.equal(memoryKills(vmstat), 27);
  t.equal(memoryKills(node.file("other", "pgfault 1\n")), 0);
  t.equal(memoryKills(node.path("none")), 0);
  t.match(memoryNote(137, 1, "1G"), /--memory 1G is too little for it/);
  t.match(memoryNote(137, 1, undefined), /this machine has too little/);
  t.equal(memoryNote(137, 0, "1G"), undefined, "killed by hand");
  t.equal(memoryNote(1, 1, "1G"), undefined, "another's");
});

test("a sandbox over its --memory says so", {
  skip: skip || (hasCgroups() ? false : "needs a memory cgroup (v1) that can be written"),
}, async (t) => {
  const { node, base } = await busybox(t);
  const words = ["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=600M", "count=2"];
  const run = ["run", "--base", base, "--platform", "ptrace", "--memory", "200M", "--", ...words];
  const { code, stderr } = await node.run(run);
  t.equal(code, 137);
  t.match(stderr, /killed for want of memory: --memory 200M is too little for it\n$/);
});

test("digests are taken without sha256: where nothing else can be meant", { skip }, async (t) => {
  const { node, base } = await busybox(t);
  const digits = base.slice("sha256:".length);
  node.file("pkg-1.0-0.conda", await conda({ files: [{ name: "share/x", content: "x" }] }));
  const made = (await node.run(["env", "create", "--quiet", "pkg-1.0-0.conda"])).stdout.trim();
  const env = made.slice("sha256:".length);
  for (const length of [64, 12]) {
    const query = ["--base", digits.slice(0, length), "--env", env.slice(0, length)];
    const run = ["run", "--platform", "ptrace", ...query, "--", "/bin/cat", "/opt/env/share/x"];
    t.match(await node.run(run), { code: 0, stdout: "x" });
    t.match(await node.run(["env", "show", env.slice(0, length)]), { code: 0 });
    t.match(await node.run(["layer", "show", digits.slice(0, length), "etc"]), { code: 0 });
  }
  // A file of that name is the file.
  node.file("abcdef12/etc/greeting", "file\n");
  const other = await node.run(["bundle", "--base", "abcdef12", "--json", "out", "--", "/x"]);
  t.equal(other.code, 0, other.stderr);
  t.not(JSON.parse(other.stdout).snapshots[0], base);
  const gone = await node.run(["run", "--base", "abcdef13", "--", "/x"]);
  t.match(gone, { code: 1, stderr: /no layer or snapshot abcdef13.*BURROW_NOT_FOUND/ });
});

test("env rm takes an environment off the list and nothing else", async (t) => {
  const node = newNode(t);
  const words: string[] = [];
  for (const name of ["aa", "bb"]) {
    const files = [{ name: `share/${name}`, content: name }];
    words.push(node.file(`${name}-1.0-0.conda`, await conda({ index: { name }, files })));
  }
  const create = (...names: string[]) => node.run(["env", "create", "--quiet", ...names]);
  const [one, both] = [
    (await create(words[0]!)).stdout.trim(),
    (await create(...words)).stdout.trim(),
  ];
  const objects = () =>
    ["packs", "indexes", "locators", "imports"].map(
      (folder) => fs.readdirSync(path.join(node.store, folder), { recursive: true }).length,
    );
  const before = objects();
  const none = `sha256:${"1".repeat(64)}`;
  t.match(await node.run(["env", "rm", one, none]), { code: 1, stderr: /no environment sha256:1/ });
  const listed = async () =>
    (JSON.parse((await node.run(["env", "ls", "--json"])).stdout) as { snapshot: string }[]).map(
      ({ snapshot }) => snapshot,
    );
  t.same((await listed()).sort(), [one, both].sort(), "all or none");
  for (const below of ["share", "/opt/env/share", "opt/env/share"])
    t.match(await node.run(["layer", "show", one, below]), { code: 0, stdout: /share\/aa$/m });
  const layers = await node.run(["layer", "ls"]);
  t.match(
    layers.stdout,
    new RegExp(`${one} +snapshot .* environment at /opt/env, 1 package$`, "m"),
  );
  t.match(layers.stdout, /^sha256:\S+ +layer .* \S+-1\.0$/m);
  t.match(await node.run(["env", "rm", one.slice(0, 20)]), {
    code: 0,
    stdout: `${one}\n`,
    stderr: /burrow store gc/,
  });
  t.same(await listed(), [both]);
  t.match(await node.run(["env", "show", one]), { code: 1, stderr: /no environment/ });
  t.same(objects(), before);
  t.match(await node.run(["store", "verify"]), { code: 0 });
  t.equal((await create(words[0]!)).stdout.trim(), one, "made again");
  t.equal((await listed()).length, 2);
  const http = await node.run(["env", "rm", one, "--store", "http://127.0.0.1:9"]);
  t.match(http, { code: 1, stderr: /only the environments of a directory.*BURROW_UNSUPPORTED/ });
});
