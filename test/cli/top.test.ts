// Owns: proof that burrow top's figures are those of the daemon, and that it leaves a terminal as it was, however it ends. Plane: control.

import { type ChildProcess, spawn } from "node:child_process";
import fs from "node:fs";
import { type Test, test } from "tap";
import { type TopFigures, type TopStatus, topFigures } from "../../lib/cli/top-figures.ts";
import { noise, publish, TestNode } from "../suite/daemon-node.ts";
import { until } from "../suite/wait.ts";
import { MAIN } from "./cli.ts";

const METER = { requests: 0, bytes: 0, transient: 0, permanent: 0 };

function status(pid: number, scale: number): TopStatus {
  const idle = { demand: 0, background: 0, demandQueued: 0, backgroundQueued: 0, intakeBytes: 0 };
  return {
    pid,
    upMs: 1_000 * scale,
    now: { connections: 3, standbys: 1, isIdle: false },
    fetch: { asks: 10 * scale, failedAsks: 1, hits: 4 * scale },
    room: { usedBytes: 500, limitBytes: 1_000, memory: { usedBytes: 0 } },
    origins: {
      "/idle": { ...METER, bytes: 9_000 },
      "https://user:secret@busy/?sig=1": { ...METER, bytes: 1_000 * scale, requests: 2 * scale },
    },
    queues: { "/idle": idle, "https://user:secret@busy/?sig=1": { ...idle, demand: 5 } },
    views: {
      quiet: { asks: 1, failedAsks: 0, blockedMs: 9_000, fetchedBytes: 1, touches: 0 },
      waits: { asks: scale, blockedMs: 1_500 * scale, touches: 4, localTouches: 3 },
    },
    prefetch: { prefetchedBytes: 200, usedBytes: 50, touches: 10 * scale, localTouches: 8 * scale },
    process: { residentBytes: 1, cpuMs: 250 * scale },
  } as unknown as TopStatus;
}

test("rates are of the time between two looks, and of the same daemon", async (t) => {
  const of = topFigures(status(7, 2), status(7, 4), 2);
  t.match(of, {
    bytesPerSecond: 1_000,
    requestsPerSecond: 2,
    asksPerSecond: 10,
    diskHitsPerSecond: 4,
    cpuShare: 0.25,
    localShare: 0.8,
    prefetchUsedShare: 0.25,
    cacheUsedBytes: 500,
  });
  t.match(of.origins, [
    { bytes: 4_000, demand: 5 },
    { name: "/idle", bytesPerSecond: 0 },
  ]);
  t.match(of.views[0], { name: "waits", waiting: 1.5, localShare: 0.75, fetchedBytes: 0 });
  t.match(of.views[1], { name: "quiet", waiting: 0, localShare: null });
  const anew = topFigures(status(7, 4), status(8, 1), 1);
  t.match(anew, { asksPerSecond: 10, bytesPerSecond: 10_000 }, "another one began at nothing");
  const bare = { ...status(7, 1), views: undefined, queues: undefined, prefetch: undefined };
  t.match(topFigures(bare as unknown as TopStatus, bare as unknown as TopStatus, 1), {
    localShare: null,
    views: [],
  });
});

function top(node: TestNode, ...words: readonly string[]): string[] {
  return [MAIN, "top", "--cache", node.cache, "--state", node.state, ...words];
}

interface Ended {
  readonly code: number | null;
  readonly text: string;
}

function ended(child: ChildProcess): Promise<Ended> {
  let text = "";
  child.stdout!.on("data", (more: Buffer) => {
    text += more.toString();
  });
  child.stderr!.on("data", (more: Buffer) => {
    text += more.toString();
  });
  return new Promise((resolve) => child.once("close", (code) => resolve({ code, text })));
}

async function makeNode(t: Test): Promise<TestNode> {
  const node = new TestNode();
  t.teardown(() => node.close());
  const { digest, row } = await publish(node.store, { one: noise(5_000, 1), two: noise(6_000, 2) });
  await node.start({ profiles: true });
  const client = await node.connect(node.mount(node.store, digest));
  await client.askBlob(0, row("one"));
  await node.settled();
  return node;
}

test("once, into a pipe, and where no daemon runs", async (t) => {
  const node = await makeNode(t);
  const run = (...words: readonly string[]) =>
    ended(spawn(process.execPath, top(node, "--interval", "0.1", ...words)));
  const piped = spawn(process.execPath, top(node, "--interval", "0.1", "--json"));
  const lines = new Promise<string>((resolve) => {
    let text = "";
    piped.stdout.on("data", (more: Buffer) => {
      text += more.toString();
      if (text.split("\n").length > 2) resolve(text);
    });
  });
  const [json, people, many] = await Promise.all([run("--once", "--json"), run("--once"), lines]);
  t.equal(json.code, 0);
  const figures = JSON.parse(json.text) as TopFigures;
  t.match(figures, { asks: 1, prefetchedBytes: 6_000, origins: [{ name: node.store }] });
  t.match(people, { code: 0, text: /^daemon +pid \d+, up .*\n[\s\S]*ORIGIN[\s\S]*VIEW/ });
  t.notMatch(people.text, /\x1b/);
  for (const line of many.trim().split("\n").slice(0, 2)) t.equal(JSON.parse(line).asks, 1);
  piped.stdout.destroy();
  t.equal((await new Promise((resolve) => piped.once("exit", resolve))) as number, 141);
  const none = [MAIN, "top", "--once", "--cache", `${node.root}/none`];
  const alone = await ended(spawn(process.execPath, none));
  t.match(alone, { code: 1, text: /no daemon runs.*\(BURROW_DAEMON\)/ });
});

const SCRIPT = "/usr/bin/script";
const skip = fs.existsSync(SCRIPT) ? false : `no ${SCRIPT} to make a terminal`;

test("a terminal is as it was after q, and after a signal", { skip }, async (t) => {
  const node = await makeNode(t);
  const command = `exec ${process.execPath} ${top(node, "--interval", "0.2").join(" ")}`;
  const start = async () => {
    const child = spawn(SCRIPT, ["-qefc", command, "/dev/null"], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    let text = "";
    child.stdout.on("data", (more: Buffer) => {
      text += more.toString();
    });
    const end = ended(child);
    t.ok(await until(() => text.includes("ORIGIN")), "figures are shown");
    return { child, end };
  };
  const [key, signal] = await Promise.all([start(), start()]);
  key.child.stdin.write("q");
  const children = `/proc/${signal.child.pid}/task/${signal.child.pid}/children`;
  process.kill(Number(fs.readFileSync(children, "utf8")), "SIGTERM");
  for (const [{ end }, code] of [
    [key, 0],
    [signal, 143],
  ] as const) {
    const of = await end;
    t.equal(of.code, code);
    t.ok(of.text.startsWith("\x1b[?1049h\x1b[?25l"));
    t.ok(of.text.endsWith("\x1b[?25h\x1b[?1049l"), "the cursor is back, and the own screen");
  }
});
