// Owns: proof that a daemon's figures are in Prometheus' format, right, few, and to be had on this machine alone. Plane: control.

import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import { test } from "tap";
import { daemonStatus } from "../../lib/cache/client.ts";
import { EXPOSITION_TYPE, exposition, METRIC_NAMES } from "../../lib/daemon/exposition.ts";
import { LoopDelay } from "../../lib/daemon/loop-delay.ts";
import { MetricsServer, parseMetricsAddress } from "../../lib/daemon/metrics-server.ts";
import { OTHER_VIEWS, VIEWS_MAX, Views } from "../../lib/daemon/views.ts";
import { ThreadTime } from "../../lib/sys/thread-time.ts";
import { exited, noise, publish, TestNode } from "../suite/daemon-node.ts";
import { readExposition, type Series } from "../suite/exposition.ts";
import { freePort } from "../suite/free-port.ts";
import { sleep, until } from "../suite/wait.ts";

test("the reader of these tests refuses what is wrong", async (t) => {
  const head = "# HELP a_total Some\n# TYPE a_total counter\n";
  t.same(readExposition(`${head}a_total{x="1\\"\\\\\\n"} 2\n`), [
    { name: "a_total", labels: { x: '1"\\\n' }, value: 2 },
  ]);
  const wrong = [
    `${head}a_total 1`,
    `${head}`,
    `${head}a_total 1\na_total 2\n`,
    `${head}a_total -1\n`,
    `${head}a_total NaN\n`,
    `${head}a_total{x="1"y="2"} 1\n`,
    `${head}a_total{x="1",} 1\n`,
    `${head}a_total{} 1\n`,
    `${head}a_total{x="a\\d"} 1\n`,
    `${head}b_total 1\n`,
    `${head}a_total 1\n${head}a_total 1\n`,
    "a_total 1\n",
    "# TYPE a_total counter\n# HELP a_total Some\na_total 1\n",
    "# HELP a Some\n# TYPE a counter\na 1\n",
    "# HELP a_ms Some\n# TYPE a_ms gauge\na_ms 1\n",
    `${head}a_total 1\n\n`,
  ];
  for (const text of wrong) t.throws(() => readExposition(text), text);
});

function figureOf(
  series: readonly Series[],
  name: string,
  labels: object = {},
): number | undefined {
  const wanted = JSON.stringify(labels);
  return series.find((one) => one.name === name && JSON.stringify(one.labels) === wanted)?.value;
}

test("a daemon's figures are those of what it did", async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const socket = `${node.root}/metrics.sock`;
  const files = { small: noise(5_000, 1), large: noise(3_000_000, 2) };
  const { digest, row } = await publish(node.store, files);
  const child = await node.start({ metrics: `unix:${socket}`, background: false });
  const mount = node.mount(node.store, digest);
  const client = await node.connect(mount);
  await client.askBlob(0, row("small"));
  await client.askBlob(0, row("small"));
  await client.askBlocks(0, row("large"), 0, 1);
  await client.askBlob(0, 1000);
  await node.settled();
  const { status, type, body } = await ask({ socketPath: socket }, "/metrics");
  t.match({ status, type }, { status: 200, type: EXPOSITION_TYPE });
  const series = readExposition(body);
  const named = (await daemonStatus(node.cache))!;
  const { requests, bytes } = named.origins[node.store]!;
  const origin = { origin: node.store };
  t.equal(figureOf(series, "burrow_origin_requests_total", origin), requests);
  t.equal(figureOf(series, "burrow_origin_bytes_total", origin), bytes);
  t.equal(figureOf(series, "burrow_asks_total"), 4);
  t.equal(figureOf(series, "burrow_failed_asks_total"), 1);
  t.equal(figureOf(series, "burrow_hits_total", { tier: "disk" }), 1);
  t.equal(figureOf(series, "burrow_fetched_blobs_total"), 1);
  t.equal(figureOf(series, "burrow_origin_in_flight", { ...origin, kind: "demand" }), 0);
  t.equal(figureOf(series, "burrow_view_asks_total", { view: mount }), 4);
  t.equal(figureOf(series, "burrow_view_failed_asks_total", { view: mount }), 1);
  t.equal(figureOf(series, "burrow_view_fetched_bytes_total", { view: mount }), 5_000 + 262_144);
  const blocked = figureOf(series, "burrow_view_blocked_seconds_total", { view: mount })!;
  t.ok(blocked > 0 && blocked < 60, "seconds");
  t.ok(figureOf(series, "burrow_daemon_resident_bytes")! > 1e6);
  t.ok(figureOf(series, "burrow_event_loop_delay_seconds", { quantile: "0.99" })! >= 0);
  client.close();
  await until(async () => {
    const { body: later } = await ask({ socketPath: socket }, "/metrics");
    return figureOf(readExposition(later), "burrow_view_asks_total", { view: OTHER_VIEWS }) === 4;
  });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await ended;
  t.equal(fs.existsSync(socket), false, "nothing is left");
});

interface Answer {
  readonly status: number | undefined;
  readonly type: string | undefined;
  readonly body: string;
}

function ask(
  place: http.RequestOptions,
  path: string,
  options: http.RequestOptions = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = http.request({ ...place, path, ...options }, (message) => {
      let body = "";
      message.on("data", (bytes: Buffer) => {
        body += bytes.toString();
      });
      const { statusCode: status } = message;
      const type = message.headers["content-type"];
      message.on("end", () => resolve({ status, type, body }));
    });
    request.on("error", reject);
    request.end();
  });
}

test("over HTTP to this machine alone, and nothing but reading", async (t) => {
  const port = await freePort();
  const server = new MetricsServer(parseMetricsAddress(`tcp:127.0.0.1:${port}`), () => "x 1\n");
  t.teardown(() => server.close());
  await server.listen();
  const place = { host: "127.0.0.1", port };
  t.match(await ask(place, "/metrics"), { status: 200, body: "x 1\n" });
  t.match(await ask(place, "/metrics?x=1", { method: "HEAD" }), { status: 200, body: "" });
  t.match(await ask(place, "/"), { status: 404 });
  t.match(await ask(place, "/metrics", { method: "POST" }), { status: 405 });
  t.match(await ask(place, "/metrics", { headers: { host: "evil.example" } }), { status: 403 });
  t.match(await ask(place, "/metrics", { headers: { host: `localhost:${port}` } }), {
    status: 200,
  });
  const second = new MetricsServer(parseMetricsAddress(`tcp:127.0.0.1:${port}`), () => "");
  await t.rejects(second.listen(), { code: "BURROW_DAEMON" });
  t.same(parseMetricsAddress("tcp:[::1]:9464"), { host: "::1", port: 9464 });
  const wrong = [
    "unix:relative",
    "tcp:0.0.0.0:9464",
    "tcp:10.0.0.1:9464",
    "tcp:localhost:9464",
    "tcp:127.0.0.1:0",
    "tcp:127.0.0.1:65536",
    "tcp:[::]:1",
    "9464",
    "",
  ];
  for (const text of wrong)
    t.throws(() => parseMetricsAddress(text), { code: "BURROW_USAGE" }, text);
});

test("over TCP nobody is named, unless the daemon was told to", async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const { digest } = await publish(node.store, { a: noise(5_000, 1) });
  const mount = node.mount(node.store, digest);
  const socket = `${node.root}/metrics.sock`;
  const port = await freePort();
  const tcp = { host: "127.0.0.1", port };
  for (const [config, place, isNamed] of [
    [{ metrics: `tcp:127.0.0.1:${port}` }, tcp, false],
    [{ metrics: `tcp:127.0.0.1:${port}`, metricsNames: true }, tcp, true],
    [{ metrics: `unix:${socket}` }, { socketPath: socket }, true],
  ] as const) {
    node.cache = `${node.root}/cache-${isNamed}-${"port" in place}`;
    const daemon = await node.start(config);
    const client = await node.connect(mount);
    t.equal((await client.askBlob(0, 0)).errno, 0);
    await node.settled();
    const { body } = await ask(place, "/metrics");
    for (const name of [node.store, mount]) t.equal(body.includes(name), isNamed, name);
    const series = readExposition(body);
    const of = (label: string) => ({ [label]: "(other)" });
    if (!isNamed) {
      t.ok(figureOf(series, "burrow_origin_requests_total", of("origin"))! > 0, "the sum");
      t.equal(figureOf(series, "burrow_view_asks_total", of("view")), 1);
    }
    client.close();
    daemon.kill("SIGTERM");
    await exited(daemon);
  }
});

test("the socket of metrics is its owner's", async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  await node.start({ metrics: `unix:${node.root}/metrics.sock` });
  t.equal(fs.statSync(`${node.root}/metrics.sock`).mode & 0o777, 0o600);
});

test("who asks ahead and doesn't read gets one answer, for a while", async (t) => {
  const port = await freePort();
  let answers = 0;
  const text = () => {
    answers++;
    return "x 1\n".repeat(2_000_000);
  };
  const server = new MetricsServer(parseMetricsAddress(`tcp:127.0.0.1:${port}`), text);
  t.teardown(() => server.close());
  await server.listen();
  const slow = net.connect(port, "127.0.0.1");
  t.teardown(() => slow.destroy());
  slow.pause();
  slow.write("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".repeat(500));
  t.ok(await until(() => answers > 0));
  t.match(await ask({ host: "127.0.0.1", port }, "/metrics"), { status: 200 });
  t.equal(answers, 2, "one each");
  let isClosed = false;
  slow
    .once("error", () => undefined)
    .once("close", () => {
      isClosed = true;
    });
  // It would read its one answer now; what it gets is what the kernel held, and the end.
  await sleep(6_000);
  let bytes = 0;
  slow.on("data", (piece: Buffer) => {
    bytes += piece.length;
  });
  slow.resume();
  t.ok(await until(() => isClosed));
  t.ok(bytes < 8_000_000, `${bytes} bytes`);
});

test("names of origins are plain, few, and can't break the format", async (t) => {
  const origins: Record<string, { requests: number; bytes: number }> = {
    "https://me:SECRET@host/a?token=SECRET": { requests: 1, bytes: 10 },
    "https://host/a?token=OTHER": { requests: 2, bytes: 20 },
    'a"b\\c\nd': { requests: 4, bytes: 40 },
  };
  for (let i = 0; i < 200; i++) origins[`s3://bucket/${i}`] = { requests: 1, bytes: 0 };
  const text = exposition({ origins });
  t.notMatch(text, /SECRET|OTHER/);
  const series = readExposition(text);
  const of = (origin: string) => figureOf(series, "burrow_origin_requests_total", { origin });
  t.equal(of("https://host/a"), 3, "equal names are summed up");
  t.equal(of('a"b\\c\nd'), 4);
  t.equal(of("(other)"), 200 - 61);
  t.ok(series.length < 2 * 66);
  t.equal(exposition({}), "", "of nothing there is nothing");
});

test("each metric is described", async (t) => {
  const docs = fs.readFileSync(new URL("../../../docs/metrics.md", import.meta.url), "utf8");
  const described = [...docs.matchAll(/`(burrow_[a-z_]+)[{`]/g)].map(([, name]) => name!);
  t.same([...new Set(described)].sort(), [...METRIC_NAMES].sort());
});

test("views are few, and no counter goes back", async (t) => {
  const views = new Views();
  const open = (id: string, asks: number) => {
    const figures = views.open(id);
    figures.asks += asks;
    return figures;
  };
  const first = open("v0", 1);
  t.equal(views.open("v0"), first, "a second connection of it");
  for (let i = 1; i < 100; i++) open(`v${i}`, 1);
  t.equal(Object.keys(views.figures()).length, VIEWS_MAX + 1);
  t.equal(views.figures()[OTHER_VIEWS]!.asks, 100 - VIEWS_MAX);
  views.close("v0", first);
  t.equal(views.figures()["v0"]!.asks, 1, "it has a connection yet");
  views.close("v0", first);
  t.equal(views.figures()["v0"], undefined);
  t.equal(views.figures()[OTHER_VIEWS]!.asks, 101 - VIEWS_MAX);
  views.close("v0", first);
  views.close("v99", views.open("v99"));
  open("v200", 5);
  t.equal(views.figures()["v200"]!.asks, 5, "a place was free");
  t.equal(views.figures()[OTHER_VIEWS]!.asks, 101 - VIEWS_MAX);
});

test("a loop that is held up is seen", async (t) => {
  const delay = new LoopDelay();
  t.teardown(() => delay.stop());
  await until(() => {
    const endMs = performance.now() + 150;
    while (performance.now() < endMs);
    return delay.figures.maxMs >= 100;
  });
  t.ok(delay.figures.p50Ms <= delay.figures.maxMs);
});

const time = new ThreadTime();
const skip = time.isKnown ? false : "this kernel doesn't tell: CONFIG_SCHED_INFO";

test("what holds a loop up is told from what it sleeps through", { skip }, async (t) => {
  t.teardown(() => time.close());
  const asleep = new LoopDelay();
  t.teardown(() => asleep.stop());
  await until(() => {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 400);
    return asleep.figures.maxMs >= 300;
  });
  const { heldMaxMs, maxMs } = asleep.figures;
  t.ok(heldMaxMs < 300, `${maxMs} ms late, of them ${heldMaxMs} computing`);
  const busy = new LoopDelay();
  t.teardown(() => busy.stop());
  const isSeen = await until(() => {
    // Of its own time on a CPU, however many share that.
    const begunMs = time.ranMs;
    while (time.ranMs - begunMs < 150) time.look();
    return busy.figures.heldMaxMs >= 100;
  });
  t.ok(isSeen);
});
