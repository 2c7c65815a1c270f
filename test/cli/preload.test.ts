// Owns: proof that burrow preload does what it says is done: stores filled and caches warmed as env create and a sandbox would have
// them, by many workers, in bounded memory, and says how far it is. Plane: control.

import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { exitOf } from "../conformance/runsc.ts";
import { conda } from "../ingest/conda/packages.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { MAIN, newNode, type Outcome } from "./cli.ts";
import { ALL, askedOf, channel, eventsOf, fileName, lastOf } from "./package-channel.ts";

test("a preload leaves what env create makes, and a warm cache; another has nothing to do", async (t) => {
  const { node, server, lock } = await channel(t);
  node.file("lock.txt", lock(...ALL));
  const first = await node.run(["preload", "--jobs", "2", "lock.txt"]);
  t.equal(first.code, 0, first.stderr);
  t.match(first.stdout, /^sha256:[0-9a-f]{64}\n$/);
  t.match(first.stderr, /^\[1\/6\] \S+\.conda: \d+ files, .* new in the store/m);
  t.match(
    first.stderr,
    /\n6 packages: 6 ingested, 0 already there, 0 failed; fetched 60\d\.\d kB; .*; on this node \d+ files more \(60\d\.\d kB\), 0 already there; \d+\.\d s\n$/,
  );
  t.same(askedOf(server), [...ALL].sort(), "each is fetched once");
  t.same(fs.readdirSync(path.join(node.cache, "packages")), []);
  const other = ["--store", node.path("other")];
  const created = await node.run(["env", "create", ...other, "lock.txt"]);
  t.equal(created.stdout, first.stdout, "the same digest");
  const asked = server.requests.length;
  await server.close();
  const again = await node.run(["preload", "--json", "lock.txt"]);
  t.equal(again.code, 0, again.stderr);
  t.equal(server.requests.length, asked);
  t.match(lastOf(again), {
    event: "summary",
    packages: 6,
    ingested: 0,
    present: 6,
    fetchedBytes: 0,
    storedBytes: 0,
    warmedBlobs: 0,
  });
  // One that was killed when all had come: it is swept by one that has nothing to bring.
  fs.mkdirSync(path.join(node.state, "runs", "killed@00000000-1-1-1"), { recursive: true });
  fs.mkdirSync(path.join(node.state, "mounts", "killed"), { recursive: true });
  // What is said to be on this node is there without a store.
  fs.renameSync(node.store, node.path("gone"));
  const warm = await node.run(["preload", first.stdout.trim()]);
  t.match(warm, { code: 0, stderr: /: \d+ files, all on this node, 0 of them new/ });
  t.same(node.leftovers(), []);
});

test("a digest is brought to this node from a store behind HTTP", async (t) => {
  const { node, lock } = await channel(t);
  node.file("lock.txt", lock(...ALL));
  const { stdout } = await node.run(["preload", "--no-warm", "--to", "built", "lock.txt"]);
  t.equal(fs.existsSync(path.join(node.cache, "blobs")), false, "--no-warm leaves no blobs");
  const store = await OriginServer.start(node.path("built"));
  t.teardown(() => store.close());
  const warm = await node.run(["preload", "--json", "--store", store.url, stdout.trim()]);
  t.equal(warm.code, 0, warm.stderr);
  const { warmedBlobs, warmedBytes } = lastOf(warm);
  const begun = eventsOf(warm).find(({ event }) => event === "warming");
  t.match(begun, { snapshot: stdout.trim(), bytes: warmedBytes, presentBytes: 0 });
  const shown = await node.run(["cache", "show", "--json"]);
  t.equal(JSON.parse(shown.stdout).blobs, warmedBlobs);
  t.equal(store.requests.filter(({ path: name }) => name.startsWith("packs/")).length <= 6, true);
  store.fault = () => "404";
  const typo = await node.run(["preload", "sha256:nope"]);
  t.match(typo, { code: 2, stderr: /^burrow: "sha256:nope" is no digest.*\n$/ });
  const unknown = await node.run(["preload", "--store", store.url, `sha256:${"1".repeat(64)}`]);
  t.match(unknown, { code: 1, stderr: /no layer or snapshot sha256:1{64}.*BURROW_NOT_FOUND/ });
  const verified = await node.run(["cache", "verify"]);
  t.match(verified, { code: 0, stderr: `checking ${node.cache}\n`, stdout: /^\d+ files, 0 of/ });
  const cleared = await node.run(["cache", "clear", "--json"]);
  t.equal(cleared.stderr, "");
  t.match(JSON.parse(cleared.stdout), { blobs: warmedBlobs });
  t.match(JSON.parse((await node.run(["cache", "show", "--json"])).stdout), { blobs: 0 });
  const cold = await node.run(["preload", "--store", node.path("built"), stdout.trim()]);
  const lines =
    /^sha256:\w+: bringing (\S+ kB) of \1 to this node\n.*all on this node.*\n.*; \S+ s\n$/;
  t.match(cold.stderr, lines, "no line of packages where there are none");
  const again = await node.run(["cache", "clear"]);
  t.equal(again.stderr, `clearing ${node.cache}\n`);
});

test("long work shows on a terminal how far it is", {
  skip: spawnSync("script", ["--version"]).status === 0 ? false : "no script(1)",
}, async (t) => {
  const { node, lock } = await channel(t);
  node.file("lock.txt", lock(...ALL));
  const shown = (words: string) => {
    // Wide enough for the paths of any folder of temporary files.
    const command = `stty cols 400; ${process.execPath} --no-warnings ${MAIN} ${words} >/dev/null`;
    const options = { env: node.env, cwd: node.dir, encoding: "utf8" } as const;
    return spawnSync("script", ["-qec", command, "/dev/null"], options).stdout;
  };
  const digest = (await node.run(["preload", "lock.txt"])).stdout.trim();
  t.match(shown("store verify"), /\r\x1b\[Kchecking \S+: \d+ indexes, \d+ packs.*\r\x1b\[K$/s);
  t.match(shown("cache verify"), /\r\x1b\[Kchecking .*\r\x1b\[K$/s);
  t.match(shown("store stats"), /\r\x1b\[Kread 1 index\r/);
  t.match(shown("cache clear"), /\r\x1b\[Kclearing .*\r\x1b\[K$/s);
  const warm = shown(`preload ${digest}`);
  t.match(warm, /warm sha256:\w+: \[-{20}\] {3}0% of/);
  t.notMatch(warm, /packages/);
});

test("a profile says what is brought to this node", async (t) => {
  const { node, lock } = await channel(t);
  node.file("lock.txt", lock(...ALL));
  node.file("profile", "# two of all\n/opt/env/share/aa\n\nbin/../share/bb\r\n/none\n");
  const made = await node.run(["preload", "--json", "--profile", "profile", "lock.txt"]);
  t.equal(made.code, 0, made.stderr);
  const warmed = eventsOf(made).find(({ event }) => event === "warmed")!;
  t.match(warmed, { fetchedBlobs: 2, fetchedBytes: 300_000, missing: ["/none"] });
  const again = ["preload", "--profile", "profile", String(warmed["snapshot"])];
  t.match((await node.run(again)).stderr, /: 2 files, .*, 0 of them new.*lacks 1 .*: \/none/s);
  node.file("bad", "/a\nshare/\0aa\n");
  for (const [words, code, text] of [
    [["--profile", "bad"], 2, /bad:2: "share\/\?aa" is no path.*BURROW_USAGE/],
    [["--profile", "gone"], 1, /can't read the profile gone.*BURROW_NOT_FOUND/],
    [["--profile", "profile", "--no-warm"], 2, /--no-warm.*BURROW_USAGE/],
  ] as const) {
    t.match(await node.run(["preload", ...words, "lock.txt"]), { code, stderr: text });
  }
});

test("what several lists share is fetched and made once; an md5 is enough to know it again", async (t) => {
  const { node, server, lock, line } = await channel(t);
  node.file("one.txt", lock("python", "aa", "bb"));
  node.file("two.txt", lock("python", "aa", "cc"));
  const md5 = ["python", "aa", "dd"].map((name) => line(name, "md5")).join("");
  node.file("md5.txt", `@EXPLICIT\n${md5}`);
  const both = await node.run(["preload", "--no-warm", "--json", "one.txt", "two.txt"]);
  t.equal(both.code, 0, both.stdout);
  t.same(askedOf(server), ["aa", "bb", "cc", "python"]);
  t.match(lastOf(both), { packages: 6, ingested: 4, present: 2 });
  const first = await node.run(["preload", "--no-warm", "--json", "md5.txt"]);
  t.match(lastOf(first), { packages: 3, ingested: 1, present: 2 });
  const asked = server.requests.length;
  const next = await node.run(["preload", "--no-warm", "--json", "md5.txt"]);
  t.match(lastOf(next), { packages: 3, ingested: 0, present: 3 });
  t.equal(server.requests.length, asked);
});

test("a package cache that others own is read, never believed, and never written", async (t) => {
  const { node, server, lock, file } = await channel(t);
  node.file("lock.txt", lock("python", "aa", "bb"));
  node.file(`pkgs/${fileName("python")}`, fs.readFileSync(file("python")));
  node.file(`pkgs/linux-64/${fileName("aa")}`, fs.readFileSync(file("aa")));
  node.file(`pkgs/${fileName("bb")}`, randomBytes(5000));
  const facts = () =>
    fs.readdirSync(node.path("pkgs"), { recursive: true }).map((name) => {
      const { size, mtimeMs, ctimeMs } = fs.statSync(path.join(node.path("pkgs"), String(name)));
      return [name, size, mtimeMs, ctimeMs];
    });
  const before = facts();
  const folders = ["--packages", "none", "--packages", "pkgs"];
  const outcome = await node.run(["preload", "--no-warm", ...folders, "lock.txt"]);
  t.match(outcome.stderr, /^--packages: none is no directory: passed over\n/);
  t.equal(outcome.code, 0, outcome.stderr);
  t.same(askedOf(server), ["bb"], "what was another file is fetched");
  t.same(facts(), before);
});

test("no end of jobs takes more memory than was given", async (t) => {
  const { node, lock } = await channel(t, []);
  const names = ["ba", "be", "bi", "bo", "bu", "by"];
  for (const name of names) {
    const files = [{ name: `lib/${name}.so`, content: randomBytes(20_000_000) }];
    node.file(`channel/linux-64/${fileName(name)}`, await conda({ index: { name }, files }));
  }
  node.file("lock.txt", lock(...names));
  const peak = async (memory: string): Promise<number> => {
    const words = ["preload", "--no-warm", "--jobs", "6", "--memory", memory];
    const child = node.start([...words, "--to", node.path(memory), "lock.txt"]);
    child.stderr!.resume();
    child.stdout!.resume();
    let peakBytes = 0;
    const look = () => {
      try {
        const text = fs.readFileSync(`/proc/${child.pid}/status`, "utf8");
        peakBytes = Math.max(peakBytes, 1024 * Number(/VmHWM:\s+(\d+)/.exec(text)?.[1] ?? 0));
      } catch {} // it has just ended
    };
    const timer = setInterval(look, 20);
    t.equal(await exitOf(child), 0);
    clearInterval(timer);
    return peakBytes;
  };
  const bytes = await peak("300M");
  // The program itself, with one idle thread, takes about 100 MB.
  t.ok(bytes > 0 && bytes < 420_000_000, `${bytes}`);
});

test("on a terminal there are bars, which are gone in the end", async (t) => {
  const { node, lock } = await channel(t);
  node.file("lock.txt", lock(...ALL));
  if (spawnSync("script", ["--version"]).status !== 0) {
    t.comment("skipped: no script(1)");
    return;
  }
  const main = path.resolve(import.meta.dirname, "../../../dist/burrow.cjs");
  const command = `stty rows 24 cols 100; ${process.execPath} --no-warnings ${main} preload lock.txt >/dev/null`;
  const child = spawn("script", ["-qec", command, "/dev/null"], { cwd: node.dir, env: node.env });
  let stdout = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  await new Promise((resolve) => child.once("close", resolve));
  t.match(stdout, /\[#*-*\] +\d+% \d of 6 packages, fetched /);
  const last = stdout.slice(stdout.lastIndexOf("\x1b[J") + 3);
  t.match(last, /^6 packages: 6 ingested, 0 already there, 0 failed; .* s\r\n$/);
});

test("what can't be is refused before anything is done", async (t) => {
  const node = newNode(t);
  const cases: [string[], RegExp][] = [
    [["--jobs", "0", "x"], /--jobs: "0" is no number from 1 to 256/],
    [["--jobs", "many", "x"], /--jobs: "many"/],
    [["--memory", "1", "x"], /--memory: "1" is no size/],
    [["--prefix", "opt", "x"], /--prefix: "opt" is no absolute path/],
    [[], /missing required argument 'source'/],
  ];
  const check = async ([words, pattern]: [string[], RegExp]) => {
    const outcome: Outcome = await node.run(["preload", ...words]);
    t.match(outcome, { code: 2, stdout: "", stderr: pattern });
  };
  await Promise.all(cases.map(check));
  t.equal(fs.existsSync(node.store), false);
  t.match(await node.run(["preload", "nosuch.txt"]), {
    code: 1,
    stderr: /^burrow: there is no file nosuch\.txt \(BURROW_NOT_FOUND\)$/m,
  });
  t.match(await node.run(["cache", "show"]), { code: 1, stderr: /there is no cache/ });
});
