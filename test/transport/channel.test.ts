// Channels of a live server: how many there are, what ends one, and that the others and the socket go on.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { native } from "../../lib/sys/native.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { stat } from "../suite/lisafs-calls.ts";
import {
  type ChannelPathway,
  LisafsClient,
  PAYLOAD_MAX,
  WINDOW_HEADER,
} from "../suite/lisafs-client.ts";
import { serveHost, startGofer, temporary } from "../suite/served.ts";
import { blockUntil } from "../suite/wait.ts";

const SHUTDOWN = 2;
const build = (directory: string): void => writeFileSync(join(directory, "f"), "content");

test("four channels are granted, asked for over either pathway; more are ENOMEM", (t) => {
  const { client } = serveHost(t, build, { channels: 0 });
  const first = client.openChannel(client.socket) as ChannelPathway;
  for (const via of [first, client.socket, first]) t.not(typeof client.openChannel(via), "number");
  for (const via of [client.socket, ...client.channels]) {
    t.equal(client.openChannel(via), Errno.ENOMEM, "the fifth");
  }
  for (const channel of client.channels) {
    client.pathway = channel;
    t.equal(stat(client, client.rootFd).mode & 0o170000, 0o040000, "each serves");
  }
  t.end();
});

test("each of 40 mounts gets at least one channel", (t) => {
  const directory = temporary(t);
  const mounts = Array.from({ length: 40 }, (_, i) => ({
    destination: i === 0 ? "/" : `/mnt/${i}`,
    source: directory,
    isReadOnly: true,
  }));
  const gofer = startGofer(t, mounts);
  for (let i = 0; i < mounts.length; i++) {
    const client = LisafsClient.mount(gofer.takeSocket(i));
    t.teardown(() => client.close());
    const outcomes = [1, 2, 3, 4].map(() => client.openChannel());
    t.not(typeof outcomes[0], "number", `mount ${i}`);
    client.pathway = client.channels[0]!;
    t.equal(stat(client, client.rootFd).mode & 0o170000, 0o040000);
  }
  t.end();
});

/** What a client may do to a channel, each ending that channel alone. */
const ENDINGS: Record<string, (channel: ChannelPathway) => void> = {
  "a shutdown": (channel) => channel.view.setUint32(0, SHUTDOWN, true),
  "a connState of 3": (channel) => channel.view.setUint32(0, 3, true),
  "a connState of 2^32-1": (channel) => channel.view.setUint32(0, 0xffff_ffff, true),
};

for (const [name, act] of Object.entries(ENDINGS)) {
  test(`${name} ends one channel, and its memory is given back`, (t) => {
    const { client, gofer } = serveHost(t, build, { channels: 3 });
    const [one, two, three] = client.channels as [ChannelPathway, ChannelPathway, ChannelPathway];
    const before = gofer.fdCount;
    act(one);
    // The server sleeps on the old value: it looks again when anything wakes it.
    client.call(Mid.FStat, { fd: client.rootFd }, undefined, client.socket);
    blockUntil(() => gofer.fdCount === before - 1);
    t.equal(gofer.fdCount, before - 1, "the FD socket is closed");
    t.equal(gofer.windowCount, 2, "the window is unmapped");
    t.equal(one.transact(Mid.FStat, 8).errno, Errno.EPIPE, "calls on it fail");
    for (const via of [two, three, client.socket]) {
      t.equal(client.call(Mid.FStat, { fd: client.rootFd }, undefined, via).errno, 0, via.name);
    }
    t.end();
  });
}

test("datagrams of a wrong length are EIO", (t) => {
  const { client } = serveHost(t, build);
  const channel = client.channels[0]!;
  const capacity = channel.window.length - WINDOW_HEADER;
  channel.view.setUint16(WINDOW_HEADER, Mid.FStat, true);
  for (const length of [0, 1, 3, capacity + 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]) {
    const { errno } = channel.transactRaw(length);
    t.equal(errno, Errno.EIO, `${length} bytes`);
  }
  channel.view.setUint16(WINDOW_HEADER, Mid.FStat, true);
  t.equal(channel.transactRaw(4 + PAYLOAD_MAX + 1).errno, Errno.EIO, "more than a message");
  channel.view.setUint16(WINDOW_HEADER, Mid.Mount, true);
  t.equal(channel.transactRaw(4 + PAYLOAD_MAX).errno, 0, "the largest message");
  t.equal(stat(client, client.rootFd).mode & 0o170000, 0o040000, "the channel goes on");
  t.end();
});

test("a client that never takes its FDs from a channel gets none and stops nobody", (t) => {
  const { client, gofer } = serveHost(t, build, { channels: 2 });
  const [deaf, other] = client.channels as [ChannelPathway, ChannelPathway];
  const file = Number(
    client.call(Mid.Walk, { fd: client.rootFd, names: ["f"] }).payload.readBigUInt64LE(3),
  );
  const before = gofer.fdCount;
  let donated = 0;
  for (let i = 0; i < 1000; i++) {
    deaf.view.setUint16(WINDOW_HEADER, Mid.OpenAt, true);
    deaf.buffer.writeBigUInt64LE(BigInt(file), deaf.start);
    deaf.buffer.writeUInt32LE(0, deaf.start + 8);
    const got = native.channelCall(deaf.window, 4 + 16, 5000);
    if (got !== 4 + 8) t.fail(`open ${i}: ${got}`);
    donated += deaf.view.getUint8(WINDOW_HEADER + 2);
    const fdid = Number(deaf.buffer.readBigUInt64LE(deaf.start));
    client.call(Mid.Close, { fds: [fdid] }, undefined, other);
  }
  t.ok(donated > 0 && donated < 1000, `${donated} of 1,000 FDs stand in its socket`);
  t.equal(gofer.fdCount, before, "the server holds none of them");
  t.equal(client.call(Mid.OpenAt, { fd: file }, undefined, other).fds.length, 1);
  t.end();
});
