// Many readers of one FUSE mount: while as many READs wait for bytes as may, the next stand in line, and all else is answered. Over a socket
// in the place of /dev/fuse.

import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { PARKED_MAX } from "../../lib/base/limits.ts";
import type { Name } from "../../lib/base/name.ts";
import { type FuseHost, type FuseParked, FuseSession } from "../../lib/serve/fuse/session.ts";
import { native } from "../../lib/sys/native.ts";
import type { Ino } from "../../lib/tree/tree.ts";
import { Opcode, REPLY_HEAD_BYTES, REQUEST_HEAD_BYTES } from "../../lib/wire/fuse/message.ts";
import { NinepScene } from "../suite/ninep-scene.ts";

const SOCK_SEQPACKET = 5;
/** struct fuse_read_in. */
const READ_BYTES = 40;
const MORE = 40;

function requestOf(opcode: number, unique: number, node: number, body = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(REQUEST_HEAD_BYTES);
  head.writeUInt32LE(head.length + body.length, 0);
  head.writeUInt32LE(opcode, 4);
  head.writeUInt32LE(unique, 8);
  head.writeBigUInt64LE(BigInt(node), 16);
  return Buffer.concat([head, body]);
}

function readOf(unique: number, node: number): Buffer {
  const body = Buffer.alloc(READ_BYTES);
  body.writeUInt32LE(4096, 16);
  return requestOf(Opcode.read, unique, node, body);
}

test("that some wait for much makes no other READ fail", (t) => {
  const files = { here: "what is here", gone: "what comes later" };
  const scene = new NinepScene(t, { files, missing: ["gone"] });
  const { tree } = scene.views[0]!;
  const ends = new Int32Array(2);
  native.socketPair(SOCK_SEQPACKET, ends);
  const [device, kernel] = [ends[0]!, ends[1]!];
  for (const fd of ends) native.setNonblock(fd);
  const parked = new Set<FuseParked>();
  const host: FuseHost = {
    log: (line) => t.fail(line),
    park: (one) => parked.add(one),
    unpark: (one) => parked.delete(one),
    wait: () => ({ sinceMs: 0, deadlineMs: 0 }),
  };
  const session = new FuseSession(device, tree, true, host, true);
  t.teardown(() => {
    session.dispose();
    for (const fd of ends) native.closeFd(fd);
  });
  const reply = Buffer.alloc(1 << 20);
  const answers = new Map<number, string | number>();
  const hear = () => {
    for (let got = native.readFd(kernel, reply); got > 0; got = native.readFd(kernel, reply)) {
      const errno = reply.readInt32LE(4);
      const text = reply.toString("latin1", REPLY_HEAD_BYTES, got);
      answers.set(reply.readUInt32LE(8), errno === 0 ? text : errno);
    }
  };
  const ask = (request: Buffer) => {
    native.writeFd(kernel, request);
    session.turn();
    hear();
  };
  const nodeOf = (name: string) => {
    const ino = tree.lookup(tree.rootIno, name as Name);
    return session.nodes.tell(ino as Ino);
  };
  const [here, gone] = [nodeOf("here"), nodeOf("gone")];
  let unique = 0;
  const next = () => (unique += 2);
  for (let i = 0; i < PARKED_MAX + MORE; i++) ask(readOf(next(), gone));
  t.equal(parked.size, PARKED_MAX);
  t.equal(session.lineLength, MORE);
  t.equal(answers.size, 0, "nobody is told of an error");

  const behind = next();
  ask(readOf(behind, here));
  t.notOk(answers.has(behind), "it has its turn");
  const look = next();
  ask(requestOf(Opcode.lookup, look, 1, Buffer.from("none\0")));
  t.ok(answers.has(look), "what needs no bytes goes on");
  const interrupted = 2 * (PARKED_MAX + 1);
  const whose = Buffer.alloc(8);
  whose.writeUInt32LE(interrupted, 0);
  ask(requestOf(Opcode.interrupt, interrupted + 1, 0, whose));
  t.equal(answers.get(interrupted), -Errno.EINTR, "it can be interrupted");

  // Each that fails makes room for one, until the line is at its end.
  for (let rounds = 0; answers.size < unique / 2 && rounds < 2 * PARKED_MAX; rounds++) {
    const [first] = parked;
    if (first === undefined) break;
    parked.delete(first);
    session.wake(first, Errno.EIO);
    session.advance();
    hear();
  }
  t.equal(answers.get(behind), "what is here");
  t.equal(session.lineLength, 0);
  t.equal(answers.size, unique / 2, "each is answered");
  t.end();
});
