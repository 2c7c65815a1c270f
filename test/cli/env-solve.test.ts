// Owns: proof that specs, environment.yml and locks in YAML become environments: the same packages give the same digest whichever
// way they were named, and a channel that lies of an archive is refused. Plane: control.

import fs from "node:fs";
import path from "node:path";
import { type Test, test } from "tap";
import { ChannelServer, type Listed, writeChannel } from "../ingest/conda/channels.ts";
import { type Node, newNode } from "./cli.ts";

const PACKAGES: readonly Listed[] = [
  { name: "app", version: "2.0", depends: ["lib >=1", "__glibc >=2.17"] },
  { name: "lib", version: "1.0" },
  { name: "lib", version: "1.5", depends: ["__glibc >=2.30"] },
];
const GLIBC = { CONDA_OVERRIDE_GLIBC: "2.36" };

/** A node with a channel of PACKAGES in its directory. */
async function scene(t: Test, packages = PACKAGES): Promise<Node> {
  const node = newNode(t);
  Object.assign(node.env, GLIBC);
  await writeChannel(node.path("channel"), packages);
  return node;
}

/** Runs env create, and gives the digest. */
async function create(t: Test, node: Node, words: string[], env = {}): Promise<string> {
  const { code, stdout, stderr } = await node.run(["env", "create", ...words], { env });
  t.equal(code, 0, `${words.join(" ")}: ${stderr}`);
  return stdout.trim();
}

async function packagesIn(node: Node, digest: string): Promise<string[]> {
  const { stdout } = await node.run(["env", "show", "--json", digest]);
  const { packages } = JSON.parse(stdout) as { packages: { name: string; version: string }[] };
  return packages.map(({ name, version }) => `${name}-${version}`);
}

/** The records of the node's channel by name and version. */
function records(node: Node): Record<string, Record<string, unknown>> {
  const text = fs.readFileSync(node.path("channel/linux-64/repodata.json"), "utf8");
  return JSON.parse(text)["packages.conda"];
}

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

test("an archive that is not what its channel says is refused", async (t) => {
  const node = await scene(t);
  const server = await ChannelServer.start(t, node.path("channel"));
  const file = node.path("channel/linux-64/repodata.json");
  const text = fs.readFileSync(file, "utf8");
  const lie = (fields: object, fileName = "lib-1.0-h0_0.conda") => {
    const record = { ...records(node)["lib-1.0-h0_0.conda"], ...fields };
    fs.writeFileSync(file, JSON.stringify({ "packages.conda": { [fileName]: record } }));
  };
  const size = records(node)["lib-1.0-h0_0.conda"]!["size"] as number;
  const renamed = "lib-1.1-h0_0.conda";
  const archive = fs.readFileSync(node.path("channel/linux-64/lib-1.0-h0_0.conda"));
  fs.writeFileSync(node.path(`channel/linux-64/${renamed}`), archive);
  const cases: [string, () => void, RegExp][] = [
    ["sha256", () => lie({ sha256: "0".repeat(64) }), /sha256 is not as expected.*DIGEST_MISMATCH/],
    ["md5", () => lie({ md5: "0".repeat(32), sha256: null }), /md5 is not.*DIGEST_MISMATCH/],
    ["a larger size", () => lie({ size: size + 1 }), /size is not as expected.*DIGEST_MISMATCH/],
    [
      "another version, of the right hash",
      () => lie({ version: "1.1" }, renamed),
      /not the lib-1\.1-h0_0 it is listed as \[package: lib-1\.0-h0_0, .*BURROW_BAD_REPODATA/,
    ],
    ["a path", () => lie({}, "../lib-1.0-h0_0.conda"), /name is a path.*BURROW_BAD_REPODATA/],
  ];
  for (const [what, change, pattern] of cases) {
    fs.writeFileSync(file, text);
    change();
    for (const channel of what === "sha256" ? ["./channel", server.url] : ["./channel"]) {
      const made = await node.run(["env", "create", "-c", channel, "lib"]);
      t.match(made, { code: 1, stdout: "" }, what);
      t.match(made.stderr, pattern, what);
    }
  }
  fs.writeFileSync(file, text);
  lie({ size: size - 1 });
  const cut = await node.run(["env", "create", "-c", server.url, "lib"]);
  t.match(cut.stderr, /it has more than \d+ bytes.*BURROW_ORIGIN/, "no more is fetched than said");
  fs.writeFileSync(file, text);
  t.same(await packagesIn(node, await create(t, node, ["-c", server.url, "lib=1.0"])), ["lib-1.0"]);
});

test("what can't be solved or makes no sense is refused by name", async (t) => {
  const node = await scene(t);
  node.file("pip.yml", "channels: [./channel]\ndependencies: [app, {pip: [requests]}]\n");
  node.file("list.yml", "- app\n");
  node.file("other.yml", "services: {}\n");
  node.file("bad.yml", "dependencies: [app\n");
  const channel = ["--channel", "./channel"];
  const cases: [string[], RegExp, number][] = [
    [
      [...channel, "app", "lib<1"],
      /No candidates were found for lib <1.*\(BURROW_UNSOLVABLE\)/s,
      1,
    ],
    [["app", "lib"], /specs need a channel: --channel/, 2],
    [[...channel, "app>>>1"], /can't read a spec.*BURROW_USAGE/, 2],
    [["--channel", "./nowhere", "app"], /no channel: .*nowhere.*BURROW_NOT_FOUND/, 1],
    [["--channel", "a b", "app"], /"a b" is no channel.*BURROW_USAGE/, 2],
    [[...channel, "conda-forge::app"], /conda-forge is none of the channels given/, 2],
    [["pip.yml"], /pip\.yml: it has a pip section.*BURROW_BAD_LOCK/, 1],
    [["list.yml"], /list\.yml: it is no lock and no environment file.*BURROW_BAD_LOCK/, 1],
    [["other.yml"], /other\.yml is none of these: .*environment\.yml.*BURROW_BAD_LOCK/, 1],
    [["bad.yml"], /bad\.yml: it is no YAML: .*BURROW_BAD_LOCK/, 1],
    [["nowhere.yml"], /can't read the lock nowhere\.yml.*BURROW_NOT_FOUND/, 1],
    [["pip.yml", "app"], /pip\.yml is no package file or URL.*BURROW_USAGE/, 2],
    [
      [...channel, "channel/linux-64/app-2.0-h0_0.conda"],
      /--channel has no meaning for packages/,
      2,
    ],
    [["--environment", "x", ...channel, "app"], /--environment has no meaning for specs/, 2],
  ];
  const outcomes = await Promise.all(cases.map(([words]) => node.run(["env", "create", ...words])));
  for (const [i, { code, stdout, stderr }] of outcomes.entries()) {
    const [words, pattern, expected] = cases[i]!;
    t.equal(code, expected, words.join(" "));
    t.equal(stdout, "");
    t.match(stderr, pattern);
    t.notMatch(stderr, /BURROW_INTERNAL/);
  }
  const odd = await node.run(["env", "create", ...channel, "app"], {
    env: { CONDA_OVERRIDE_GLIBC: "x" },
  });
  t.match(odd, { code: 2, stderr: /CONDA_OVERRIDE_GLIBC="x" is no version.*BURROW_USAGE/ });
  const absent = await node.run(["env", "create", ...channel, "app"], {
    env: { CONDA_OVERRIDE_GLIBC: "" },
  });
  t.match(
    absent,
    { code: 1, stderr: /__glibc.*BURROW_UNSOLVABLE/s },
    "an empty override takes it away",
  );
});
