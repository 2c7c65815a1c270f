// A compromised sentry on the wire: what it parks, never takes, shuts down, guesses, and asks for at odd sizes. Rule: errnos, bounded
// memory and FDs, and its other connections are served meanwhile.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Test, test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { native } from "../../lib/sys/native.ts";
import { MID_COUNT, Mid, midName } from "../../lib/wire/lisafs/mid.ts";
import { noise, publish, TestNode } from "../suite/daemon-node.ts";
import {
  close,
  contentOf,
  type Dirent,
  getdents,
  open,
  openPath,
  read,
  stat,
  walkTo,
} from "../suite/lisafs-calls.ts";
import {
  CHANNEL_START,
  type ChannelPathway,
  LisafsClient,
  PAYLOAD_MAX,
  WINDOW_HEADER,
} from "../suite/lisafs-client.ts";
import {
  isSanitized,
  noUpper,
  onBothPathways,
  serveMount,
  serveUpper,
  serveView,
  startGofer,
  temporary,
} from "../suite/served.ts";
import { makeView } from "../suite/view-cache.ts";
import { blockUntil, sleepMs } from "../suite/wait.ts";

const MIB = 1024 * 1024;
const NAMES = ["a", "b", "c", "d"];
const FILES = Object.fromEntries(NAMES.map((name) => [name, `content of ${name}`]));
const own = { uid: 0xffff_ffff, gid: 0xffff_ffff };

/** Mounts of one view whose files are all missing, with no daemon: what is opened is parked until its deadline. */
function serveMissing(t: Test, count: number, deadlineMs: number) {
  const directory = temporary(t);
  const source = makeView(directory, FILES, NAMES);
  const mounts = Array.from({ length: count }, (_, i) => ({
    destination: i === 0 ? "/" : `/m${i}`,
    source,
    isReadOnly: true,
  }));
  const env = { BURROW_STATE: directory, BURROW_MISS_DEADLINE_MS: String(deadlineMs) };
  const gofer = startGofer(t, mounts, env);
  const clients = mounts.map((_, i) => LisafsClient.mount(gofer.takeSocket(i), 4));
  t.teardown(() => {
    for (const client of clients) client.close();
  });
  return { gofer, clients };
}

/** Gives control with an OpenAt in a message of `bytes`, and does not wait. */
function startOpen(channel: ChannelPathway, control: number, bytes = 16): void {
  channel.buffer.fill(0x55, CHANNEL_START, CHANNEL_START + bytes);
  channel.view.setUint16(WINDOW_HEADER, Mid.OpenAt, true);
  channel.buffer.writeBigUInt64LE(BigInt(control), CHANNEL_START);
  channel.buffer.writeUInt32LE(0, CHANNEL_START + 8);
  const { timeoutMs } = channel;
  channel.timeoutMs = 1;
  const { errno } = channel.transactRaw(4 + bytes);
  channel.timeoutMs = timeoutMs;
  if (errno !== Errno.ETIMEDOUT) throw new Error(`the open was answered at once: ${errno}`);
}

test("the largest messages, parked on every channel, are not kept", { skip: isSanitized }, (t) => {
  const { gofer, clients } = serveMissing(t, 12, 60_000);
  const controls = clients.map((client) => NAMES.map((name) => walkTo(client, name)));
  const before = gofer.rssBytes;
  for (const [i, client] of clients.entries()) {
    for (const [k, channel] of client.channels.entries()) {
      startOpen(channel, controls[i]![k]!, PAYLOAD_MAX);
    }
  }
  sleepMs(100);
  const grown = (gofer.rssBytes - before) / MIB;
  t.ok(grown < 16, `${clients.length * 4} of 2 MiB: grown by ${Math.round(grown)} MiB`);
  t.end();
});

test("channels that are shut down while their requests wait, and a hang-up, give all back", (t) => {
  const { gofer, clients } = serveMissing(t, 2, 2_000);
  const [bad, good] = clients as [LisafsClient, LisafsClient];
  const windows = gofer.windowCount;
  const controls = NAMES.map((name) => walkTo(bad, name));
  for (const [k, channel] of bad.channels.entries()) startOpen(channel, controls[k]!);
  // What a client does that gives up: lisafs-wire section 2.4.
  for (const channel of bad.channels) channel.view.setUint32(0, 2, true);
  t.equal(stat(good, good.rootFd).mode & 0o777, 0o755, "another is served");
  const { errno } = bad.call(Mid.FStat, { fd: bad.rootFd }, undefined, bad.socket);
  t.equal(errno, 0, "its socket, too");
  blockUntil(() => gofer.windowCount <= windows - 4);
  t.equal(gofer.windowCount, windows - 4, "past the deadline they are unmapped");
  const before = gofer.fdCount;
  // A request waits on the socket, more bytes lie behind it, and it hangs up.
  const header = Buffer.alloc(8 + 16);
  header.writeUInt32LE(16, 0);
  header.writeUInt16LE(Mid.OpenAt, 4);
  header.writeBigUInt64LE(BigInt(controls[0]!), 8);
  bad.socket.send(Buffer.concat([header, header, header]));
  bad.close();
  t.ok(
    blockUntil(() => gofer.fdCount < before),
    "the hang-up is seen at the deadline at the latest",
  );
  t.equal(stat(good, good.rootFd).mode & 0o777, 0o755);
  t.end();
});

test("FDs that a client never takes are not kept for it", (t) => {
  const { client, gofer } = serveView(t, { f: "content" }, [], { channels: 2 });
  const [deaf, other] = client.channels as [ChannelPathway, ChannelPathway];
  const control = walkTo(client, "f");
  const before = gofer.fdCount;
  let given = 0;
  const calls = 3000;
  for (let i = 0; i < calls; i++) {
    deaf.view.setUint16(WINDOW_HEADER, Mid.OpenAt, true);
    deaf.view.setUint16(WINDOW_HEADER + 2, 0, true);
    deaf.buffer.writeBigUInt64LE(BigInt(control), CHANNEL_START);
    deaf.buffer.writeUInt32LE(0, CHANNEL_START + 8);
    const got = native.channelCall(deaf.window, 4 + 16, 5000);
    if (got < 0 || deaf.view.getUint16(WINDOW_HEADER, true) !== Mid.OpenAt) {
      return t.fail(`open ${i}: ${got}`);
    }
    given += deaf.view.getUint8(WINDOW_HEADER + 2);
    close(client, Number(deaf.buffer.readBigUInt64LE(CHANNEL_START)));
    client.pathway = other;
  }
  t.ok(given > 0 && given < calls, `${given} of ${calls} were sent, the others opened without`);
  t.ok(gofer.fdCount <= before + 1, "ours are closed");
  const { fd, hostFd } = open(client, control);
  t.equal(contentOf(hostFd).toString(), "content", "another channel gets its own");
  client.takeBack([hostFd]);
  close(client, fd);
  t.end();
});

test("Mount and Channel, again and again, over either pathway", (t) => {
  const { client, gofer } = serveView(t, { f: "content" });
  onBothPathways(client, () => {
    for (let i = 0; i < 500; i++) {
      const { errno, payload } = client.call(Mid.Mount);
      if (errno !== 0 || Number(payload.readBigUInt64LE(0)) !== client.rootFd) t.fail(`${i}`);
      if (i > 2) t.equal(client.openChannel(), Errno.ENOMEM);
      else client.openChannel();
    }
  });
  t.equal(client.channels.length, 4);
  t.equal(gofer.windowCount, 4);
  for (const channel of client.channels) {
    client.pathway = channel;
    t.equal(read(client, openPath(client, "f"), 3, 100).toString(), "tent");
  }
  t.end();
});

/** A view of a base and two grafts, one of them below directories that no snapshot has. */
async function serveGrafts(t: Test) {
  const node = new TestNode();
  t.teardown(() => node.close());
  const content = (seed: number) => noise(3 * MIB + 5, seed);
  const made = [];
  for (const seed of [1, 2, 3]) {
    made.push(
      await publish(node.store, { [`f${seed}`]: content(seed), [`d/g${seed}`]: noise(9, 4) }),
    );
  }
  const id = node.mount(node.store, ...made.map(({ digest }) => digest));
  const path = join(node.state, "mounts", id, "mount.json");
  writeFileSync(path, readFileSync(path, "utf8").replace("/graft1", "/deep/er/graft1"));
  await node.start();
  return { ...(await serveMount(t, node, id)), content };
}

test("every number near a border of the inode numbers is an inode of the view or EBADF", async (t) => {
  const { client, gofer, content } = await serveGrafts(t);
  const inodes = new Set<number>();
  const numbers: number[] = [];
  const snapshots = [0, 1, 2, 3, 4, 255, 256, 257, 258, 259, 2 ** 19, 2 ** 20, 2 ** 21 - 1];
  for (const base of [...snapshots.map((n) => n * 2 ** 32), 2 ** 31, 2 ** 52, 2 ** 53 - 3]) {
    for (let i = -3; i < 9; i++) numbers.push(base + i);
  }
  const request = { names: ["graft0", "f2"], count: 100, name: "x", otherName: "y", offset: 1 };
  for (const fd of numbers) {
    if (fd < 0 || fd > Number.MAX_SAFE_INTEGER) continue;
    for (let mid = 1; mid < MID_COUNT; mid++) {
      if (mid === Mid.Channel || mid === Mid.Mount) continue;
      const fields = { ...request, fd, otherFd: fd, fds: [fd] };
      const { errno, fds } = client.call(mid, fields);
      client.takeBack(fds);
      if (errno === Errno.EREMOTEIO) t.fail(`${midName(mid)} ${fd}`);
      if (mid === Mid.FStat && errno === 0 && fd < 2 ** 52) inodes.add(fd);
    }
  }
  // Three snapshots of a root, a file, a directory and a file in it; deep and er.
  t.equal(inodes.size, 3 * 4 + 2, [...inodes].join(" "));
  t.notOk(gofer.log.includes("bug"));
  const found = read(client, openPath(client, "deep/er/graft1/f3"), 7, 100);
  t.ok(found.equals(content(3).subarray(7, 107)), "and all is as it was");
});

test("a listing is the same by whatever budgets it is read", async (t) => {
  const { client } = await serveGrafts(t);
  const many = serveView(
    t,
    Object.fromEntries(Array.from({ length: 700 }, (_, i) => [`n${"x".repeat(i % 200)}${i}`, ""])),
  );
  for (const each of [client, many.client]) {
    for (const path of ["", "deep", "deep/er", "d"].slice(0, each === client ? 4 : 1)) {
      const fd = openPath(each, path);
      const whole = getdents(each, fd, 0x7fff_ffff);
      for (const budgets of [
        [1],
        [0],
        [40, 3, 77],
        [-1, 25],
        [65_535, 1],
        [0x7fff_ffff],
        [24, 4096],
      ]) {
        const parts: Dirent[] = [];
        getdents(each, fd, -1);
        const first = whole.length > 0 ? 1 : 0;
        parts.push(...whole.slice(0, first));
        for (let i = 0; parts.length < whole.length; i++) {
          const part = getdents(each, fd, Math.abs(budgets[i % budgets.length]!));
          if (part.length === 0) break;
          parts.push(...part);
        }
        t.same(parts, whole, `/${path} by ${budgets}`);
        t.same(getdents(each, fd, 1), [], "then nothing more");
      }
      close(each, fd);
    }
  }
});

test("PRead at odd places is what the file has there", async (t) => {
  const { client, content } = await serveGrafts(t);
  const wanted = content(1);
  const { fd, hostFd } = open(client, walkTo(client, "f1"));
  client.takeBack([hostFd].filter((each) => each >= 0));
  const places = [0, 1, 4095, 262_143, 262_144, 262_145, MIB - 1, wanted.length - 1, wanted.length];
  for (const offset of [...places, wanted.length + 1, 2 ** 31, 2 ** 32 + 1, 2 ** 53 - 1]) {
    for (const count of [0, 1, 3, 262_145, PAYLOAD_MAX - 8]) {
      const got = read(client, fd, offset, count);
      t.ok(got.equals(wanted.subarray(offset, offset + count)), `${count} at ${offset}`);
    }
  }
  const refused = (offset: number, count: number) =>
    client.call(Mid.PRead, { fd, offset, count }).errno;
  t.equal(refused(0, PAYLOAD_MAX - 7), Errno.ENOBUFS);
  t.equal(refused(0, 0xffff_ffff), Errno.ENOBUFS);
  t.equal(refused(-1, 10), Errno.EINVAL);
});

/** Names by length, and bytes that no name of UTF-8 has. */
const LENGTHS = [0, 1, 2, 254, 255, 256, 257, 4095, 4096, 65_534, 65_535];
const ODD = [
  "\xff",
  "\x80\x00",
  "\0",
  "a\0",
  "/",
  "//",
  ".",
  "..",
  "...",
  "\x01",
  "\x7f",
  " ",
  "a/",
  "/a",
];

test("names of every length and of odd bytes get an errno or are taken as they are", {
  skip: noUpper,
}, (t) => {
  const upper = serveUpper(t);
  const view = serveView(t, { f: "content" });
  const names = [...LENGTHS.flatMap((n) => ["a".repeat(n), "\xfe".repeat(n)]), ...ODD];
  const seen = new Map<number, number>();
  for (const { client, gofer } of [upper, view]) {
    for (let mid = 1; mid < MID_COUNT; mid++) {
      if (mid === Mid.Channel || mid === Mid.Mount) continue;
      for (const name of names) {
        const fd = client.rootFd;
        const fields = {
          fd,
          otherFd: fd,
          name,
          otherName: name,
          names: [name],
          ...own,
          mode: 0o100644,
        };
        const { errno, fds } = client.call(mid, fields);
        client.takeBack(fds);
        seen.set(errno, (seen.get(errno) ?? 0) + 1);
        if (errno === Errno.EREMOTEIO) t.fail(`${midName(mid)} ${name.length}`);
        const isBad = name === "" || /[/\0]/.test(name) || name === "." || name === "..";
        const takesName = [Mid.MkdirAt, Mid.Walk, Mid.UnlinkAt, Mid.LinkAt].includes(mid as never);
        if (!takesName || client === view.client) continue;
        if (isBad) t.equal(errno, Errno.EINVAL, `${midName(mid)} ${JSON.stringify(name)}`);
        else if (name.length > 255) t.equal(errno, Errno.ENAMETOOLONG, midName(mid));
      }
    }
    t.notOk(gofer.log.includes("bug"));
  }
  t.comment([...seen].map(([errno, count]) => `${errno}: ${count}`).join(", "));
  t.end();
});
