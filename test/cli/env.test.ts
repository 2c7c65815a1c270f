// Owns: proof that environments come out of packages and locks, are found again, and that a wrong, missing or stalled package is
// refused by name. Packages of other projects; skipped where these aren't. Plane: control.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { download } from "../../lib/cli/download.ts";
import { conda } from "../ingest/conda/packages.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { sleep, until } from "../suite/wait.ts";
import { checkRefused, DATA, newNode } from "./cli.ts";

const RECIPES = path.join(DATA, "conda/test-recipes-noarch");
const EMPTY = path.join(DATA, "rattler/packages/empty-0.1.0-h4616a5c_0.conda");
const SMALL = path.join(RECIPES, "small-executable-1.0-0.conda");
const NOARCH = path.join(RECIPES, "sample_noarch_python-1.0-py_0.conda");
const skip = [EMPTY, SMALL, NOARCH].every((file) => fs.existsSync(file))
  ? false
  : "the example packages are not here";

const hash = (kind: "md5" | "sha256", file: string) =>
  createHash(kind).update(fs.readFileSync(file)).digest("hex");

test("packages and locks give one digest, here and in another store", { skip }, async (t) => {
  const node = newNode(t);
  const first = await node.run(["env", "create", SMALL, EMPTY]);
  t.equal(first.code, 0, first.stderr);
  t.match(first.stdout, /^sha256:[0-9a-f]{64}\n$/);
  const again = await node.run(["env", "create", SMALL, EMPTY]);
  t.match(again, { stdout: first.stdout, stderr: /^$/ }, "nothing is imported again");
  const lock = `# a comment\n@EXPLICIT\n${SMALL}#sha256:${hash("sha256", SMALL)}\nfile://${EMPTY}#${hash("md5", EMPTY)}\n`;
  node.file("explicit.txt", lock);
  const locked = await node.run(["env", "create", "explicit.txt"]);
  t.match(locked, { stdout: first.stdout, stderr: /^$/ });
  const other = await node.run(["env", "create", SMALL, EMPTY, "--store", node.path("other")]);
  t.equal(other.stdout, first.stdout);
  const moved = await node.run(["env", "create", "--prefix", "/opt/x", "--json", "explicit.txt"]);
  t.equal(JSON.parse(moved.stdout).environment.prefix, "/opt/x");
  const digest = first.stdout.trim();
  const shown = await node.run(["env", "show", digest]);
  t.match(shown.stdout, /^prefix \/opt\/env, Python none, 2 packages\nsmall-executable +1\.0 /);
  const json = JSON.parse((await node.run(["env", "show", "--json", digest])).stdout);
  t.equal(json.snapshot, digest);
  t.equal(json.packages[0].sha256, hash("sha256", SMALL));
  t.equal(json.packages[0].url, `file://${SMALL}`, "with its folder");
  const abridged = await node.run([
    "env",
    "show",
    digest.slice(0, 13).toUpperCase().replace("SHA", "sha"),
  ]);
  t.equal(abridged.stdout, shown.stdout, "by its first digits");
  const listed = await node.run(["env", "ls"]);
  t.match(
    listed.stdout,
    new RegExp(`^snapshot .*\n(.*\n)?${digest} +/opt/env +none +2 `),
    "not compiled",
  );
  const all = JSON.parse((await node.run(["env", "ls", "--json"])).stdout) as object[];
  const packages = ["small-executable-1.0", "empty-0.1.0"];
  t.match(
    all.find((each) => Object.values(each).includes(digest)),
    { python: null, compiledFrom: null, packages },
  );
  t.equal(all.length, 2, "two prefixes");
  const layer = await node.run([
    "layer",
    "import",
    "--snapshot",
    "--json",
    node.file("t/a", "a").slice(0, -2),
  ]);
  const based = await node.run(["run", "--base", digest, "--", "ls"]);
  t.match(based, {
    code: 2,
    stderr: /is a conda environment, seen at \/opt\/env: give it to --env/,
  });
  const bundle = ["bundle", "--base", digest, "--id", "tools"];
  t.match(
    await node.run([...bundle, "volume", "--", "true"]),
    { code: 0, stdout: "tools\n", stderr: /a volume, to be mounted from .*\/mounts\/tools/ },
    "what other sandboxes mount",
  );
  t.match(await node.run([...bundle, "again", "--", "true"]), {
    code: 2,
    stderr: /bundle-rm tools/,
  });
  t.notOk(fs.existsSync(node.path("again")), "of a bundle that fails nothing is left");
  const bare = await node.run(["env", "show", JSON.parse(layer.stdout).snapshot]);
  t.match(bare, { code: 1, stderr: /no environment sha256:/ });
});

test("environments of equal files at two prefixes are two", async (t) => {
  const node = newNode(t);
  node.file("plain-1.0-0.conda", await conda({ files: [{ name: "share/x", content: "x" }] }));
  const made: string[] = [];
  for (const prefix of ["/opt/env", "/opt/x"]) {
    const { stdout } = await node.run(["env", "create", "--prefix", prefix, "plain-1.0-0.conda"]);
    made.push(stdout.trim());
  }
  for (const [i, prefix] of ["/opt/env", "/opt/x"].entries()) {
    const shown = await node.run(["env", "show", "--json", made[i]!]);
    t.equal(JSON.parse(shown.stdout).prefix, prefix, "neither took the other's place");
  }
  const again = await node.run(["env", "create", "--prefix", "/opt/env", "plain-1.0-0.conda"]);
  t.equal(again.stdout.trim(), made[0], "and each is what it was");
});

test("a token is used, and kept nowhere", async (t) => {
  const node = newNode(t);
  const name = "plain-1.0-0.conda";
  node.file(`channel/t/secret/linux-64/${name}`, await conda({}));
  const server = await OriginServer.start(node.path("channel"));
  t.teardown(() => server.close());
  const url = `${server.url}/t/secret/linux-64/${name}`;
  const made = await node.run(["env", "create", "--json", url]);
  t.equal(made.code, 0, made.stderr);
  const { snapshot } = JSON.parse(made.stdout) as { snapshot: string };
  const shown = await node.run(["env", "show", "--json", snapshot]);
  t.equal(JSON.parse(shown.stdout).packages[0].url, url.replace("/t/secret", ""));
  const kept = spawnSync("grep", ["-rl", "secret", node.store], { encoding: "utf8" });
  t.match(kept, { status: 1, stdout: /^$/ }, "not in the store");
});

test("what can't be an environment is refused by name", { skip }, async (t) => {
  const node = newNode(t);
  const create = ["env", "create"];
  const name = path.basename(SMALL);
  node.file("wrong.txt", `@EXPLICIT\n${SMALL}#sha256:${"1".repeat(64)}\n`);
  node.file("md5.txt", `@EXPLICIT\n${SMALL}#${"1".repeat(32)}\n`);
  node.file("hash.txt", `@EXPLICIT\n${SMALL}#12\n`);
  node.file("plain.txt", `${SMALL}\n`);
  node.file("empty.txt", "@EXPLICIT\n");
  node.file("cut-1.0-0.conda", fs.readFileSync(SMALL).subarray(0, 300));
  const cases: [string[], RegExp, number][] = [
    [["wrong.txt"], new RegExp(`sha256 .*package: ${name}.*BURROW_DIGEST_MISMATCH`), 1],
    [["md5.txt"], new RegExp(`md5 .*package: ${name}.*BURROW_DIGEST_MISMATCH`), 1],
    [["hash.txt"], /hash\.txt:2: .* no md5 or sha256.*BURROW_BAD_LOCK/, 1],
    [["plain.txt"], /plain\.txt:1: an @EXPLICIT line must come.*"conda list --explicit/, 1],
    [["numpy"], /"numpy" is no file, and as a spec it needs a channel.*BURROW_USAGE/, 2],
    [["empty.txt"], /names no packages.*BURROW_BAD_LOCK/, 1],
    [["cut-1.0-0.conda"], /cut-1\.0-0\.conda.*BURROW_BAD_ARCHIVE/, 1],
    [["nosuch-1-0.conda"], /nosuch-1-0\.conda.*BURROW_NOT_FOUND/, 1],
    [[SMALL, "empty.txt"], /give one lock, or packages.*BURROW_USAGE/, 2],
    [["--prefix", "opt", SMALL], /--prefix: "opt" is no absolute path/, 2],
    [[NOARCH], /no Python .*package: sample_noarch_python.*BURROW_BAD_LOCK/, 1],
  ];
  await checkRefused(
    t,
    node,
    cases.map(([words, line, code]) => [[...create, ...words], line, code]),
  );
  t.equal((await node.run([...create, "--python", "3.11", NOARCH])).code, 0);
});

test("packages are downloaded; 404, silence and a hang-up are errors that name the URL", {
  skip,
}, async (t) => {
  const node = newNode(t);
  const server = await OriginServer.start(RECIPES);
  t.teardown(() => server.close());
  const name = path.basename(SMALL);
  const url = `${server.url}/${name}`;
  node.file("lock", `@EXPLICIT\n${url}#${hash("sha256", SMALL)}\n`);
  server.fault = (_path, count) => (count === 1 ? "503" : "none");
  const made = await node.run(["env", "create", "lock"]);
  t.equal(made.code, 0, made.stderr);
  t.equal(server.requests.length, 2, "a busy server is asked again");
  t.equal((await node.run(["env", "create", "lock"])).stdout, made.stdout);
  t.equal(server.requests.length, 2, "what the store has is not downloaded");
  const missing = await node.run(["env", "create", `${server.url}/gone-1-0.conda`]);
  t.match(missing, {
    code: 1,
    stderr: /HTTP status 404 \[url: .*gone-1-0\.conda\] \(BURROW_ORIGIN\)/,
  });
  server.fault = () => "flip";
  const flipped = await node.run(["env", "create", `${url}#${hash("md5", SMALL)}`]);
  t.match(flipped, { code: 1, stderr: /BURROW_DIGEST_MISMATCH/ });
  t.same(fs.readdirSync(node.env["TMPDIR"]!), [], "no scratch stays");
  const options = { stallMs: 200, pauseMs: 10 };
  for (const [fault, code, text] of [
    ["stall-body", "BURROW_TIMEOUT", /silent for 0\.2 s/],
    ["stall-headers", "BURROW_TIMEOUT", /silent for 0\.2 s/],
    ["short-body", "BURROW_ORIGIN", /the connection failed/],
    ["reset", "BURROW_ORIGIN", /the connection failed/],
  ] as const) {
    server.fault = () => fault;
    await t.rejects(
      download(url, node.dir, options),
      { code, message: text, context: { url } },
      fault,
    );
  }
  server.fault = () => "slow";
  const early = node.start(["env", "create", url]);
  const seen = server.requests.length;
  t.ok(await until(() => server.requests.length > seen));
  await sleep(100);
  const ended = new Promise((resolve) => early.once("exit", resolve));
  early.kill("SIGINT");
  t.equal(await ended, 130);
  t.same(fs.readdirSync(node.env["TMPDIR"]!), [], "no scratch stays after a signal");
});
