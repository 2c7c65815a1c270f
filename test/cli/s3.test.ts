// Owns: proof that what lies on S3 is named on the command line as all else is: channels, packages, stores that are written and read,
// by the CLI, its workers and the daemon. Plane: control.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { type Test, test } from "tap";
import { exitOf, findRevisions } from "../conformance/runsc.ts";
import { service } from "../suite/s3-server.ts";
import { until } from "../suite/wait.ts";
import { create, packagesIn, scene } from "./channel-node.ts";
import { busybox, MAIN, type Node } from "./cli.ts";

/** A node with a channel in a bucket beside its own, and what it needs to get there. */
async function onS3(t: Test) {
  const server = await service(t);
  const node = await scene(t);
  Object.assign(node.env, server.environment);
  fs.cpSync(node.path("channel"), `${server.root}/box/channel`, { recursive: true });
  return { server, node };
}

function files(folder: string): string[] {
  if (!fs.existsSync(folder)) return [];
  const all = fs.readdirSync(folder, { recursive: true, withFileTypes: true });
  return all.filter((one) => one.isFile()).map((one) => path.join(one.parentPath, one.name));
}

test("a channel on S3 gives what the directory gives, and a lock that names it", async (t) => {
  const { server, node } = await onS3(t);
  const digest = await create(t, node, ["-c", "s3://box/channel", "--lock", "lock.txt", "app"]);
  t.same(await packagesIn(node, digest), ["lib-1.5", "app-2.0"]);
  const lock = fs.readFileSync(node.path("lock.txt"), "utf8");
  t.match(lock, "s3://box/channel/linux-64/app-2.0-h0_0.conda#sha256:");
  server.files.requests.length = 0;
  t.equal(await create(t, node, ["-c", "s3://box/channel", "app"]), digest);
  t.notOk(
    server.files.requests.some((one) => one.path.endsWith(".conda")),
    "fetched once",
  );
  t.equal(await create(t, node, ["lock.txt", "--store", node.path("third")]), digest);
  const bare = "s3://box/channel/linux-64/lib-1.0-h0_0.conda";
  t.same(await packagesIn(node, await create(t, node, [bare])), ["lib-1.0"]);
});

/** Commands on a store; what they print must not depend on where it lies. */
async function said(node: Node, store: string, digest: string): Promise<string[]> {
  const texts: string[] = [];
  for (const words of [
    ["env", "show", digest],
    ["env", "ls"],
    ["layer", "ls"],
    ["layer", "show", digest.slice(0, 15)],
    ["store", "stats"],
    ["store", "verify"],
  ]) {
    const { stdout } = await node.run([...words, "--store", store]);
    texts.push(stdout);
  }
  return texts;
}

test("a store on S3 is made, listed, verified and read as a directory is", async (t) => {
  const { server, node } = await onS3(t);
  const store = "s3://box/stores/one";
  const digest = await create(t, node, ["-c", "./channel", "app"]);
  server.pageKeys = 2;
  t.equal(await create(t, node, ["-c", "./channel", "app", "--store", store]), digest);
  t.same(await said(node, store, digest), await said(node, node.store, digest));
  const names = (root: string) => files(root).map((name) => path.relative(root, name));
  t.same(names(`${server.root}/box/stores/one`).sort(), names(node.store).sort());
  server.files.requests.length = 0;
  t.equal(await create(t, node, ["-c", "./channel", "app", "--store", store]), digest);
  const puts = server.files.requests.filter(({ method }) => method === "PUT");
  t.notOk(
    puts.some((one) => one.path.includes("/packs/")),
    "no pack is uploaded twice",
  );
});

test("preload fills a store on S3 with many workers, and a node's cache from it", async (t) => {
  const { server, node } = await onS3(t);
  const store = "s3://box/stores/two";
  const words = ["preload", "-c", "s3://box/channel", "--jobs", "2", "--json", "app"];
  const made = await node.run([...words, "--to", store]);
  t.equal(made.code, 0, made.stderr);
  const digest = await create(t, node, ["-c", "s3://box/channel", "app"]);
  t.match(made.stdout, digest, "the same as in a directory");
  await node.run(["cache", "clear"]);
  server.files.requests.length = 0;
  const warm = await node.run(["preload", "--store", store, "--json", digest]);
  t.equal(warm.code, 0, warm.stderr);
  const ranges = server.files.requests.filter(({ range }) => range !== "");
  t.ok(ranges.length > 0, "the daemon reads packs by ranges");
  const shown = await node.run(["cache", "verify", "--json"]);
  t.equal(shown.code, 0, shown.stderr);
  const status = await node.run(["daemon", "status", "--json"]);
  t.match(status.stdout, `"${store}"`);
});

test("errors of S3 say what to do, and show no secret", async (t) => {
  const { server, node } = await onS3(t);
  server.keys.set("AKIDTEST", { secret: "another" });
  for (const words of [
    ["env", "create", "-c", "s3://box/channel", "app"],
    ["env", "ls", "--store", "s3://box/stores/one"],
    ["preload", "-c", "./channel", "--to", "s3://box/stores/one", "app"],
  ]) {
    const { code, stdout, stderr } = await node.run(words);
    t.not(code, 0);
    t.match(stderr, /SignatureDoesNotMatch: the secret key is not that of the access key/);
    t.match(stderr, /bucket: box/);
    t.notMatch(stdout + stderr, /SECRETTEST|StringToSign|do not show/);
  }
  const { stderr } = await node.run(["env", "ls", "--store", "s3://me:hidden@box/x"]);
  t.match(stderr, /credentials don't go into an s3:\/\/ address/);
  t.notMatch(stderr, "hidden");
});

const { found, reasons } = findRevisions();
for (const reason of reasons) console.error(`skipped: ${reason}`);

/** Environments of the processes below this one that run for a node's sandboxes: launcher, runsc, stub and gofer. */
function environments(node: Node): string[] {
  return fs.readdirSync("/proc").flatMap((pid) => {
    try {
      const words = fs.readFileSync(`/proc/${pid}/cmdline`, "latin1");
      const variables = fs.readFileSync(`/proc/${pid}/environ`, "latin1");
      const isOurs = !words.includes(MAIN) && variables.includes(`BURROW_STATE=${node.state}`);
      return isOurs ? [`${words}\0${variables}`] : [];
    } catch {
      return []; // no process, or it ended meanwhile
    }
  });
}

for (const revision of found) {
  test(`${revision.name}: a sandbox reads from S3, and has no keys`, {
    timeout: 90_000,
  }, async (t) => {
    const server = await service(t);
    const { node } = await busybox(t, revision.path);
    Object.assign(node.env, server.environment, { BURROW_STORE: "s3://box/store" });
    const { stdout } = await node.run(["layer", "import", "--snapshot", "base"]);
    const run = ["run", "--base", stdout.trim(), "--platform", "ptrace", "--"];
    const child = node.start([...run, "/bin/sh", "-c", "cat /etc/greeting; exec cat"], {
      keepsInput: true,
    });
    let output = "";
    child.stdout?.on("data", (bytes: Buffer) => {
      output += bytes.toString();
    });
    await until(() => output === "hello\n");
    const all = environments(node);
    t.ok(
      all.some((text) => text.includes("gofer.cjs")),
      "the gofer is there",
    );
    for (const text of all) t.notMatch(text, /SECRETTEST|AWS_/, text.split("\0", 1)[0]!);
    child.stdin?.end();
    t.equal(await exitOf(child), 0);
    t.ok(
      server.files.requests.some(({ range }) => range !== ""),
      "by ranges",
    );
  });
}

test("the SDK is loaded by what needs it alone", (t) => {
  const script = `process.argv.push("burrow", "--version");
    process.on("exit", () => console.error(Object.keys(require.cache).filter((n) => /sdk/.test(n))));
    require(${JSON.stringify(MAIN)});`;
  const { stdout, stderr } = spawnSync(process.execPath, ["-e", script], { encoding: "utf8" });
  t.match(stdout, /^\d+\.\d+/);
  t.equal(stderr.trim(), "[]");
  const size = (name: string) => fs.statSync(path.join(path.dirname(MAIN), "bundles", name)).size;
  t.ok(size("s3-sdk.js") > 500_000, "it has a file of its own");
  t.notMatch(
    fs.readFileSync(path.join(path.dirname(MAIN), "bundles/burrow.js"), "latin1"),
    "sigv4",
  );
  t.end();
});
