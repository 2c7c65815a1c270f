// Plain nginx as an origin, and as a shared tier that fills itself: what a node gets from both, how it rides out restarts, and that
// the second node costs the origin nothing. nginx is Debian's: of $BURROW_NGINX, in $PATH, or unpacked by fixtures/nginx.sh.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { type Test, test } from "tap";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { httpBackend } from "../../lib/store/http.ts";
import { Crowd } from "../suite/crowd.ts";
import { exited, type Files, noise, publish, TestNode } from "../suite/daemon-node.ts";
import { SMALL } from "../suite/daemon-scene.ts";
import { freePort } from "../suite/free-port.ts";
import { until } from "../suite/wait.ts";

const NGINX = process.env["BURROW_NGINX"] ?? findNginx();
const { stderr = "" } = spawnSync(NGINX, ["-V"], { encoding: "utf8" });
const SKIP = /http_slice_module/.test(stderr)
  ? false
  : "no nginx with the slice module: apt-get install nginx";
const FILES: Files = { ...SMALL, large: noise(40 * BLOCK_BYTES + 5, 77) };

/** The one that is installed; else one that is unpacked for tests. */
function findNginx(): string {
  if (spawnSync("nginx", ["-v"]).status === 0) return "nginx";
  const folder = process.env["BURROW_TEST_CACHE"] ?? path.join(tmpdir(), "burrow-test-cache");
  const script = path.resolve(import.meta.dirname, "../../../fixtures/nginx.sh");
  const { stdout } = spawnSync("bash", [script, folder], { encoding: "utf8" });
  return stdout.trim() || "nginx";
}

/** One nginx, in a folder of its own. */
class Nginx {
  readonly url: string;
  readonly #folder: string;
  readonly #server: string;
  readonly #port: number;
  #child: ChildProcess | undefined;

  constructor(folder: string, port: number, server: string) {
    this.#folder = folder;
    this.#port = port;
    this.#server = server;
    this.url = `http://127.0.0.1:${port}`;
    fs.mkdirSync(folder, { recursive: true });
  }

  async start(): Promise<void> {
    const folder = this.#folder;
    const conf = `daemon off; pid ${folder}/pid; error_log ${folder}/error.log;
user root; worker_processes 1; events {}
http { access_log ${folder}/access.log; client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy;
fastcgi_temp_path ${folder}/f; uwsgi_temp_path ${folder}/u; scgi_temp_path ${folder}/s;
proxy_cache_path ${folder}/cache keys_zone=tier:1m;
server { listen 127.0.0.1:${this.#port}; ${this.#server} } }`;
    fs.writeFileSync(`${folder}/conf`, conf);
    this.#child = spawn(NGINX, ["-p", folder, "-c", `${folder}/conf`], {
      stdio: "ignore",
      detached: true,
    });
    const backend = httpBackend(this.url);
    const isUp = await until(() => backend.has("burrow-store.json").catch(() => false));
    backend.close();
    if (!isUp) throw new Error(fs.readFileSync(`${folder}/error.log`, "utf8"));
  }

  async stop(signal: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    const gone = exited(child);
    // Workers outlive a master that is killed, and go on listening: all go.
    if (signal === "SIGKILL") process.kill(-child.pid!, signal);
    else child.kill(signal);
    await gone;
    this.#child = undefined;
  }

  /** Has it read its configuration again: workers end when they have answered, others take over. */
  reload(): void {
    this.#child?.kill("SIGHUP");
  }

  /** Requests for packs so far. */
  get packs(): number {
    const log = fs.readFileSync(`${this.#folder}/access.log`, "utf8");
    return log.split("\n").filter((line) => line.includes("GET /packs/")).length;
  }
}

async function scene(t: Test, files: Files = FILES) {
  const node = new TestNode();
  t.teardown(() => node.close());
  const published = await publish(node.store, files);
  const origin = new Nginx(`${node.root}/origin`, await freePort(), `root ${node.store};`);
  const tier = new Nginx(
    `${node.root}/tier`,
    await freePort(),
    `location / { slice 1m; proxy_pass ${origin.url}; proxy_set_header Range $slice_range;
proxy_cache tier; proxy_cache_key $uri$slice_range; proxy_cache_valid 200 206 1h; proxy_http_version 1.1; }`,
  );
  await origin.start();
  t.teardown(() => origin.stop());
  await tier.start();
  t.teardown(() => tier.stop());
  const plan = { [origin.url]: { tier: { at: tier.url } } };
  const origins = `${node.root}/origins.json`;
  fs.writeFileSync(origins, JSON.stringify({ format: 1, origins: plan }));
  const mountId = node.mount(origin.url, published.digest);
  return { node, published, origin, tier, origins, mountId };
}

test("nginx as a tier: the second node costs the origin no pack", { skip: SKIP }, async (t) => {
  const { node, published, origin, tier, origins, mountId } = await scene(t);
  for (const round of ["first", "second"]) {
    node.cache = `${node.root}/${round}`;
    const before = origin.packs;
    const daemon = await node.start({ origins });
    const client = await node.connect(mountId);
    for (const name of Object.keys(FILES))
      t.equal((await client.askBlob(0, published.row(name))).errno, 0);
    for (const [name, { digest }] of published.refs)
      if (!fs.readFileSync(node.blobPath(digest)).equals(FILES[name]!)) t.fail(`${name} is wrong`);
    const { places, mismatches } = (await node.settled()).origins[origin.url]!;
    t.match(places, [
      { name: tier.url, isTier: true, state: "up", transient: 0, permanent: 0 },
      { name: origin.url, transient: 0, permanent: 0 },
    ]);
    t.equal(mismatches, 0);
    if (round === "second") t.equal(origin.packs, before, "all packs came from the tier");
    client.close();
    daemon.kill("SIGTERM");
    await exited(daemon);
  }
});

test("nginx that starts anew under reads is a pause, no error", { skip: SKIP }, async (t) => {
  const { node, published, origin, mountId } = await scene(t);
  await node.start({ background: false });
  const client = await node.connect(mountId);
  const row = published.row("large");
  t.equal((await client.askBlocks(0, row, 0, 1)).errno, 0);
  await origin.stop();
  const asks = [5, 15, 25, 35].map((block) => client.askBlocks(0, row, block, 1));
  const failed = async () => (await node.status()).origins[origin.url]!.transient;
  t.ok(await until(async () => (await failed()) >= 8), "it was missed");
  await origin.start();
  for (const { errno } of await Promise.all(asks)) t.equal(errno, 0);
  const { transient, retries } = (await node.settled()).origins[origin.url]!;
  t.ok(transient > 0 && retries > 0, `${transient} requests failed, ${retries} were made again`);
});

test("nginx answers ranges exactly, and says where an object ends", { skip: SKIP }, async (t) => {
  const { node, origin } = await scene(t);
  const packs = fs.readdirSync(`${node.store}/packs`, { recursive: true, encoding: "utf8" });
  const pack = `packs/${packs.find((name) => fs.statSync(`${node.store}/packs/${name}`).isFile())}`;
  const bytes = fs.readFileSync(`${node.store}/${pack}`);
  const backend = httpBackend(origin.url);
  t.teardown(() => backend.close());
  for (const [offset, length] of [
    [0, 1],
    [1, 4096],
    [262_143, 2],
    [bytes.length - 1, 1],
    [0, bytes.length],
  ] as const) {
    const got = await backend.get(pack, { range: { offset, length } });
    t.ok(got.equals(bytes.subarray(offset, offset + length)), `${length} at ${offset}`);
  }
  const past = { range: { offset: bytes.length - 1, length: 2 } };
  await t.rejects(backend.get(pack, past), { code: "BURROW_CORRUPT", message: /ends at/ });
  await t.rejects(backend.get("packs/none"), { code: "BURROW_NOT_FOUND" });
});

test("a cold environment from nginx: each byte once, few requests", { skip: SKIP }, async (t) => {
  const files: Files = Object.fromEntries([
    ...Array.from({ length: 400 }, (_, i) => [`small${i}`, noise(20_000 + i, i + 1)] as const),
    ...Array.from({ length: 5 }, (_, i) => [`library${i}`, noise(4_000_000 + i, 500 + i)] as const),
  ]);
  const { node, published, origin, mountId } = await scene(t, files);
  await node.start();
  const clients = await Promise.all(Array.from({ length: 20 }, () => node.connect(mountId)));
  let failures = 0;
  const run = async (client: (typeof clients)[0]) => {
    for (const name of Object.keys(files))
      if ((await client.askBlob(0, published.row(name))).errno !== 0) failures++;
  };
  await Promise.all(clients.map(run));
  t.equal(failures, 0);
  for (const [name, { digest }] of published.refs)
    if (!fs.readFileSync(node.blobPath(digest)).equals(files[name]!)) t.fail(`${name} is wrong`);
  const { requests, bytes, transient } = (await node.settled()).origins[origin.url]!;
  const packed = Object.values(files).reduce((sum, { length }) => sum + length, 0);
  t.comment(`${bytes} bytes of ${packed} by ${requests} requests`);
  t.ok(bytes <= packed * 1.05, `${bytes} bytes of ${packed}`);
  t.ok(requests <= 40, `${requests} requests`);
  t.equal(transient, 0);
});

test("nginx that is ended, killed and reloaded under load", { skip: SKIP }, async (t) => {
  const { node, published, origin, mountId } = await scene(t, {
    large: noise(200 * BLOCK_BYTES, 7),
  });
  await node.start({ background: false });
  const crowd = new Crowd(node, mountId, published.row("large"), 200);
  for (const at of [20, 60, 100, 140]) {
    t.ok(await crowd.reaches(at), `${at} blocks asked for`);
    if (at === 60 || at === 140) origin.reload();
    else {
      await origin.stop(at === 20 ? "SIGTERM" : "SIGKILL");
      await origin.start();
    }
  }
  await crowd.done;
  t.equal(crowd.failures, 0, "no read failed");
  const { transient, mismatches } = (await node.settled()).origins[origin.url]!;
  t.ok(transient > 0, `${transient} requests failed, and were made again`);
  t.equal(mismatches, 0);
});
