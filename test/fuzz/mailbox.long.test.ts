// 50,000 frames that no gofer would send, on several connections at once to a daemon's socket: it lives, holds no more than before, and
// answers who speaks. BURROW_SEED repeats a run, but for the order in which connections come.

import fs from "node:fs";
import net from "node:net";
import { test } from "tap";
import { encodeHello, FRAME_BYTES, Frame } from "../../lib/cache/mailbox-wire.ts";
import { openSocketName } from "../../lib/cache/socket-name.ts";
import { noise } from "../suite/daemon-node.ts";
import { SMALL, scene } from "../suite/daemon-scene.ts";
import { Dice } from "../suite/dice.ts";
import { sleep, until } from "../suite/wait.ts";

const COUNT = 50_000;
const PEERS = 6;
const SEED = Number(process.env["BURROW_SEED"] ?? (Date.now() % 0xffff_fff0) + 1);
/** Of bodies: those that some frame has, and others. */
const BODIES = [0, 4, 8, 16, 20, 24, 40, 300, 70_000];
const TYPES: readonly number[] = [...Object.values(Frame), 0, 999];

/** A frame of some type, mostly of small numbers, whose length now and then is a lie. */
function frame(dice: Dice): Buffer {
  const bytes = Buffer.alloc(FRAME_BYTES + dice.of(BODIES));
  bytes.writeUInt32LE(dice.pick(50) === 0 ? dice.pick(0xffff_ffff) : bytes.length - 4, 0);
  bytes.writeUInt16LE(dice.of(TYPES), 4);
  bytes.writeUInt16LE(dice.pick(9) === 0 ? dice.pick(0xffff) : 0, 6);
  bytes.writeUInt32LE(dice.pick(8), 8);
  for (let at = FRAME_BYTES; at + 4 <= Math.min(bytes.length, 512); at += 4)
    bytes.writeUInt32LE(dice.pick(3) === 0 ? dice.pick(0xffff_ffff) : dice.pick(60), at);
  return bytes;
}

function openFiles(pid: number): number {
  return fs.readdirSync(`/proc/${pid}/fd`).length;
}

test(`frames of all kinds, seed ${SEED}`, { timeout: 600_000 }, async (t) => {
  const files: Record<string, Buffer> = { ...SMALL, large: noise(6_000_000, 9) };
  const { node, published, mountId } = await scene(t, files);
  const daemon = await node.start({ profiles: true, foresight: true, silentMs: 1_000 });
  const client = await node.connect(mountId);
  t.equal((await client.askBlob(0, published.row("large"))).errno, 0);
  const before = openFiles(daemon.pid!);
  let sent = 0;
  const peer = async (dice: Dice) => {
    const hello = Buffer.alloc(256);
    while (sent < COUNT && daemon.exitCode === null) {
      const name = openSocketName(node.cache);
      const socket = net.connect(name.name);
      await new Promise((resolve) => {
        socket.once("connect", resolve);
        socket.on("error", resolve);
      });
      name.close();
      socket.resume();
      const id = dice.pick(5) === 0 ? "m-00000000" : mountId;
      if (dice.pick(3) > 0) socket.write(hello.subarray(0, encodeHello(hello, 0, id)));
      if (dice.pick(2) === 0) await sleep(2);
      for (let left = 1 + dice.pick(30); left > 0 && !socket.destroyed; left--, sent++)
        socket.write(frame(dice));
      await sleep(dice.pick(4));
      if (dice.pick(2) === 0) socket.destroy();
      else socket.end();
    }
  };
  await Promise.all(Array.from({ length: PEERS }, (_, i) => peer(new Dice(SEED + i))));
  t.equal(daemon.exitCode, null, "it lives");
  for (const name of Object.keys(files)) {
    t.equal((await client.askBlob(0, published.row(name))).errno, 0, name);
    t.same(fs.readFileSync(node.blobPath(published.refs.get(name)!.digest)), files[name], name);
  }
  // Besides the two of this test, the server of a mount that one has asked for.
  t.ok(await until(async () => (await node.status()).now.connections <= 4), "all are let go");
  // Connections to the origin may stay, and locators be read.
  t.ok(await until(() => openFiles(daemon.pid!) <= before + 32), "with their FDs");
});
