// Owns: proof that burrow preload, ended in the middle by a kill, by Ctrl-C or by what fails, names what isn't done, has done the rest, and
// goes on from there. Plane: control.

import { type ChildProcess, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { ownOwner } from "../../lib/sys/owner.ts";
import { exitOf } from "../conformance/runsc.ts";
import { conda } from "../ingest/conda/packages.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { until } from "../suite/wait.ts";
import { Node } from "./cli.ts";
import { ALL, askedOf, channel, eventsOf, fileName, lastOf, sumOf } from "./package-channel.ts";

/** An owner that is no more: its pid is another's. */
function endedOwner(): string {
  const [boot, namespace] = ownOwner().split("-");
  return [boot, namespace, String(process.pid), "1"].join("-");
}

/** A command under way and what it said so far on stdout. */
function started(node: Node, words: string[]): { child: ChildProcess; out: () => string } {
  const child = node.start(words);
  let out = "";
  child.stdout!.setEncoding("utf8").on("data", (text: string) => {
    out += text;
  });
  child.stderr!.resume();
  return { child, out: () => out };
}

const ingestedIn = (out: string) =>
  eventsOf({ stdout: out.slice(0, out.lastIndexOf("\n") + 1) })
    .filter(({ event }) => event === "ingested")
    .map((event) => String(event["package"]).split("-")[0]!)
    .sort();

test("a store that gives nothing is given up, not asked for each file", async (t) => {
  // The daemon tries each request for some seconds: the store may come back.
  const node = new Node(120_000);
  t.teardown(() => node.close());
  const files = Array.from({ length: 600 }, (_, i) => {
    return { name: `share/${i}`, content: randomBytes(20_000) };
  });
  node.file("many-1.0-h0_0.conda", await conda({ index: { name: "many" }, files }));
  const made = await node.run(["env", "create", "--quiet", "many-1.0-h0_0.conda"]);
  t.equal(made.code, 0, made.stderr);
  const store = await OriginServer.start(node.store);
  t.teardown(() => store.close());
  store.fault = (name) => (name.startsWith("packs/") ? "whole" : "none");
  const warm = await node.run(["preload", "--store", store.url, made.stdout.trim()]);
  t.match(warm, { code: 1, stderr: /the origin must serve ranges.*BURROW_ORIGIN/ });
  t.ok(store.count("packs") < 600, `${store.count("packs")} requests`);
});

test("killed in the middle, it goes on: nothing done is fetched again", async (t) => {
  const { node, server, lock, file } = await channel(t);
  node.file("lock.txt", lock(...ALL));
  server.fault = (name) =>
    name.includes("/cc-") ? "slow" : name.includes("/dd-") ? "stall-headers" : "none";
  const { child, out } = started(node, ["preload", "--json", "--jobs", "2", "lock.txt"]);
  const packages = path.join(node.cache, "packages");
  const half = fs.statSync(file("cc")).size >> 1;
  const parts = () =>
    fs.readdirSync(packages).filter((name) => {
      return name.includes(".part@") && fs.statSync(path.join(packages, name)).size >= half;
    });
  t.ok(await until(() => ingestedIn(out()).length === 4 && parts().length === 1), out());
  t.same(ingestedIn(out()), ["aa", "bb", "pure", "python"]);
  child.kill("SIGKILL");
  await exitOf(child);
  server.fault = () => "none";
  const asked = server.requests.length;
  const next = await node.run(["preload", "--json", "--jobs", "2", "lock.txt"]);
  t.equal(next.code, 0, next.stderr);
  const [cc, dd] = askedOf(server, asked);
  t.match(cc, /^cc bytes=\d+-$/, "the half is gone on with");
  t.ok(Number(/\d+/.exec(cc!)) >= half, `${cc}`);
  t.equal(dd, "dd");
  t.equal(server.requests.length, asked + 2);
  t.match(lastOf(next), { ingested: 2, present: 4, failed: 0 });
  t.same(fs.readdirSync(packages), []);
  const created = await node.run(["env", "create", "--store", node.path("other"), "lock.txt"]);
  const made = eventsOf(next).find(({ event }) => event === "environment");
  t.equal(made?.["snapshot"], created.stdout.trim());
});

test("Ctrl-C says what is done, and leaves no process", async (t) => {
  const { node, server, lock } = await channel(t);
  node.file("lock.txt", lock(...ALL));
  server.fault = (name) => (name.includes("/dd-") ? "stall-body" : "none");
  const child = node.start(["preload", "--jobs", "2", "lock.txt"]);
  let text = "";
  child.stderr!.setEncoding("utf8").on("data", (more: string) => {
    text += more;
  });
  t.ok(await until(() => text.includes("[5/6]")), text);
  child.kill("SIGINT");
  t.equal(await exitOf(child), 130);
  t.ok(await until(() => text.endsWith("\n") && text.includes("interrupted")));
  t.match(
    text,
    /\ninterrupted: 5 of 6 packages in the store; the same command goes on from here\n$/,
  );
  t.ok(await until(() => node.processes().length === 0), node.processes().join("\n"));
  server.fault = () => "none";
  t.match(await node.run(["preload", "--no-warm", "lock.txt"]), {
    code: 0,
    stderr: /6 packages: 1 ingested, 5 already there/,
  });
});

test("archives that an ended command left: right, wrong and cut ones", async (t) => {
  const { node, server, lock, file } = await channel(t);
  node.file("lock.txt", lock("aa", "bb", "cc"));
  const left = (name: string, kind: string, bytes: Uint8Array) => {
    const hash = sumOf("sha256", fs.readFileSync(file(name)));
    node.file(`cache/packages/${hash}.${kind}@${endedOwner()}`, bytes);
  };
  left("aa", "whole", fs.readFileSync(file("aa")));
  left("bb", "whole", randomBytes(1000));
  left("cc", "part", randomBytes(1000));
  const outcome = await node.run(["preload", "--no-warm", "--json", "lock.txt"]);
  t.equal(outcome.code, 0, outcome.stdout);
  t.same(askedOf(server), ["bb", "cc", "cc bytes=1000-"], "what was wrong is fetched whole");
  t.same(fs.readdirSync(path.join(node.cache, "packages")), []);
});

test("a bad package, a dead origin and a missing file are named; the rest is done", async (t) => {
  const { node, server, lock, line, file } = await channel(t);
  const closed = await OriginServer.start(node.dir);
  await closed.close();
  const dead = `${closed.url}/linux-64/gone-1.0-h0_0.conda`;
  const wrong = `${server.url}/linux-64/${fileName("bb")}#sha256:${"1".repeat(64)}\n`;
  const cut = node.file(
    "channel/linux-64/cut-1.0-h0_0.conda",
    fs.readFileSync(file("cc")).subarray(0, 300),
  );
  const cutLine = `${server.url}/linux-64/${path.basename(cut)}#sha256:${sumOf("sha256", fs.readFileSync(cut))}\n`;
  node.file(
    "bad.txt",
    `@EXPLICIT\n${line("aa")}${wrong}${cutLine}${dead}\n${server.url}/linux-64/no-1.0-h0_0.conda\n`,
  );
  node.file("good.txt", lock("aa", "dd"));
  node.file("none.txt", "@EXPLICIT\n");
  const { code, stdout, stderr } = await node.run(["preload", "bad.txt", "good.txt", "none.txt"]);
  t.equal(code, 1);
  t.match(stdout, /^sha256:[0-9a-f]{64}\n$/, "the good one's digest alone");
  const label = (name: string) => `burrow: ${name}-1\\.0-h0_0\\.conda from http\\S+${name}\\S+: `;
  for (const [name, why] of [
    ["bb", "the archive's sha256 is not as expected .*\\(BURROW_DIGEST_MISMATCH\\)"],
    ["cut", ".*\\(BURROW_BAD_ARCHIVE\\)"],
    [
      "gone",
      "can't download the package: the connection failed .*ECONNREFUSED.*\\(BURROW_ORIGIN\\)",
    ],
    ["no", "can't download the package: HTTP status 404 .*\\(BURROW_ORIGIN\\)"],
  ] as const) {
    t.match(stderr, new RegExp(`^${label(name)}${why}$`, "m"));
  }
  t.match(stderr, /^burrow: none\.txt: the lock names no packages \(BURROW_BAD_LOCK\)$/m);
  t.match(stderr, /7 packages: \d ingested, \d already there, 4 failed;/);
  t.notMatch(stderr, /BURROW_INTERNAL/);
  const again = await node.run(["preload", "--no-warm", "--json", "bad.txt"]);
  t.match(lastOf(again), { present: 1, failed: 4, failures: 4 }, "none was believed");
  t.equal(again.code, 1);
});

test("without its Python a list can't be; others can", async (t) => {
  const { node, server, lock } = await channel(t);
  node.file("lock.txt", lock("python", "pure", "aa"));
  node.file("other.txt", lock("bb"));
  server.fault = (name) => (name.includes("/python-") ? "404" : "none");
  const outcome = await node.run(["preload", "--no-warm", "lock.txt", "other.txt"]);
  t.equal(outcome.code, 1);
  t.match(
    outcome.stderr,
    /pure-1\.0-h0_0\.conda from .*: it was not tried: the Python of its list/,
  );
  t.match(outcome.stderr, /4 packages: 1 ingested, 0 already there, 3 failed/);
  server.fault = () => "none";
  t.equal((await node.run(["preload", "--no-warm", "lock.txt"])).code, 0);
});

test("a full disk ends it with its name; with space it goes on", async (t) => {
  const { node, lock } = await channel(t);
  const disk = node.path("disk");
  fs.mkdirSync(disk);
  const mount = ["-t", "tmpfs", "-o", "size=300k", "burrow-test", disk];
  if (process.getuid?.() !== 0 || spawnSync("mount", mount).status !== 0) {
    t.comment("skipped: mounting a tmpfs needs root");
    return;
  }
  t.teardown(() => spawnSync("umount", [disk]));
  node.file("lock.txt", lock("aa", "bb", "cc", "dd"));
  const full = await node.run(["preload", "--no-warm", "--jobs", "1", "--to", disk, "lock.txt"]);
  t.equal(full.code, 1);
  t.match(full.stderr, /^burrow: \w\w-1\.0-h0_0\.conda from .*ENOSPC.* \(BURROW_NO_SPACE\)$/m);
  t.equal(full.stdout, "");
  t.same(fs.readdirSync(path.join(disk, "tmp")), [], "nothing half is left");
  spawnSync("mount", ["-o", "remount,size=4m", disk]);
  const next = await node.run(["preload", "--no-warm", "--to", disk, "lock.txt"]);
  t.equal(next.code, 0, next.stderr);
});
