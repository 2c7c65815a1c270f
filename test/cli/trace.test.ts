// Owns: proof that a trace is read as it was written and no other way, that its figures are right, and that the page made of it holds all
// of it and nothing that a name could make a browser do. Plane: control.

import { createHash } from "node:crypto";
import fs from "node:fs";
import { test } from "tap";
import {
  parseTrace,
  readTraceFile,
  showTrace,
  type TraceContent,
} from "../../lib/cli/trace-file.ts";
import { tracePage } from "../../lib/cli/trace-page.ts";
import { summarize, summarizeFiles } from "../../lib/cli/trace-summary.ts";
import { readTrace, TRACE_BYTES, TRACE_RECORDS_MAX, Trace } from "../../lib/serve/trace.ts";
import { noise } from "../suite/daemon-node.ts";
import { madeTrace } from "../suite/traces.ts";
import { newNode } from "./cli.ts";

const PATHS = ["/opt/env/a.py", "/opt/env/<script>alert(3)</script>", "/opt/env/b & c"];

test("what a gofer notes is read again, and what finds no room is counted", async (t) => {
  const home = new ArrayBuffer(TRACE_BYTES);
  const trace = new Trace(home, 1_000);
  trace.note(7, 2, -2, performance.now(), 2 ** 33 + 5, 12, 4096);
  const { records, dropped } = readTrace(new Uint8Array(home));
  t.match(records, [
    { kind: 7, mount: 2, errno: 2, subject: 2 ** 33 + 5, offset: 12, count: 4096 },
  ]);
  t.ok(records[0]!.startMs >= 1_000 && records[0]!.durationMs >= 0);
  t.equal(dropped, 0);
  const successor = new Trace(home, 1_000);
  for (let i = 0; i < TRACE_RECORDS_MAX + 3; i++) successor.note(5, 0, 0, 0, 1, 0, 1);
  const full = readTrace(new Uint8Array(home));
  t.equal(full.records.length, TRACE_RECORDS_MAX, "a successor goes on behind it");
  t.equal(full.dropped, 4);
  const seed = Date.now() % 0x7fff_ffff;
  const wild = new Uint8Array(noise(TRACE_BYTES, seed));
  wild.set(new Uint8Array(home, 0, 12));
  const all = readTrace(wild).records.flatMap((record) => Object.values(record) as number[]);
  t.ok(all.every(Number.isFinite), `whatever a gofer wrote is numbers: seed ${seed}`);
  t.same(readTrace(new Uint8Array(10)), { records: [], dropped: 0 });
  t.same(readTrace(new Uint8Array(TRACE_BYTES)), { records: [], dropped: 0 }, "nothing was noted");
});

test("a trace is read as it was written", async (t) => {
  const made = madeTrace(20, PATHS);
  const text = showTrace(made);
  t.same(parseTrace(text, "x"), made);
  const times = text
    .trim()
    .split("\n")
    .map((line) => (JSON.parse(line) as { ms?: number }).ms ?? -1);
  t.same(
    times,
    [...times].sort((a, b) => a - b),
    "events come in their order",
  );
  t.same(parseTrace(text.replace('"mount":0', '"mount":0,"later":1'), "x").rpcs, made.rpcs);
});

test("what is no trace is refused, with where", async (t) => {
  const lines = showTrace(madeTrace(3, PATHS)).trim().split("\n");
  const wrong: readonly [string, RegExp][] = [
    ["", /no head/],
    ["{}", /line 1 is none of a trace/],
    ["not json", /line 1 is none/],
    ["null", /line 1 is none/],
    [[...lines, lines[0]].join("\n"), /no head/],
    [lines.join("\n").replace('"format":1', '"format":2'), /its format is 2; this program reads 1/],
    [lines.join("\n").replace('"us":50', '"us":"50"'), /is none of a trace/],
    [lines.join("\n").replace('"us":50', '"us":1e999'), /is none of a trace/],
    [lines.join("\n").replace('"kind":"rpc"', '"kind":"__proto__"'), /is none of a trace/],
    [lines.join("\n").replace('"file":1', '"file":99'), /speaks of what isn't there/],
    [lines.join("\n").replace('"package":1', '"package":-2'), /speaks of what isn't there/],
  ];
  for (const [text, why] of wrong) t.throws(() => parseTrace(text, "x"), why);
  t.throws(() => readTraceFile("/none/x"), {
    code: "BURROW_NOT_FOUND",
    message: "there is no trace /none/x",
  });
  t.throws(() => readTraceFile("/proc"), { code: "BURROW_IO", message: "can't read the trace" });
});

test("a summary says what was read, waited for and brought in vain", async (t) => {
  const made = madeTrace(30, PATHS);
  const files = summarizeFiles(made);
  const [a, b, c] = files;
  t.match(a, { isRead: false, misses: 1, waitedMs: 3, prefetchedBytes: 10_000, wastedBytes: 0 });
  t.match(b, { isRead: true, readBytes: 10_001, requests: 10 }, "of what was handed over all");
  t.match(c, { isRead: false, misses: 1, waitedMs: 4, wastedBytes: 5_000 });
  const summary = summarize(made, files);
  t.match(summary, {
    ms: 21,
    rpcs: 30,
    misses: 3,
    waitedMs: 8,
    blockedMs: 6,
    firstReads: 1,
    firstReadsLocal: 1,
    fetches: 2,
    failedFetches: 1,
    fetchedBytes: 300_000,
    prefetchedBytes: 15_000,
    wastedBytes: 5_000,
    neverRead: ["numpy-1.24.2", "idle-1.0"],
  });
  t.match(summary.packages[1], { filesRead: 1, files: 50, readBytes: 10_001, requests: 10 });
  t.same(summary.rpcsByName, { Walk: 10, OpenAt: 10, PRead: 10 });
});

/** What the page holds for its script. */
function heldBy(page: string): { files: string[][]; rpcs: number[][]; head: TraceContent["head"] } {
  const [, json] = /<script type="application\/json" id="trace">([^<]*)<\/script>/.exec(page)!;
  return JSON.parse(json!);
}

test("numbers that would keep a reader busy for ever are none", async (t) => {
  const made = madeTrace(20, PATHS);
  const [rpc, ...rpcs] = made.rpcs;
  const read = { ...rpc!, name: "PRead", file: 0, errno: 0, page: 0 };
  const all = { ...read, count: 2 ** 43 };
  const opened = { ...read, name: "OpenAt" };
  const files = summarizeFiles({ ...made, rpcs: [opened, ...Array(100).fill(all), ...rpcs] });
  t.equal(files[0]!.readBytes, made.files[0]!.bytes);
  for (const wrong of [{ ms: 1e17 }, { us: -1e300 }, { count: 2 ** 44 }]) {
    const text = showTrace({ ...made, rpcs: [{ ...read, ...wrong }] });
    t.throws(() => parseTrace(text, "x"), /is none of a trace/, JSON.stringify(wrong));
  }
});

test("the page holds all of a trace, and no name in it is more than text", async (t) => {
  const made = madeTrace(100, PATHS);
  const page = tracePage(made);
  const held = heldBy(page);
  t.same(
    held.files.map(([path]) => path),
    PATHS,
  );
  t.same(held.head, made.head);
  t.equal(held.rpcs.length, 100);
  t.notMatch(page, /alert\(\d\)<\/script|<img|<b>/, "nothing of it is markup");
  const [, policy] = /http-equiv="Content-Security-Policy" content="([^"]*)"/.exec(page)!;
  t.match(policy, /^default-src 'none'; /);
  const [, script] = /<script>([\s\S]*)<\/script>/.exec(page)!;
  const [, style] = /<style>([\s\S]*)<\/style>/.exec(page)!;
  for (const text of [script!, style!])
    t.ok(policy!.includes(`'sha256-${createHash("sha256").update(text).digest("base64")}'`));
  t.notMatch(page.replace(/<script[\s\S]*?<\/script>/g, ""), /https?:|src=|href=|style="/);
  t.notMatch(script, /innerHTML|outerHTML|insertAdjacent|document\.write|eval\(/);
});

test("burrow trace writes a page, prints a summary, and refuses the rest", async (t) => {
  const node = newNode(t);
  const file = node.file("start.jsonl", showTrace(madeTrace(60, PATHS)));
  const out = node.path("start.html");
  const [report, summary, folder, wrong] = await Promise.all([
    node.run(["trace", "report", file, "-o", out]),
    node.run(["trace", "summary", file]),
    node.run(["trace", "report", file, "-o", node.dir]),
    node.run(["trace", "summary", node.file("other", "[]")]),
  ]);
  t.match(report, { code: 0, stdout: /start\.html: \d+\.\d kB\n/, stderr: "" });
  t.match(fs.readFileSync(out, "utf8"), /^<!doctype html>/);
  t.match(summary, { code: 0, stdout: /never read: numpy-1\.24\.2, idle-1\.0\n$/ });
  t.match(folder, { code: 2, stderr: /is a directory/ });
  t.match(wrong, { code: 2, stderr: /line 1 is none of a trace/ });
});
