// The main socket of a live server: framing, hang-ups at every point, and clients that send by drops or do not read.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { native } from "../../lib/sys/native.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { openPath, stat } from "../suite/lisafs-calls.ts";
import { LisafsClient, PAYLOAD_MAX } from "../suite/lisafs-client.ts";
import { isSanitized, serveHost, startGofer, temporary } from "../suite/served.ts";
import { blockUntil, LATE_MS, sleepMs } from "../suite/wait.ts";

const noFds = new Int32Array(1);
/** A server that waited for the other client would take for ever; a busy machine takes a part of this. */
const DELAY_MAX_MS = LATE_MS;

function frame(
  mid: number,
  payload: Uint8Array = Buffer.alloc(0),
  length = payload.length,
): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt32LE(length, 0);
  header.writeUInt16LE(mid, 4);
  return Buffer.concat([header, payload]);
}

function fdid(fd: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(fd));
  return bytes;
}

/** Two mounts of one gofer: one client misbehaves, the other must not notice. */
function serveTwo(t: Parameters<typeof startGofer>[0], fileCount = 0) {
  const { gofer, clients } = serveMany(t, 2, fileCount);
  return { gofer, good: clients[0]!, bad: clients[1]! };
}

/** `count` mounts of a directory with `fileCount` files in "d"; the first client has a channel. */
function serveMany(t: Parameters<typeof startGofer>[0], count: number, fileCount = 0) {
  const directory = temporary(t);
  mkdirSync(join(directory, "d"));
  for (let i = 0; i < fileCount; i++) writeFileSync(join(directory, `d/a-long-name-${i}`), "");
  const mounts = Array.from({ length: count }, (_, i) => ({
    destination: `/${i}`,
    source: directory,
    isReadOnly: true,
  }));
  const gofer = startGofer(t, mounts);
  const clients = mounts.map((_, i) => LisafsClient.mount(gofer.takeSocket(i), i === 0 ? 1 : 0));
  t.teardown(() => {
    for (const client of clients) client.close();
  });
  return { gofer, clients };
}

/** The slowest of `count` calls of a client, ms. */
function slowestMs(client: LisafsClient, count: number): number {
  let slowest = 0;
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    stat(client, client.rootFd);
    slowest = Math.max(slowest, performance.now() - start);
  }
  return slowest;
}

test("a message may come in any pieces", (t) => {
  const { client } = serveHost(t);
  const bytes = frame(Mid.FStat, fdid(client.rootFd));
  for (let cut = 1; cut < bytes.length; cut++) {
    client.socket.send(bytes.subarray(0, cut));
    sleepMs(2);
    client.socket.send(bytes.subarray(cut));
    const reply = client.socket.receive();
    t.strictSame([reply.mid, reply.payload.length], [Mid.FStat, 144], `cut at ${cut}`);
  }
  t.end();
});

test("requests that come at once are answered in their order", (t) => {
  const { client } = serveHost(t);
  const bytes = [];
  for (let i = 0; i < 100; i++)
    bytes.push(frame(i % 2 === 0 ? Mid.FStat : 999, fdid(client.rootFd)));
  client.socket.send(Buffer.concat(bytes));
  for (let i = 0; i < 100; i++) {
    const { errno } = client.socket.receive();
    if (errno !== (i % 2 === 0 ? 0 : Errno.EOPNOTSUPP)) t.fail(`reply ${i}: ${errno}`);
  }
  t.equal(client.call(Mid.FStat, { fd: client.rootFd }).errno, 0);
  t.end();
});

test("a header that says more than a message may have is EIO and the end", (t) => {
  const lengths = [PAYLOAD_MAX + 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
  const { clients } = serveMany(t, 1 + lengths.length);
  const [good, ...others] = clients as [LisafsClient, ...LisafsClient[]];
  for (const [i, length] of lengths.entries()) {
    const bad = others[i]!;
    bad.socket.send(frame(Mid.PWrite, Buffer.alloc(0), length));
    t.equal(bad.socket.receive().errno, Errno.EIO, `${length} bytes`);
    t.equal(bad.socket.receive().errno, Errno.ECONNRESET, "then the connection is closed");
    t.equal(stat(good, good.rootFd).mode & 0o170000, 0o040000, "another lives");
  }
  t.end();
});

test("a hang-up at any point frees what the connection held", (t) => {
  const cuts = [0, 1, 7, 8, 9, 15];
  const directory = temporary(t);
  writeFileSync(join(directory, "f"), "content");
  const gofer = startGofer(
    t,
    [...cuts, 0].map((_, i) => ({ destination: `/${i}`, source: directory, isReadOnly: true })),
  );
  const stays = LisafsClient.mount(gofer.takeSocket(cuts.length));
  t.teardown(() => stays.close());
  for (const [i, cut] of cuts.entries()) {
    const before = gofer.fdCount;
    const client = LisafsClient.mount(gofer.takeSocket(i), 2);
    openPath(client, "/");
    for (let opened = 0; opened < 20; opened++) openPath(client, "f");
    t.ok(gofer.fdCount > before + 20);
    client.socket.send(frame(Mid.FStat, fdid(client.rootFd)).subarray(0, cut));
    client.close();
    // Its socket, its root's FD and its tree's FD of /proc go too.
    t.ok(
      blockUntil(() => gofer.fdCount < before),
      `after ${cut} bytes`,
    );
    t.equal(stat(stays, stays.rootFd).mode & 0o170000, 0o040000);
  }
  t.end();
});

test("a client that sends a byte a second delays nobody else", (t) => {
  const { bad, good } = serveTwo(t);
  const bytes = frame(Mid.FStat, fdid(bad.rootFd));
  for (const byte of bytes.subarray(0, 5)) {
    bad.socket.send(Uint8Array.of(byte));
    t.ok(slowestMs(good, 2000) < DELAY_MAX_MS, "a call of another connection");
  }
  bad.socket.send(bytes.subarray(5));
  t.equal(bad.socket.receive().mid, Mid.FStat, "and it is answered at last");
  t.end();
});

test("a client that never reads its replies delays nobody else", (t) => {
  const { gofer, bad, good } = serveTwo(t, 2000);
  const directory = openPath(bad, "d");
  const request = Buffer.alloc(16);
  request.writeBigUInt64LE(BigInt(directory));
  request.writeInt32LE(-1_000_000, 8);
  const bytes = frame(Mid.Getdents64, request);
  const before = gofer.rssBytes;
  let sent = 0;
  for (let i = 0; i < 20_000; i++) {
    if (native.sendMessage(bad.socket.fd, bytes, noFds, 0) < 0) break;
    sent++;
  }
  t.ok(sent < 20_000, `the server stops to read after ${sent} requests`);
  t.ok(slowestMs(good, 5000) < DELAY_MAX_MS, "a call of another connection");
  const growth = gofer.rssBytes - before;
  t.ok(growth < 32 * 1024 * 1024 || isSanitized, "nothing is queued");
  for (let i = 0; i < Math.min(sent, 50); i++) {
    if (bad.socket.receive().mid !== Mid.Getdents64) t.fail(`reply ${i}`);
  }
  t.end();
});

test("a client that floods its socket does not starve another's channel", (t) => {
  const { bad, good } = serveTwo(t);
  const flood = Buffer.concat(
    Array.from({ length: 400 }, () => frame(Mid.FStat, fdid(bad.rootFd))),
  );
  let slowest = 0;
  const sink = Buffer.alloc(1 << 20);
  for (let round = 0; round < 50; round++) {
    native.sendMessage(bad.socket.fd, flood, noFds, 0);
    slowest = Math.max(slowest, slowestMs(good, 100));
    while (native.receiveMessage(bad.socket.fd, sink, noFds, 0x40) > 0);
  }
  t.ok(slowest < DELAY_MAX_MS, `its slowest of 5,000 calls took ${slowest.toFixed(2)} ms`);
  t.end();
});
