// Varnish as a shared tier, by the configuration that docs/origins.md gives (pitfalls B5, B7): what it makes of ranges, that the second node
// costs the origin nothing, that it is no error when it is killed, empty, forgetful or has kept something wrong. Varnish is Debian's, unpacked by
// fixtures/varnish.sh, or of the folder $BURROW_VARNISH.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { type Test, test } from "tap";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { httpBackend } from "../../lib/store/http.ts";
import { Crowd } from "../suite/crowd.ts";
import { exited, type Files, noise } from "../suite/daemon-node.ts";
import { SMALL, scene } from "../suite/daemon-scene.ts";
import { freePort } from "../suite/free-port.ts";
import type { OriginServer } from "../suite/origin-server.ts";
import { ROOT } from "../suite/uml.ts";
import { until } from "../suite/wait.ts";

const found = findVarnish();
const FILES: Files = { ...SMALL, large: noise(40 * BLOCK_BYTES + 5, 77) };
const SIZE = "64m";

function findVarnish(): { root: string; skip: string | false } {
  const given = process.env["BURROW_VARNISH"];
  if (given !== undefined) return { root: given, skip: false };
  const folder = process.env["BURROW_TEST_CACHE"] ?? path.join(tmpdir(), "burrow-test-cache");
  const script = path.join(ROOT, "fixtures/varnish.sh");
  const { status, stdout, stderr } = spawnSync("bash", [script, folder], { encoding: "utf8" });
  if (status === 0) return { root: stdout.trim(), skip: false };
  return { root: "", skip: `no Varnish: ${stderr.trim().split("\n").at(-1)}` };
}

/** One Varnish before an origin, in a folder of its own. */
class Varnish {
  readonly url: string;
  readonly #port: number;
  readonly #folder: string;
  #child: ChildProcess | undefined;

  constructor(folder: string, port: number, origin: string) {
    this.#folder = folder;
    this.#port = port;
    this.url = `http://127.0.0.1:${port}`;
    fs.mkdirSync(folder);
    const { hostname, port: originPort } = new URL(origin);
    const vcl = fs
      .readFileSync(path.join(ROOT, "docs/varnish/burrow.vcl"), "utf8")
      .replace("packages.example", hostname)
      .replace('"80"', `"${originPort}"`);
    fs.writeFileSync(`${folder}/vcl`, vcl);
  }

  async start(): Promise<void> {
    const folder = this.#folder;
    const words = ["-F", "-j", "none", "-n", `${folder}/n`, "-a", `127.0.0.1:${this.#port}`];
    words.push("-f", `${folder}/vcl`, "-s", `malloc,${SIZE}`, "-p", "http_gzip_support=off");
    const libraries = `${found.root}/usr/lib/x86_64-linux-gnu`;
    const log = fs.openSync(`${folder}/log`, "a");
    this.#child = spawn(`${found.root}/usr/sbin/varnishd`, words, {
      stdio: ["ignore", log, log],
      env: { ...process.env, LD_LIBRARY_PATH: libraries },
      // Its child, which serves, is of the same group.
      detached: true,
    });
    fs.closeSync(log);
    const backend = httpBackend(this.url);
    const isUp = await until(() => backend.has("burrow-store.json").catch(() => false));
    backend.close();
    if (!isUp) throw new Error(fs.readFileSync(`${folder}/log`, "utf8"));
  }

  /** Ends it: what it kept in memory is gone. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    const gone = exited(child);
    process.kill(-child.pid!, "SIGKILL");
    await gone;
    this.#child = undefined;
  }

  /** Has it forget all, as an administrator does. */
  forget(): void {
    const words = ["-n", `${this.#folder}/n`, "ban", "req.url", "~", "."];
    const { status, stderr, stdout } = spawnSync(`${found.root}/usr/bin/varnishadm`, words, {
      encoding: "utf8",
      env: { ...process.env, LD_LIBRARY_PATH: `${found.root}/usr/lib/x86_64-linux-gnu` },
    });
    if (status !== 0) throw new Error(`varnishadm: ${stderr}${stdout}`);
  }
}

async function tiered(t: Test, files: Files = FILES) {
  const given = await scene(t, files);
  const { node, server } = given;
  const tier = new Varnish(`${node.root}/varnish`, await freePort(), server.url);
  await tier.start();
  t.teardown(() => tier.kill());
  const origins = `${node.root}/origins.json`;
  const plan = { [server.url]: { tier: { at: tier.url } } };
  fs.writeFileSync(origins, JSON.stringify({ format: 1, origins: plan }));
  /** A node of its own: asks for all, and looks at it. */
  const readAll = async (name: string) => {
    node.cache = `${node.root}/${name}`;
    const daemon = await node.start({ origins });
    const client = await node.connect(given.mountId);
    for (const file of Object.keys(files))
      t.equal((await client.askBlob(0, given.published.row(file))).errno, 0, `${name}: ${file}`);
    for (const [file, { digest }] of given.published.refs)
      if (!fs.readFileSync(node.blobPath(digest)).equals(files[file]!)) t.fail(`${file} is wrong`);
    const figures = (await node.settled()).origins[server.url]!;
    client.close();
    daemon.kill("SIGTERM");
    await exited(daemon);
    return figures;
  };
  return { ...given, tier, origins, readAll };
}

/** Requests for packs, as an origin without a tier would have them: of ranges. */
function asked(server: OriginServer): { ranges: number; whole: number } {
  const packs = server.requests.filter(({ path: at }) => at.startsWith("packs/"));
  const ranges = packs.filter(({ range }) => range !== "").length;
  return { ranges, whole: packs.length - ranges };
}

test("the second node costs the origin no pack, the first each pack once", found, async (t) => {
  const { node, server, tier, readAll } = await tiered(t);
  for (const round of ["first", "second"]) {
    const before = server.count("packs");
    const { places, mismatches } = await readAll(round);
    t.match(places, [
      { name: tier.url, isTier: true, state: "up", transient: 0, permanent: 0 },
      { name: server.url, transient: 0, permanent: 0 },
    ]);
    t.equal(mismatches, 0);
    if (round === "second") t.equal(server.count("packs"), before, "all packs came from the tier");
  }
  const packs = fs
    .readdirSync(`${node.store}/packs`, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile());
  const { whole, ranges } = asked(server);
  t.comment(
    `${packs.length} packs, ${whole} asked for whole, ${ranges} ranges by nodes themselves`,
  );
  t.ok(whole >= packs.length, "it fetches them whole");
});

test("ranges are exact, of what it has and of what is on its way", found, async (t) => {
  const { node, server, tier } = await tiered(t);
  const packs = fs.readdirSync(`${node.store}/packs`, { recursive: true, encoding: "utf8" });
  const pack = `packs/${packs.find((name) => fs.statSync(`${node.store}/packs/${name}`).isFile())}`;
  const bytes = fs.readFileSync(`${node.store}/${pack}`);
  const backend = httpBackend(tier.url);
  t.teardown(() => backend.close());
  const ranges = [
    [bytes.length - 5, 5],
    [0, 1],
    [1, 4096],
    [bytes.length >> 1, 262_144],
    [0, bytes.length],
  ] as const;
  for (const state of ["cold", "warm"]) {
    const all = ranges.map(async ([offset, length]) => {
      const got = await backend.get(pack, { range: { offset, length } });
      t.ok(got.equals(bytes.subarray(offset, offset + length)), `${state}: ${length} at ${offset}`);
    });
    await Promise.all(all);
    t.equal(server.count("packs"), 1, `${state}: five asked at once, one request`);
  }
  const past = { range: { offset: bytes.length - 1, length: 2 } };
  await t.rejects(backend.get(pack, past), { code: "BURROW_CORRUPT", message: /ends at/ });
  for (let i = 0; i < 2; i++)
    await t.rejects(backend.get("packs/none"), { code: "BURROW_NOT_FOUND" });
  const none = server.requests.filter(({ path: at }) => at === "packs/none").length;
  t.equal(none, 2, "what isn't there is asked for again each time");
});

test("killed and started anew under load, it is no error", found, async (t) => {
  const { node, server, published, tier, origins, mountId } = await tiered(t, {
    large: noise(200 * BLOCK_BYTES, 7),
  });
  await node.start({ background: false, origins });
  const crowd = new Crowd(node, mountId, published.row("large"), 200);
  for (const at of [20, 80, 140]) {
    t.ok(await crowd.reaches(at), `${at} blocks asked for`);
    await tier.kill();
    if (at !== 80) await tier.start();
  }
  await crowd.done;
  t.equal(crowd.failures, 0, "no read failed");
  const { places, mismatches } = (await node.settled()).origins[server.url]!;
  t.equal(mismatches, 0);
  t.comment(
    `${places.map(({ requests, transient }) => `${requests} requests, ${transient} failed`)}`,
  );
});

test("what it keeps wrong is nobody's bytes, and healed when it forgets", found, async (t) => {
  const { server, tier, readAll } = await tiered(t);
  // All that Varnish fetches has a bit turned; what nodes fetch themselves is right.
  server.fault = (at, _count) => (at.startsWith("packs/") && isWhole(server, at) ? "flip" : "none");
  const lied = await readAll("first");
  t.ok(lied.mismatches > 0, `${lied.mismatches} times it sent something wrong`);
  t.match(lied.places[0], { isTier: true, mismatches: Number });
  t.ok(lied.places[1]!.requests > 0, "the origin was asked");
  server.fault = () => "none";
  const again = await readAll("second");
  t.ok(again.mismatches > 0, "it keeps it");
  tier.forget();
  const before = server.count("packs");
  const healed = await readAll("third");
  t.equal(healed.mismatches, 0);
  t.ok(server.count("packs") > before, "it has fetched it anew");
});

/** Whether the last request for a path was for all of it, as Varnish asks. */
function isWhole(server: OriginServer, at: string): boolean {
  return server.requests.findLast(({ path: of }) => of === at)?.range === "";
}

test("an origin that is slow, cut off or compresses behind it", found, async (t) => {
  for (const fault of ["short-body", "503", "reset", "gzip"] as const) {
    const { server, readAll } = await tiered(t, SMALL);
    server.fault = (at) => (at.startsWith("packs/") && isWhole(server, at) ? fault : "none");
    const { places } = await readAll(fault);
    t.ok(places[1]!.requests > 0, `${fault}: ${JSON.stringify(places[0])}`);
  }
});
