// Owns: proof that specs, environment.yml and locks in YAML become environments: the same packages give the same digest whichever
// way they were named. Plane: control.

import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { ChannelServer, type Listed, repodataOf } from "../ingest/conda/channels.ts";
import { until } from "../suite/wait.ts";
import { create, packagesIn, records, scene } from "./channel-node.ts";
import { newNode } from "./cli.ts";

test("specs become a snapshot, and a lock that gives it again", async (t) => {
  const node = await scene(t);
  const words = ["--channel", "./channel", "--lock", "lock.txt", "app", "lib>=1"];
  const made = await node.run(["env", "create", ...words]);
  t.equal(made.code, 0, made.stderr);
  t.match(made.stderr, /^solved: 2 packages, for .*__glibc 2\.36, __linux [\d.]+, __unix 0\n/);
  const digest = made.stdout.trim();
  t.same(await packagesIn(node, digest), ["lib-1.5", "app-2.0"]);
  const lock = fs.readFileSync(node.path("lock.txt"), "utf8").split("\n");
  t.same(lock.slice(0, 2), ["# platform: linux-64", "@EXPLICIT"]);
  const name = "lib-1.5-h0_0.conda";
  const sha256 = String(records(node)[name]!["sha256"]);
  t.equal(lock[2], `file://${node.path(`channel/linux-64/${name}`)}#sha256:${sha256}`);
  t.equal(await create(t, node, ["lock.txt"]), digest);
  t.equal(await create(t, node, ["--channel", "./channel", "app"]), digest);
  t.equal(await create(t, node, ["-c", "./channel", "app", "--store", node.path("other")]), digest);
  fs.renameSync(node.path("channel"), node.path("moved"));
  t.equal(await create(t, node, ["-c", node.path("moved"), "app"]), digest, "wherever it lies");
  const older = await create(t, node, ["-c", "./moved", "app"], { CONDA_OVERRIDE_GLIBC: "2.28" });
  t.same(await packagesIn(node, older), ["lib-1.0", "app-2.0"]);
});

test("channels over HTTP: repodata is revalidated, archives are fetched once", async (t) => {
  const node = await scene(t);
  const server = await ChannelServer.start(t, node.path("channel"));
  const token = `${server.url}/t/secret`;
  fs.mkdirSync(node.path("channel/t"));
  fs.symlinkSync(node.path("channel"), node.path("channel/t/secret"));
  const digest = await create(t, node, ["-c", server.url, "--lock", "lock.txt", "app"]);
  t.equal(server.take().filter((text) => text.endsWith(".conda")).length, 2);
  t.equal(await create(t, node, ["-c", server.url, "app"]), digest);
  t.same(server.take(), ["304 linux-64/repodata.json", "304 noarch/repodata.json"]);
  t.match(
    fs.readFileSync(node.path("lock.txt"), "utf8"),
    `${server.url}/linux-64/app-2.0-h0_0.conda#`,
  );
  t.equal(await create(t, node, ["lock.txt", "--store", node.path("other")]), digest);
  const secret = ["-c", token, "--lock", "secret.txt", "--store", node.path("third"), "app"];
  t.equal(await create(t, node, secret), digest, "a token changes nothing");
  t.notMatch(fs.readFileSync(node.path("secret.txt"), "utf8"), /secret/);
  const kept = fs.readdirSync(node.path("cache/repodata"), { recursive: true }) as string[];
  for (const name of kept) {
    t.notMatch(fs.readFileSync(node.path(`cache/repodata/${name}`), "utf8"), /secret/, name);
  }
  const alias = { CONDA_CHANNEL_ALIAS: server.url };
  fs.symlinkSync(node.path("channel"), node.path("channel/named"));
  t.same(await packagesIn(node, await create(t, node, ["-c", "named", "named::lib<1.5"], alias)), [
    "lib-1.0",
  ]);
  fs.mkdirSync(node.path("named"));
  const mixedUp = await node.run(["env", "create", "-c", "named", "lib"], { env: alias });
  t.match(mixedUp.stderr, `named is ${server.url}/named/; the directory here is ./named\n`);
});

test("environment.yml, conda-lock and pixi.lock give what the specs give", async (t) => {
  const node = await scene(t);
  const digest = await create(t, node, ["-c", "./channel", "app"]);
  node.file(
    "sub/environment.yml",
    "name: x\nchannels: [../channel, nodefaults]\ndependencies:\n  - app =2\n  - lib\n",
  );
  t.equal(await create(t, node, ["sub/environment.yml"]), digest, "its channels are beside it");
  node.file("other.yml", "channels:\n  - nowhere\ndependencies: [app]\nvariables: {A: b}\n");
  const other = await node.run(["env", "create", "--channel", "./channel", "other.yml"]);
  t.match(other, {
    code: 0,
    stdout: `${digest}\n`,
    stderr: /^other\.yml: its variables are not kept/,
  });
  const all = records(node);
  const facts = (name: string) => {
    const { md5, sha256, depends } = all[name] as {
      md5: string;
      sha256: string;
      depends: string[];
    };
    return { url: `file://${node.path(`channel/linux-64/${name}`)}`, md5, sha256, depends };
  };
  const entries = ["app-2.0-h0_0.conda", "lib-1.5-h0_0.conda"].map(facts);
  const condaLock = entries.map(({ url, md5, sha256, depends }) => ({
    name: path.basename(url).split("-")[0],
    manager: "conda",
    platform: "linux-64",
    dependencies: Object.fromEntries(depends.map((text) => [text.split(" ")[0], text])),
    url,
    hash: { md5, sha256 },
    category: "main",
    optional: false,
  }));
  const osx = { ...condaLock[0], platform: "osx-64", url: "https://h/osx-64/app-9-0.conda" };
  const metadata = { platforms: ["linux-64"], channels: [] };
  // JSON is YAML too; the real files of both tools are read in lock.test.ts.
  node.file(
    "conda-lock.yml",
    JSON.stringify({ version: 1, metadata, package: [osx, ...condaLock] }),
  );
  t.equal(await create(t, node, ["conda-lock.yml"]), digest);
  const pixi = [
    "version: 6",
    "environments:",
    "  default:",
    "    channels: []",
    "    packages:",
    "      linux-64:",
    ...entries.map(({ url }) => `      - conda: ${url}`),
    "  small:",
    "    channels: []",
    "    packages:",
    "      linux-64:",
    "      - conda: ./channel/linux-64/lib-1.0-h0_0.conda",
    "packages:",
    ...entries.map(
      ({ url, sha256, depends }) =>
        `- conda: ${url}\n  sha256: ${sha256}\n  depends: ${JSON.stringify(depends)}`,
    ),
    `- conda: ./channel/linux-64/lib-1.0-h0_0.conda\n  md5: ${facts("lib-1.0-h0_0.conda").md5}`,
  ];
  node.file("pixi.lock", `${pixi.join("\n")}\n`);
  t.equal(await create(t, node, ["pixi.lock"]), digest);
  const small = await create(t, node, ["pixi.lock", "--environment", "small"]);
  t.same(await packagesIn(node, small), ["lib-1.0"]);
  const none = await node.run(["env", "create", "pixi.lock", "--environment", "large"]);
  t.match(none, { code: 1, stderr: /no environment "large", but default, small.*BAD_LOCK/ });
});

/** Processes that a process started as its solver. */
function solversOf(pid: number): number[] {
  return fs.readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      const stat = fs.readFileSync(`/proc/${name}/stat`, "utf8");
      const isChild = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1] === String(pid);
      const words = isChild ? fs.readFileSync(`/proc/${name}/cmdline`, "utf8") : "";
      return words.includes("solve-child") ? [Number(name)] : [];
    } catch {
      return []; // it ended meanwhile
    }
  });
}

const isAlive = (pid: number) => fs.existsSync(`/proc/${pid}`);

test("a signal ends the solver with its command", async (t) => {
  const node = newNode(t);
  const listed: Listed[] = [];
  for (let i = 0; i < 400; i++) {
    for (let version = 0; version < 40; version++) {
      const depends = [7, 14, 21].filter((step) => i + step < 400);
      const bounds = `>=${version - 3},<${version + 2}`;
      const needs = depends.map((step) => `n${i + step} ${bounds}`);
      listed.push({ name: `n${i}`, version: `${version}.0`, depends: needs });
    }
  }
  node.file("channel/linux-64/repodata.json", repodataOf(listed));
  const child = node.start(["env", "create", "-c", "./channel", "n0", "n1", "n2", "n3"]);
  const ended = new Promise((resolve) => child.once("exit", resolve));
  let solvers: number[] = [];
  const isSolving = await until(() => {
    solvers = solversOf(child.pid!);
    return solvers.length > 0;
  });
  t.ok(isSolving, "a process of its own solves");
  child.kill("SIGTERM");
  t.equal(await ended, 143);
  t.ok(await until(() => !solvers.some(isAlive)), "which ends too");
});
