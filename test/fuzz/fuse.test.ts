// Mutated FUSE messages at a session over a socket in the place of /dev/fuse, 20,000 in the gate and 10^6 in the long half: none makes a
// handler throw, each is answered once at most, the session serves on, and memory stays where it was. BURROW_SEED repeats a run.

import { test } from "tap";
import { type FuseHost, type FuseParked, FuseSession } from "../../lib/serve/fuse/session.ts";
import { native } from "../../lib/sys/native.ts";
import type { Tree } from "../../lib/tree/tree.ts";
import { createUpper } from "../../lib/tree/upper.ts";
import { Opcode, REQUEST_HEAD_BYTES } from "../../lib/wire/fuse/message.ts";
import { Dice } from "../suite/dice.ts";
import { isLong } from "../suite/long.ts";
import { NinepScene } from "../suite/ninep-scene.ts";
import { isSanitized, noUpper } from "../suite/served.ts";

const COUNT = isLong ? 500_000 : 10_000;
const GROWTH_MAX_BYTES = 48 << 20;
const SEED = Number(process.env["BURROW_SEED"] ?? (Date.now() % 0xffff_fff0) + 1);
const SOCK_SEQPACKET = 5;
const OPCODES = Object.values(Opcode).filter((code) => code !== Opcode.init);
const NAMES = ["f", "d", "g", "l", "gone", "none", "", ".", "..", "a/b", "\xff\xfe"];
const NUMBERS = [0, 1, 2, 3, 0x7f, 0x1000, 0x10_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

/** A request: mostly of a known kind, its numbers of those that hurt, its names of those that are there. */
function mutated(dice: Dice, unique: number): Buffer {
  const body = Buffer.alloc(8 * dice.pick(12));
  for (let at = 0; at + 4 <= body.length; at += 4) {
    const isNumber = dice.pick(3) === 0;
    body.writeUInt32LE(isNumber ? dice.of(NUMBERS) : at % 8 === 0 ? dice.pick(24) : 0, at);
  }
  const names = [dice, dice].map(() => `${dice.name(12, NAMES)}\0`).join("");
  const tail = dice.pick(4) === 0 ? Buffer.alloc(dice.pick(3000), 0x5a) : Buffer.alloc(0);
  const head = Buffer.alloc(REQUEST_HEAD_BYTES);
  const whole = Buffer.concat([head, body, Buffer.from(names, "latin1"), tail]);
  whole.writeUInt32LE(dice.pick(50) === 0 ? dice.of(NUMBERS) : whole.length, 0);
  whole.writeUInt32LE(dice.pick(40) === 0 ? dice.pick(4096) : dice.of(OPCODES), 4);
  whole.writeUInt32LE(unique, 8);
  whole.writeUInt32LE(dice.pick(6) === 0 ? dice.of(NUMBERS) : 1 + dice.pick(12), 16);
  whole.writeUInt32LE(dice.pick(20) === 0 ? dice.of(NUMBERS) : 0, 20);
  return whole;
}

function fuzz(tree: Tree, isReadOnly: boolean) {
  const ends = new Int32Array(2);
  native.socketPair(SOCK_SEQPACKET, ends);
  const [device, kernel] = [ends[0]!, ends[1]!];
  for (const fd of ends) native.setNonblock(fd);
  const logged: string[] = [];
  const parked = new Set<FuseParked>();
  const host: FuseHost = {
    log: (line) => logged.push(line),
    park: (one) => parked.add(one),
    unpark: (one) => parked.delete(one),
    wait: () => ({ sinceMs: 0, deadlineMs: 0 }),
  };
  const session = new FuseSession(device, tree, isReadOnly, host);
  const dice = new Dice(SEED);
  const reply = Buffer.alloc(2 << 20);
  let [answered, twice, before] = [0, 0, 0];
  const ask = (request: Buffer): number => {
    native.writeFd(kernel, request);
    session.turn();
    let replies = 0;
    while (native.readFd(kernel, reply) > 0) replies++;
    if (replies > 1) twice++;
    return replies;
  };
  for (let done = 1; done <= COUNT; done++) {
    answered += ask(mutated(dice, 2 * done));
    if (parked.size > 100)
      for (const one of [...parked]) {
        parked.delete(one);
        session.wake(one, 5);
        native.readFd(kernel, reply);
      }
    if (done === COUNT / 2) before = process.memoryUsage().rss;
  }
  const grown = process.memoryUsage().rss - before;
  const last = Buffer.alloc(REQUEST_HEAD_BYTES);
  last.writeUInt32LE(last.length, 0);
  last.writeUInt32LE(Opcode.statfs, 4);
  last.writeUInt32LE(1, 16);
  const isServing = ask(last) === 1 && reply.readInt32LE(4) === 0;
  session.dispose();
  for (const fd of ends) native.closeFd(fd);
  return { logged, answered, twice, grown, isServing };
}

test(`mutated requests of FUSE are answered, seed ${SEED}`, (t) => {
  const files = { f: "content of f", "d/g": Buffer.alloc(5000, "g"), l: "-> f", gone: "gone" };
  const scene = new NinepScene(t, { files, missing: ["gone"] });
  const trees: (readonly [Tree, boolean])[] = [[scene.views[0]!.tree, true]];
  if (!noUpper) {
    const upper = createUpper({ sizeBytes: 8 << 20, inodes: 512, mode: 0o755 });
    if (typeof upper === "number") throw new Error(`no upper: ${upper}`);
    t.teardown(() => upper.dispose());
    trees.push([upper, false]);
  }
  for (const [tree, isReadOnly] of trees) {
    const { logged, answered, twice, grown, isServing } = fuzz(tree, isReadOnly);
    t.equal(logged.filter((line) => line.includes("bug in")).join("\n"), "");
    t.ok(answered > COUNT / 2, `${answered} of ${COUNT} were answered`);
    t.equal(twice, 0, "none more than once");
    t.ok(isServing, "it serves on");
    if (!isSanitized) t.ok(grown < GROWTH_MAX_BYTES, `RSS grew by ${grown >> 20} MiB`);
  }
  t.end();
});
