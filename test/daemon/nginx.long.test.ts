// Plain nginx as an origin, and as a shared tier that fills itself: what a node gets from both, how it rides out a restart, and that
// the second node costs the origin nothing. Needs nginx with the slice module ($BURROW_NGINX, or in $PATH).

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import { type Test, test } from "tap";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { httpBackend } from "../../lib/store/http.ts";
import { exited, type Files, noise, publish, TestNode } from "../suite/daemon-node.ts";
import { SMALL } from "../suite/daemon-scene.ts";
import { freePort } from "../suite/free-port.ts";
import { until } from "../suite/wait.ts";

const NGINX = process.env["BURROW_NGINX"] ?? "nginx";
const { stderr = "" } = spawnSync(NGINX, ["-V"], { encoding: "utf8" });
const SKIP = /http_slice_module/.test(stderr)
  ? false
  : "no nginx with the slice module: apt-get install nginx";
const FILES: Files = { ...SMALL, large: noise(40 * BLOCK_BYTES + 5, 77) };

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
    this.#child = spawn(NGINX, ["-p", folder, "-c", `${folder}/conf`], { stdio: "ignore" });
    const backend = httpBackend(this.url);
    const isUp = await until(() => backend.has("burrow-store.json").catch(() => false));
    backend.close();
    if (!isUp) throw new Error(fs.readFileSync(`${folder}/error.log`, "utf8"));
  }

  async stop(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    const gone = exited(child);
    child.kill("SIGTERM");
    await gone;
    this.#child = undefined;
  }

  /** Requests for packs so far. */
  get packs(): number {
    const log = fs.readFileSync(`${this.#folder}/access.log`, "utf8");
    return log.split("\n").filter((line) => line.includes("GET /packs/")).length;
  }
}

async function scene(t: Test) {
  const node = new TestNode();
  t.teardown(() => node.close());
  const published = await publish(node.store, FILES);
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
