// Owns: the gofer's end of the mailbox where a daemon ends at a bad moment, and that two mailboxes of a gofer never mix their
// asks. The daemon is played here. Plane: data.

import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { type Test, test } from "tap";
import { MISS } from "../../lib/base/errno.ts";
import { Mailbox } from "../../lib/cache/mailbox.ts";
import {
  AnswerState,
  encodeAnswer,
  encodeBare,
  encodeWelcome,
  FRAME_MAX_BYTES,
  Frame,
  frameBytes,
  frameId,
  frameType,
} from "../../lib/cache/mailbox-wire.ts";
import { native } from "../../lib/sys/native.ts";
import { addSocket, createWait, dropSocket } from "../../lib/sys/wait.ts";

createWait();
const LISTENER = { learn: () => 0, learnLazy: () => undefined };
const out = Buffer.alloc(FRAME_MAX_BYTES);

function frameOf(length: number): Buffer {
  return Buffer.from(out.subarray(0, length));
}

function answerTo(id: number): Buffer {
  return frameOf(encodeAnswer(out, id, { errno: 0, state: AnswerState.complete, name: "" }));
}

/** A daemon of which each connection is played by the test. */
class Played {
  readonly path: string;
  readonly sockets: Socket[] = [];
  /** Types and ids of the frames of each connection. */
  readonly frames: [number, number][][] = [];
  readonly #server: Server;

  constructor(t: Test) {
    const directory = mkdtempSync(join(tmpdir(), "burrow-mailbox-"));
    this.path = join(directory, "daemon.sock");
    this.#server = createServer((socket) => this.#take(socket));
    t.teardown(() => {
      for (const socket of this.sockets) socket.destroy();
      this.#server.close();
      rmSync(directory, { recursive: true });
    });
  }

  async listen(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(this.path, resolve));
    return this;
  }

  #take(socket: Socket): void {
    const frames: [number, number][] = [];
    this.sockets.push(socket);
    this.frames.push(frames);
    let rest = Buffer.alloc(0);
    socket.on("error", () => {});
    socket.on("data", (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk]);
      for (;;) {
        const length = frameBytes(rest, 0, rest.length);
        if (length <= 0) return;
        frames.push([frameType(rest, 0), frameId(rest, 0)]);
        rest = rest.subarray(length);
      }
    });
  }
}

/** Lets the played daemon run until it has seen what is awaited. */
async function until(t: Test, isSo: () => boolean, what: string): Promise<void> {
  const end = performance.now() + 5000;
  while (!isSo() && performance.now() < end) await turn();
  t.ok(isSo(), what);
}

function newMailbox(t: Test, path: string): Mailbox {
  const mailbox = new Mailbox(path, "mount");
  t.teardown(() => mailbox.dispose());
  return mailbox;
}

test("a daemon that ends within a burst of answers, and is back at once, is asked again", async (t) => {
  const daemon = await new Played(t).listen();
  const mailbox = newMailbox(t, daemon.path);
  const answered: number[] = [];
  let asksAgain = true;
  mailbox.onAnswer = (ticket) => {
    answered.push(ticket);
    // As a request that is run again does when it needs more: the first send finds the connection gone.
    if (asksAgain) for (const row of [11, 12]) mailbox.askBlob(0, row, LISTENER);
    asksAgain = false;
  };
  for (const row of [1, 2, 3]) t.equal(mailbox.askBlob(0, row, LISTENER), MISS);
  const first = mailbox.lastTicket - 2;
  await until(t, () => daemon.frames[0]?.length === 4, "the asks came");
  const burst = [frameOf(encodeWelcome(out, 0, 0, 1)), answerTo(first), answerTo(first + 1)];
  const [socket] = daemon.sockets;
  await new Promise<void>((resolve) =>
    socket!.once("close", resolve).end(Buffer.concat(burst), () => socket!.destroy()),
  );
  mailbox.advance();
  await until(t, () => daemon.frames[1]?.length === 5, "a new connection has all open asks");
  t.same(daemon.frames[1]![0], [Frame.hello, 0]);
  const again = daemon.frames[1]!.slice(1).map(([, id]) => id);
  t.notOk(again.includes(first), "but the answered one");
  let sent = false;
  const answers = [frameOf(encodeWelcome(out, 0, 0, 1)), ...again.map(answerTo)];
  daemon.sockets[1]!.write(Buffer.concat(answers), () => {
    sent = true;
  });
  await until(t, () => sent, "they are answered");
  mailbox.advance();
  t.same(answered, [first, ...again], "each once");
});

test("asks of two mailboxes have different tickets", (t) => {
  const [one, two] = ["one", "two"].map((name) => newMailbox(t, join(tmpdir(), "none", name)));
  one!.askBlob(0, 1, LISTENER);
  two!.askBlob(0, 1, LISTENER);
  t.not(one!.lastTicket, two!.lastTicket, "a gofer parks the requests of all by it");
  t.end();
});

test("a daemon that says that it works puts off all that its asker waits for", async (t) => {
  const daemon = await new Played(t).listen();
  const mailbox = newMailbox(t, daemon.path);
  const told: number[] = [];
  mailbox.onWorking = (ticket) => told.push(ticket);
  for (const row of [1, 2]) t.equal(mailbox.askBlob(0, row, LISTENER), MISS);
  const second = mailbox.lastTicket;
  await until(t, () => daemon.frames[0]?.length === 3, "the asks came");
  const [socket] = daemon.sockets;
  const say = (...frames: Buffer[]) => socket!.write(Buffer.concat(frames));
  const working = () => frameOf(encodeBare(out, Frame.working, 0));
  say(frameOf(encodeWelcome(out, 0, 0, 1)), working());
  const hear = (count: number) => () => {
    mailbox.advance();
    return told.length === count;
  };
  await until(t, hear(2), "both are worked on");
  t.same(told, [second - 1, second]);
  say(answerTo(second), working());
  await until(t, hear(3), "then the one that is left");
  t.equal(told.at(-1), second - 1);
});

test("a daemon that ends its peers before a word is not connected to again at once", async (t) => {
  const daemon = await new Played(t).listen();
  const mailbox = newMailbox(t, daemon.path);
  t.equal(mailbox.askBlob(0, 1, LISTENER), MISS);
  for (let times = 1; times <= 3; times++) {
    await until(t, () => daemon.frames[times - 1]?.length === 2, "it hears hello and the ask");
    daemon.sockets[times - 1]!.destroy();
    const beforeMs = performance.now();
    await until(
      t,
      () => {
        mailbox.advance();
        return mailbox.slot < 0;
      },
      "its end is seen",
    );
    t.equal(daemon.sockets.length, times);
    t.ok(mailbox.waitMs(beforeMs) > 0, "a pause comes first");
    mailbox.tick(beforeMs + mailbox.waitMs(beforeMs) + 1);
    t.ok(mailbox.slot >= 0, "then the next try");
  }
});

test("where no socket can be waited for the next try comes later, too", async (t) => {
  const daemon = await new Played(t).listen();
  const mailbox = newMailbox(t, daemon.path);
  const ends = new Int32Array(2);
  native.socketPair(1, ends);
  const fds: number[] = [...ends];
  const slots: number[] = [];
  // An FD is waited for once; a copy of it is another.
  for (let slot = addSocket(ends[0]!); slot >= 0; slot = addSocket(fds.at(-1)!)) {
    slots.push(slot);
    fds.push(native.dupFd(ends[0]!));
  }
  t.teardown(() => {
    for (const slot of slots) dropSocket(slot);
    for (const fd of fds) native.closeFd(fd);
  });
  t.equal(mailbox.askBlob(0, 1, LISTENER), MISS);
  const nowMs = performance.now();
  mailbox.connect(nowMs);
  t.equal(mailbox.slot, -1);
  t.ok(mailbox.waitMs(nowMs) > 0, "nobody spins");
  dropSocket(slots.pop()!);
  mailbox.tick(nowMs + mailbox.waitMs(nowMs) + 1);
  t.ok(mailbox.slot >= 0);
});
