// Hostile peers of the daemon's socket, which any user of the node can reach: what they cost is bounded, and they delay
// nobody else. From the client's side.

import { spawn } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import { type Test, test } from "tap";
import { PARKED_MAX } from "../../lib/base/limits.ts";
import { ensureDaemon } from "../../lib/cache/client.ts";
import {
  encodeAskBlob,
  encodeBare,
  encodeHello,
  FRAME_BYTES,
  Frame,
} from "../../lib/cache/mailbox-wire.ts";
import { openSocketName } from "../../lib/cache/socket-name.ts";
import { ASKS_MAX, Asks } from "../../lib/daemon/asks.ts";
import { type Files, noise, publish, TestNode } from "../suite/daemon-node.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { sleep, until } from "../suite/wait.ts";

const FILES: Files = Object.fromEntries(
  Array.from({ length: 4 }, (_, i) => [`file${i}`, noise(10_000 + i, i + 1)]),
);

/** A bare connection, and how many bytes it was sent; it reads only when told to. */
async function connectRaw(t: Test, node: TestNode): Promise<net.Socket> {
  const { name, close } = openSocketName(node.cache);
  const socket = net.connect(name).on("error", () => undefined);
  t.teardown(() => socket.destroy());
  await new Promise((resolve) => socket.once("connect", resolve));
  close();
  return socket;
}

function bare(type: number, id: number): Buffer {
  const out = Buffer.alloc(FRAME_BYTES);
  encodeBare(out, type, id);
  return out;
}

function hello(mountId: string): Buffer {
  const out = Buffer.alloc(256);
  return out.subarray(0, encodeHello(out, 0, mountId));
}

/** Peak of a process's memory, MiB. */
function peakMib(pid: number): number {
  const status = fs.readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/VmHWM:\s+(\d+)/.exec(status)![1]) / 1024;
}

async function nodeWith(t: Test, origin?: OriginServer) {
  const node = new TestNode();
  t.teardown(() => node.close());
  const published = await publish(node.store, FILES);
  return { node, published, mountId: node.mount(origin?.url ?? node.store, published.digest) };
}

test("peers that ask for status without end and take nothing", async (t) => {
  const { node, published, mountId } = await nodeWith(t);
  const daemon = await node.start();
  const before = peakMib(daemon.pid!);
  const flood = Buffer.concat(Array.from({ length: 5_000 }, (_, i) => bare(Frame.status, i)));
  for (let i = 0; i < 10; i++) {
    const socket = await connectRaw(t, node);
    socket.pause();
    socket.write(flood);
  }
  const client = await node.connect(mountId);
  t.equal((await client.askBlob(0, published.row("file1"))).errno, 0, "others are served");
  const grown = peakMib(daemon.pid!) - before;
  t.ok(grown < 200, `grown by ${Math.round(grown)} MiB`);
});

test("a peer that takes its answers late gets all of them", async (t) => {
  const { node } = await nodeWith(t);
  await node.start();
  const socket = await connectRaw(t, node);
  socket.pause();
  const count = 5_000;
  socket.write(Buffer.concat(Array.from({ length: count }, (_, i) => bare(Frame.status, i))));
  await sleep(100);
  let replies = 0;
  let held = Buffer.alloc(0);
  socket.on("data", (bytes: Buffer) => {
    held = Buffer.concat([held, bytes]);
    for (let at = 0; held.length >= 4; replies++) {
      at = held.readUInt32LE(0) + 4;
      if (held.length < at) break;
      held = held.subarray(at);
    }
  });
  socket.resume();
  t.ok(await until(() => replies === count), `${replies} of ${count}`);
});

/** A daemon whose origin answers for no pack, and the patience that it has with it. */
async function stalled(t: Test, patienceMs: number) {
  const store = new TestNode();
  t.teardown(() => store.close());
  const published = await publish(store.store, FILES);
  const server = await OriginServer.start(store.store);
  t.teardown(() => server.close());
  const mountId = store.mount(server.url, published.digest);
  await store.start({ deadlineMs: patienceMs, headerMs: patienceMs });
  server.fault = (path) => (path.startsWith("packs/") ? "stall-headers" : "none");
  return { store, published, server, mountId };
}

test("asks that are cancelled at once count while they are worked on", async (t) => {
  const { store, published, server, mountId } = await stalled(t, 3_000);
  const socket = await connectRaw(t, store);
  socket.resume();
  const frames = [hello(mountId)];
  const out = Buffer.alloc(64);
  for (let id = 1; id <= 20 * PARKED_MAX; id++) {
    frames.push(Buffer.from(out.subarray(0, encodeAskBlob(out, id, 0, id % 4))));
    frames.push(bare(Frame.cancel, id));
  }
  socket.write(Buffer.concat(frames));
  await until(async () => (await store.status()).fetch["asks"]! > 0);
  await sleep(200);
  const { asks } = (await store.status()).fetch;
  t.ok(asks! <= PARKED_MAX, `${asks} asks at work for one connection`);
  server.fault = () => "none";
  const client = await store.connect(mountId);
  const isServed = async () => (await client.askBlob(0, published.row("file1"))).errno === 0;
  t.ok(await until(isServed), "others are served once the origin answers again");
});

test("no peer has another's places for asks", async (t) => {
  const asks = new Asks();
  const places = asks.placesOf(0, 7, true);
  for (let i = 0; i < ASKS_MAX; i++) if (!places.enter()) t.fail(`${i}`);
  t.notOk(places.enter());
  t.notOk(asks.placesOf(0, 7, true).enter(), "the same process");
  t.ok(asks.placesOf(0, 8, true).enter(), "another of root's");
  t.ok(asks.placesOf(7, 7, false).enter(), "a user");
  t.ok(asks.placesOf(7, 9, false).enter(), "the same");
  places.leave();
  t.ok(asks.placesOf(0, 7, true).enter());
});

test("asks of connections that are closed at once count as their peer's", async (t) => {
  const { store, mountId } = await stalled(t, 200_000);
  const frames = [hello(mountId)];
  const out = Buffer.alloc(64);
  for (let id = 1; id <= PARKED_MAX; id++)
    frames.push(Buffer.from(out.subarray(0, encodeAskBlob(out, id, 0, id % 4))));
  const flood = Buffer.concat([...frames, bare(Frame.status, 0)]);
  for (let i = 0; i < ASKS_MAX / PARKED_MAX + 4; i++) {
    const socket = await connectRaw(t, store);
    let said = "";
    socket.on("data", (bytes: Buffer) => {
      said += bytes.toString("latin1");
    });
    socket.write(flood);
    t.ok(await until(() => said.includes('"fetch"')));
    socket.destroy();
  }
  t.equal((await store.status()).fetch["asks"], ASKS_MAX);
});

test("a frame longer than any that a peer may send ends its connection", async (t) => {
  const { node } = await nodeWith(t);
  await node.start();
  const socket = await connectRaw(t, node);
  let isClosed = false;
  socket.once("close", () => {
    isClosed = true;
  });
  socket.resume();
  const head = bare(Frame.hello, 1);
  head.writeUInt32LE(60_000, 0);
  socket.write(head);
  t.ok(await until(() => isClosed), "not waited for");
});

test("silent peers, however many, don't keep out who speaks", async (t) => {
  const { node, published, mountId } = await nodeWith(t);
  await node.start();
  const silent: net.Socket[] = [];
  for (let i = 0; i < 600; i++) {
    const socket = await connectRaw(t, node);
    socket.resume();
    silent.push(socket);
  }
  const isBounded = async () => (await node.status()).now.connections < 300;
  t.ok(await until(isBounded), `${(await node.status()).now.connections} held`);
  const client = await node.connect(mountId);
  t.equal((await client.askBlob(0, published.row("file2"))).errno, 0);
  t.notOk(client.isClosed);
});

/** What another user of the node runs: COUNT connections that say HELLO, made anew when they are closed. */
const HOARDER = `
  const [path, frame, count] = process.argv.slice(1);
  const take = () => {
    const socket = require("node:net").connect(path).on("error", () => {}).resume();
    if (frame !== "") socket.write(Buffer.from(frame, "hex"));
    socket.once("close", () => setTimeout(take, 20));
  };
  for (let i = 0; i < Number(count); i++) take();
  console.log("at it");`;

const isRoot = process.getuid?.() === 0;
for (const kind of ["welcomed", "silent"]) {
  test(`a user who hoards ${kind} connections leaves the others theirs`, {
    skip: isRoot ? false : "needs a second user",
  }, async (t) => {
    const { node, published, mountId } = await nodeWith(t);
    // Half of its FDs, 128, may be connections.
    await node.start({}, ["prlimit", "--nofile=256"]);
    const early = await node.connect(mountId);
    fs.chmodSync(node.root, 0o755);
    const frame = kind === "welcomed" ? hello(mountId).toString("hex") : "";
    const words = ["-e", HOARDER, `${node.cache}/daemon.sock`, frame, "400"];
    const hoarder = spawn(process.execPath, words, {
      uid: 65_534,
      gid: 65_534,
      stdio: ["ignore", "pipe", "inherit"],
    });
    t.teardown(() => hoarder.kill("SIGKILL"));
    await new Promise((resolve) => hoarder.stdout.once("data", resolve));
    const isFull = async () => (await node.status()).now.connections >= (frame ? 120 : 30);
    t.ok(await until(isFull), "it has what it can get");
    const clients = [early];
    for (let round = 0; round < 20; round++) {
      const client = await node.connect(mountId);
      clients.push(client);
      const { errno } = await client.askBlob(0, published.row(`file${round % 4}`));
      t.equal(errno, 0, `client ${round}`);
    }
    t.equal((await early.askBlob(0, published.row("file1"))).errno, 0, "who was there first");
    t.ok(clients.every((client) => !client.isClosed));
    const { connections } = (await node.status()).now;
    t.ok(connections <= 128, `${connections} connections of 256 FDs`);
  });
}

test("a silent peer does not keep an idle daemon alive", async (t) => {
  const { node } = await nodeWith(t);
  const daemon = await node.start({ idleMs: 500, silentMs: 300 });
  const socket = await connectRaw(t, node);
  socket.resume();
  t.ok(await until(() => daemon.exitCode === 0), "it ended");
});

test("nobody ends a daemon through its socket, nor floods its log", async (t) => {
  const { node, published, mountId } = await nodeWith(t);
  const daemon = await node.start();
  for (let round = 0; round < 300; round++) {
    const socket = await connectRaw(t, node);
    socket.resume();
    const closed = new Promise((resolve) => socket.once("close", resolve));
    socket.write(
      Buffer.concat([hello(`no-${round}`), hello("no-2"), hello("no-3"), bare(Frame.stop, 9)]),
    );
    await closed;
  }
  t.equal(daemon.exitCode, null, "it lives");
  const client = await node.connect(mountId);
  t.equal((await client.askBlob(0, published.row("file1"))).errno, 0);
  const lines = node.output.split("\n").filter((line) => line.includes("hello refused"));
  t.ok(lines.length > 0 && lines.length <= 150, `${lines.length} lines`);
});

test("a daemon in the background writes nothing into a file that is gone", async (t) => {
  const { node } = await nodeWith(t);
  await ensureDaemon({ cache: node.cache, state: node.state });
  const { pid } = await node.status();
  t.teardown(() => process.kill(pid, "SIGTERM"));
  const output = `/proc/${pid}/fd/2`;
  t.equal(fs.statSync(output).nlink, 0);
  const before = fs.statSync(output).size;
  for (let round = 0; round < 5; round++) {
    const socket = await connectRaw(t, node);
    socket.resume();
    const closed = new Promise((resolve) => socket.once("close", resolve));
    socket.write(Buffer.concat([hello("none"), bare(Frame.stop, 1)]));
    await closed;
  }
  t.equal(fs.statSync(output).size, before);
});
