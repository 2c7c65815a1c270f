// burrow standby: a server that the daemon starts ahead. It rehearses, waits for one stub, takes on what a child of that stub would
// have inherited, and serves it to its end. docs/protocol/adopt.md, section 7; docs/design/0006-standby.md. Control plane.

import { setPriority } from "node:os";
import { setFlagsFromString } from "node:v8";
import { errnoName } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { SocketOption } from "../sys/address.ts";
import { native } from "../sys/native.ts";
import { optimizeLate } from "../sys/tiering.ts";
import { addSocket, armSocket, createWait, dropSocket, nextEvent, WaitEvent } from "../sys/wait.ts";
import { receiveMessage, sendDone, sendReady, Type } from "./adopt.ts";
import { readShare, type Share } from "./plan.ts";
import { rehearse } from "./rehearsal.ts";
import { runServer } from "./serve.ts";
import { serveShared } from "./shared.ts";
import { own, type Start, startOf } from "./start.ts";

/** The daemon's: one byte tells it that we wait, another that we are taken (unshare(1) has a copy, which outlives ours); its end is its. */
const DAEMON_FD = 3;
const LOWEST_PRIORITY = 19;
/** With V8's own settings most of the code is optimized after 8,000 requests (docs/design/0003-server-start.md). */
const PLAY = { requests: 24_000, packages: 48, modules: 16 };
/** Played first: V8 learns the shapes of objects from the first of them, and takes back what it had optimized for fewer. */
const READING = { requests: 1_000, packages: 4, modules: 16 };
/** A stub sends its START at once. */
const START_MS = 1_000;

/** Waits until a socket has something to say: false after `ms`, or when another event came. */
function isReadable(fd: number, ms: number): boolean {
  const slot = addSocket(fd);
  if (slot < 0) return false;
  const event = nextEvent(-1, 0, ms);
  dropSocket(slot);
  return event === WaitEvent.socket + slot;
}

/** What a peer that may be served wants of us; undefined when it is to look elsewhere. */
function admit(peer: number): Start | Share | undefined {
  if (
    native.socketOption(peer, SocketOption.peerUser) !== process.geteuid!() ||
    !isReadable(peer, START_MS)
  )
    return undefined;
  const message = receiveMessage(peer);
  if (message?.type === Type.share) return readShare(message.body, message.fds, own);
  const start = startOf(message);
  if (start === undefined) return undefined;
  // Its mount namespace too: only there may a read-only clone be made of what it passes through.
  if (native.enterMounts(...start.mounts) < 0) native.exitNow(1); // its cgroups are ours already
  for (const fd of start.mounts) native.closeFd(fd);
  return start;
}

/** The first peer that may be served, and what it wants. */
function waitForPeer(path: string): { peer: number; wanted: Start | Share } {
  const listener = native.listenPackets(path, 0);
  if (listener < 0)
    throw new BurrowError("BURROW_IO", `can't listen on ${path}: ${errnoName(listener)}`);
  const slot = addSocket(listener);
  const daemonSlot = addSocket(DAEMON_FD);
  native.writeFd(DAEMON_FD, Buffer.from("+"));
  for (;;) {
    const event = nextEvent(-1, 0, -1);
    if (event === WaitEvent.socket + daemonSlot) native.exitNow(0);
    const peer = native.acceptPeer(listener);
    const wanted = peer < 0 ? undefined : admit(peer);
    if (wanted === undefined) {
      if (peer >= 0) native.closeFd(peer);
      // Both: an event that came while a peer was heard is spent.
      for (const each of [slot, daemonSlot]) armSocket(each, false);
      continue;
    }
    dropSocket(slot);
    dropSocket(daemonSlot);
    native.closeFd(listener);
    return { peer, wanted };
  }
}

/** Whether a lowered priority can be taken back: that needs CAP_SYS_NICE. */
function canRise(): boolean {
  try {
    setPriority(1);
    setPriority(0);
    return true;
  } catch {
    return false;
  }
}

async function main(path: string): Promise<never> {
  createWait(); // first: its thread keeps the priority that it is made with
  const isLow = canRise();
  if (isLow) setPriority(LOWEST_PRIORITY);
  // Compiled by this thread, at its priority, and not beside it.
  setFlagsFromString("--no-concurrent-recompilation");
  for (const part of [READING, PLAY]) await rehearse(`${path}.rehearsal`, part);
  setFlagsFromString("--concurrent-recompilation");
  optimizeLate(); // as in a child: what is cold still is not worth it soon
  // Before a stub asks: on a busy machine the answer to it would wait for its turn longer than a child takes to start.
  if (isLow) setPriority(0);
  const { peer, wanted } = waitForPeer(path);
  native.writeFd(DAEMON_FD, Buffer.from("-"));
  native.closeFd(DAEMON_FD);
  if ("places" in wanted) return native.exitNow(serveShared(peer, wanted));
  const { words, settings } = wanted;
  process.title = ["burrow-gofer", ...words].join(" "); // ps tells whose it is, as far as there is room
  if (sendReady(peer) < 0) native.exitNow(1); // it gave up on us
  const code = runServer({ stubFd: peer, words, settings });
  sendDone(peer, code);
  return native.exitNow(code);
}

// At once: a rehearsal that failed has a thread that waits for it.
main(process.argv[2]!).catch(() => native.exitNow(1));
