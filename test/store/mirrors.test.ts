// An origin at several places: who is asked, when one is left alone, and what is never taken from any (pitfalls B4, B5, D11, D13).

import fs from "node:fs";
import { tmpdir } from "node:os";
import { type Test, test } from "tap";
import type { BurrowError } from "../../lib/base/error.ts";
import { Budget } from "../../lib/store/budget.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { Health } from "../../lib/store/health.ts";
import { Latencies } from "../../lib/store/latency.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { localBackend } from "../../lib/store/local.ts";
import { type OpenOptions, openOrigin } from "../../lib/store/open.ts";
import { parseOrigins } from "../../lib/store/origins-file.ts";
import { classOf, type Sender } from "../../lib/store/store.ts";
import { noise } from "../suite/daemon-node.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { sleep, until } from "../suite/wait.ts";

const BYTES = noise(300_000, 3);
const PACK = objectPath("packs", digestOf(BYTES));
const RANGE = { offset: 1000, length: 70_000 };
const RIGHT = BYTES.subarray(RANGE.offset, RANGE.offset + RANGE.length);

/** Servers of the same object, and a reader that knows all but the first as mirrors of it. */
async function places(t: Test, count: number, options: OpenOptions = {}, tier?: number) {
  const servers: OriginServer[] = [];
  for (let i = 0; i < count; i++) {
    const root = fs.mkdtempSync(`${tmpdir()}/burrow-mirrors-`);
    t.teardown(() => fs.rmSync(root, { recursive: true, force: true }));
    await localBackend(root).put(PACK, BYTES);
    const server = await OriginServer.start(root);
    t.teardown(() => server.close());
    servers.push(server);
  }
  const urls = servers.map(({ url }) => url);
  const mirrors = urls.slice(1).filter((_, i) => i + 1 !== tier);
  const plan = { mirrors, ...(tier === undefined ? {} : { tier: { at: urls[tier]! } }) };
  const origins = parseOrigins({ format: 1, origins: { [urls[0]!]: plan } });
  const backend = openOrigin(urls[0]!, { baseMs: 1, origins, ...options });
  t.teardown(() => backend.close());
  const asked = () => servers.map(({ requests }) => requests.length);
  const place = (i: number) => backend.mirrors.figures().find(({ name }) => name === urls[i])!;
  return { servers, urls, backend, asked, place };
}

test("each read that fails goes on to the next mirror; one that fails twice rests", async (t) => {
  const { servers, backend, asked, place } = await places(t, 3, { graceMs: 60_000 });
  servers[0]!.fault = () => "503";
  servers[1]!.fault = () => "short-body";
  for (let i = 0; i < 6; i++) t.same(await backend.get(PACK, { range: RANGE }), RIGHT);
  t.same(asked(), [2, 2, 6], "two tries of each of those that fail, then none");
  t.equal(place(0).state, "resting");
  t.match(place(0), { transient: 2, rests: 1, why: /503/ });
  t.match(place(1), { state: "resting", why: /broke off|ended after/ });
  t.match(place(2), { state: "up", requests: 6, bytes: 6 * RANGE.length, transient: 0 });
});

test("a mirror that rested is asked by one request, and used again when that is answered", async (t) => {
  const { servers, backend, place } = await places(t, 2, { graceMs: 100 });
  servers[0]!.fault = () => "503";
  for (let i = 0; i < 2; i++) await backend.get(PACK, { range: RANGE });
  t.equal(place(0).rests, 1);
  t.ok(await until(() => place(0).restMs === 0));
  servers[0]!.fault = () => "none";
  servers[0]!.delayMs = 100;
  const before = servers[0]!.requests.length;
  const reads = Array.from({ length: 8 }, () => backend.get(PACK, { range: RANGE }));
  t.equal(place(0).state, "probed");
  for (const read of await Promise.all(reads)) t.same(read, RIGHT);
  t.equal(servers[0]!.requests.length, before + 1, "one probe");
  t.equal(place(0).state, "up");
  await backend.get(PACK, { range: RANGE });
  t.equal(servers[0]!.requests.length, before + 2, "and it comes first again");
});

test("all rest: one of them is asked, a bounded number of times, and the error names them", async (t) => {
  const { servers, urls, backend, asked } = await places(t, 3, { graceMs: 60_000, tries: 3 });
  for (const server of servers) server.fault = () => "reset";
  const error = await backend.get(PACK, { range: RANGE }).catch((error: unknown) => error);
  t.equal(classOf(error), "transient");
  t.equal((error as BurrowError).context["origin"], urls[0]);
  for (const url of urls) t.match(JSON.stringify((error as BurrowError).context), url);
  const [a, b, c] = asked();
  t.ok(a! + b! + c! <= 8, `${asked()}: two rounds until all rest, then two requests a try`);
  const before = asked().reduce((x, y) => x + y);
  await t.rejects(backend.get(PACK, { range: RANGE }));
  t.equal(asked().reduce((x, y) => x + y) - before, 6, "two requests a try");
  servers[1]!.fault = () => "none";
  // Which of those that rest is asked is left to chance.
  let found: unknown;
  for (let i = 0; i < 20 && found === undefined; i++)
    found = await backend.get(PACK, { range: RANGE }).catch(() => undefined);
  t.same(found, RIGHT, "found again");
});

test("wrong content rests its mirror at once, whether we see it or are told", async (t) => {
  const { servers, urls, backend, place } = await places(t, 2, { graceMs: 60_000 });
  servers[0]!.fault = () => "flip";
  t.same(await backend.get(PACK), BYTES, "a whole object is compared with its name");
  t.match(place(0), { state: "resting", mismatches: 1, requests: 1 });
  const other = await places(t, 2, { graceMs: 60_000 });
  other.servers[0]!.fault = () => "flip";
  let sender: Sender | undefined;
  const onSender = (who: Sender) => {
    sender = who;
  };
  const wrong = await other.backend.get(PACK, { range: RANGE, onSender });
  t.notSame(wrong, RIGHT);
  t.equal(sender?.name, other.urls[0]);
  sender?.blame("wrong");
  t.same(await other.backend.get(PACK, { range: RANGE, onSender }), RIGHT);
  t.equal(sender?.name, other.urls[1], "the next is asked");
  t.match(other.place(0), { state: "resting", mismatches: 1 });
  t.not(urls[0], urls[1]);
});

test("what a mirror lacks, another has; what all lack isn't there", async (t) => {
  const { servers, backend, place } = await places(t, 2, { graceMs: 60_000 });
  servers[0]!.fault = () => "404";
  t.same(await backend.get(PACK, { range: RANGE }), RIGHT);
  t.equal(await backend.has(PACK), true);
  t.equal(place(0).state, "up");
  await backend.get(PACK, { range: RANGE });
  t.equal(place(0).state, "resting", "a mirror that is always behind costs a request each time");
  servers[1]!.fault = () => "404";
  const fresh = await places(t, 2);
  for (const server of fresh.servers) server.fault = () => "404";
  await t.rejects(fresh.backend.get(PACK, { range: RANGE }), { code: "BURROW_NOT_FOUND" });
  t.equal(await fresh.backend.has(PACK), false);
  fresh.servers[1]!.fault = () => "503";
  const why = () => fresh.backend.get(PACK, { range: RANGE }).catch(classOf);
  for (let i = 0; i < 4; i++) t.equal(await why(), "notFound", "the origin itself says so");
  fresh.servers[0]!.fault = () => "503";
  fresh.servers[1]!.fault = () => "404";
  for (let i = 0; i < 4; i++) t.equal(await why(), "transient", "a mirror may be behind");
});

test("Retry-After stops all requests to the place that said it, and no other", async (t) => {
  const { servers, backend, asked, place } = await places(t, 2);
  servers[0]!.fault = () => "429";
  servers[0]!.retryAfterS = 20;
  for (let i = 0; i < 5; i++) t.same(await backend.get(PACK, { range: RANGE }), RIGHT);
  t.same(asked(), [1, 5]);
  t.match(place(0), { state: "stopped", stops: 1, rests: 0 });
  const alone = await places(t, 1);
  alone.servers[0]!.fault = (_, count) => (count === 1 ? "503" : "none");
  alone.servers[0]!.retryAfterS = 0.5;
  const first = alone.backend.get(PACK, { range: RANGE });
  t.ok(await until(() => alone.place(0).state === "stopped"));
  const before = alone.servers[0]!.requests.length;
  const signal = AbortSignal.timeout(50);
  await t.rejects(alone.backend.get(PACK, { range: RANGE, signal }), { code: "BURROW_TIMEOUT" });
  t.equal(alone.servers[0]!.requests.length, before, "nothing was sent meanwhile");
  t.same(await first, RIGHT, "who waits gets it after that time");
});

/** What is asked before anything is known waits a second for its answer: a loaded machine is no reason to ask twice. */
test("a read that takes longer than such reads do is sent to the next mirror, too", async (t) => {
  const { servers, backend, place } = await places(t, 2, { graceMs: 60_000 });
  const read = () => backend.get(PACK, { range: RANGE, isUrgent: true });
  servers[0]!.fault = () => "stall-headers";
  t.same(await read(), RIGHT, "long before the deadline of its headers");
  t.match(place(1), { requests: 1, hedges: 1, hedgesWon: 1 });
  t.ok(await until(() => place(0).aborted === 1));
  t.match(place(0), { transient: 0, state: "up" }, "it was told to stop");
  for (let i = 0; i < 2; i++) t.same(await read(), RIGHT);
  t.match(place(0), { state: "resting", why: /later than others/ }, "slow for long is dead");
  t.same(await read(), RIGHT);
  t.equal(place(1).hedges, 3, "no more need");
});

test("a mirror that stalls and comes to rest is not waited for by those that have asked it", async (t) => {
  const { servers, backend, place } = await places(t, 2, { graceMs: 60_000 });
  servers[0]!.fault = () => "stall-headers";
  const asked = { range: RANGE, isUrgent: true };
  const reads = Array.from({ length: 40 }, () => backend.get(PACK, asked));
  for (const got of await Promise.all(reads)) t.same(got, RIGHT);
  t.equal(place(0).timeouts, 0, "none ran into the deadline of its headers (10 s)");
  t.ok(place(1).hedges <= 7, `${place(1).hedges} hedges: the others went when it came to rest`);
});

test("with one place only a slow read is sent to it once more, and seldom", async (t) => {
  const { servers, backend, place } = await places(t, 1);
  const read = () => backend.get(PACK, { range: RANGE, isUrgent: true });
  servers[0]!.fault = (_, count) => (count === 1 ? "stall-headers" : "none");
  t.same(await read(), RIGHT);
  t.match(place(0), { requests: 2, hedges: 1, hedgesWon: 1, state: "up" });
  for (let i = 0; i < 30; i++) await read();
  // All are slow: a second request each would double the load.
  servers[0]!.delayMs = 300;
  for (let i = 0; i < 4; i++) await Promise.all(Array.from({ length: 25 }, read));
  const { hedges } = place(0);
  t.ok(hedges <= 5 + 0.05 * 131, `${hedges} hedges of 131 reads`);
  await Promise.all(Array.from({ length: 5 }, () => backend.get(PACK, { range: RANGE })));
  t.equal(place(0).hedges, hedges, "nor for what nobody waits for");
});

test("the tier is asked first, for what is named by its content, and does no harm", async (t) => {
  const missed: string[] = [];
  const onTierMiss = (path: string) => void missed.push(path);
  const { servers, backend, asked, place } = await places(t, 2, { onTierMiss }, 1);
  t.same(await backend.get(PACK, { range: RANGE }), RIGHT);
  t.same(asked(), [0, 1]);
  t.equal(place(1).isTier, true);
  await t.rejects(backend.get("locators/ab/x"), { code: "BURROW_NOT_FOUND" });
  t.same(asked(), [3, 1], "a locator changes: the tier might have an old one");
  servers[1]!.fault = () => "404";
  for (let i = 0; i < 5; i++) t.same(await backend.get(PACK, { range: RANGE }), RIGHT);
  t.same(missed, Array(5).fill(PACK), "said, so that it can be filled");
  t.equal(place(1).state, "up", "to lack things is in its nature");
  servers[1]!.fault = () => "flip";
  t.same(await backend.get(PACK), BYTES);
  t.match(place(1), { state: "resting", mismatches: 1 });
});

test("health: a grace that grows to a cap, and is forgotten after as long without a fault", async (t) => {
  let nowMs = 0;
  const health = new Health({ graceMs: 100, graceMaxMs: 500, now: () => nowMs });
  const fail = () => {
    const leave = health.admit()!;
    health.failed(leave, "no");
    if (leave === "use") health.failed(health.admit()!, "no");
  };
  const rested: number[] = [];
  for (let i = 0; i < 5; i++) {
    fail();
    rested.push(health.restMs);
    t.equal(health.admit(), undefined);
    nowMs += health.restMs;
  }
  for (const [i, most] of [100, 200, 400, 500, 500].entries())
    t.ok(rested[i]! <= most && rested[i]! >= 0.8 * most, `${rested[i]} of ${most}`);
  t.equal(health.admit(), "probe");
  t.equal(health.admit(), undefined, "one probe at a time");
  health.succeeded("probe");
  t.equal(health.admit(), "use");
  fail();
  t.ok(health.restMs > 300, "it failed again soon: the grace is as long as it was");
  nowMs += health.restMs;
  health.succeeded(health.admit()!);
  nowMs += 501;
  fail();
  t.ok(health.restMs <= 100, "it was well for as long as it rested");
  nowMs += health.restMs;
  health.released(health.admit()!);
  t.equal(health.admit(), "probe", "a probe that we ended is made again");
});

test("budget: a share of what is asked for, and a little by the clock", async (t) => {
  let nowMs = 0;
  const budget = new Budget({ share: 0.1, perSecond: 1, most: 3, now: () => nowMs });
  t.same([budget.take(), budget.take(), budget.take(), budget.take()], [true, true, true, false]);
  for (let i = 0; i < 11; i++) budget.earn();
  t.same([budget.take(), budget.take()], [true, false]);
  nowMs += 60_000;
  t.same([budget.borrow(), budget.borrow(), budget.borrow()], [0, 0, 0], "no more than the most");
  t.same([budget.borrow(), budget.borrow()], [1000, 2000], "one a second");
  budget.giveBack();
  t.equal(budget.borrow(), 2000);
});

test("latencies: by size, and nothing is said of what is not known", async (t) => {
  const latencies = new Latencies();
  for (let i = 1; i <= 100; i++) latencies.note(1000, 2 * i);
  t.equal(latencies.patienceMs(5000), 190);
  t.equal(
    latencies.patienceMs(4_000_000),
    5_000,
    "of long ones nothing is known: a second, and one for each MB",
  );
  for (let i = 1; i <= 100; i++) latencies.note(1000, 1);
  t.equal(latencies.patienceMs(5000), 25, "the old is forgotten; and a floor");
});

test("what a file of origins may say", async (t) => {
  const parse = (origins: unknown, more = {}) => parseOrigins({ format: 1, origins, ...more });
  const table = parse({
    "s3://b/store": { mirrors: ["https://m/store", "/mnt/store/"], tier: { at: "s3://near/t" } },
    "/srv/store/": { mirrors: ["http://m/", "/srv/store"], tier: { at: "http://nginx/" } },
  });
  t.same(table.get("s3://b/store"), {
    places: ["s3://b/store", "https://m/store", "/mnt/store"],
    tier: { at: "s3://near/t", isFilled: true },
  });
  t.same(table.get("/srv/store"), {
    places: ["http://m/", "/srv/store"],
    tier: { at: "http://nginx/", isFilled: false },
  });
  const bad: [unknown, RegExp][] = [
    [[], /"origins" is an object/],
    [{ "s3://b": { mirror: [] } }, /no "mirror"/],
    [{ "s3://b": { mirrors: "x" } }, /is a list/],
    [{ "s3://b": { mirrors: ["relative"] } }, /absolute path/],
    [{ relative: {} }, /absolute path/],
    [{ "s3://b": { mirrors: ["/a", "/a/"] } }, /twice/],
    [{ "s3://b": { mirrors: Array.from({ length: 8 }, (_, i) => `/m${i}`) } }, /more than 8/],
    [{ "s3://b": { mirrors: ["http://user:secret@h/"] } }, /user or password/],
    [{ "s3://b": { tier: { at: "/t", fil: true } } }, /no "fil"/],
    [{ "s3://b": { tier: { at: "http://t", fill: true } } }, /fills itself/],
    [{ "s3://b": { tier: { at: "/t", fill: 1 } } }, /true or false/],
    [{ "s3://b": { tier: { at: "s3://b" } } }, /one of its mirrors/],
    [{ "s3://b": { tier: {} } }, /absolute path/],
  ];
  for (const [origins, message] of bad)
    t.throws(() => parse(origins), { code: "BURROW_USAGE", message });
  t.throws(() => parseOrigins({ format: 2 }), { message: /"format" is 1/ });
  t.throws(() => parse({}, { orgins: {} }), { message: /no "orgins"/ });
  t.throws(() => parse({ "http://a:secret@b/": {} }), { message: /^an origin has a user/ });
});

test("a body that comes byte by byte is ended, however long it would go on", async (t) => {
  const { servers, backend, place } = await places(t, 2, { stallMs: 300, graceMs: 60_000 });
  // A byte every 50 ms: never silent for long, and hours for a range.
  servers[0]!.fault = () => "slow";
  t.same(await backend.get(PACK, { range: RANGE }), RIGHT, "from the other place");
  t.match(place(0), { requests: 1, timeouts: 1, transient: 1 });
  t.match(place(1), { requests: 1, transient: 0 });
  await backend.get(PACK, { range: RANGE });
  t.match(place(0), { state: "resting", why: /less than 4096 bytes a second/ });
});

test("an outage makes no storm: tries are paid from a budget that all reads share", async (t) => {
  // What there is at first is all: nothing is earned by a clock that slow machines outlast.
  const budget = new Budget({ share: 0, perSecond: 1e-3, most: 20 });
  let retries = 0;
  const onRetry = () => {
    retries++;
  };
  const { servers, backend, asked } = await places(t, 1, { budget, onRetry, tries: 8 });
  servers[0]!.fault = () => "503";
  const end = new AbortController();
  const { signal } = end;
  const reads = Array.from({ length: 200 }, () => backend.get(PACK, { range: RANGE, signal }));
  const ended = Promise.allSettled(reads);
  await until(() => retries >= 20);
  await sleep(500); // in which a storm would be one
  end.abort(new DOMException("no patience left", "TimeoutError"));
  const ends = await ended;
  t.ok(ends.every((end) => end.status === "rejected" && classOf(end.reason) === "transient"));
  t.ok(asked()[0]! <= 200 + retries, "each once, and the tries");
  t.equal(retries, 20, "what was saved is spent, and no more");
  // What nobody waits for does not wait for the budget: who joins it would, too.
  const background = backend.get(PACK, { range: RANGE, isUrgent: false });
  t.equal(await background.catch(classOf), "transient");
  t.equal(retries, 20, "it gives up, since nothing was saved meanwhile");
  servers[0]!.fault = () => "none";
  t.same(await backend.get(PACK, { range: RANGE }), RIGHT, "and it is over when it is over");
});
