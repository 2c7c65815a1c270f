// Direct roots: the directory of the host's kernel that a sandbox under runsc's directfs is given for each mount, to work on by itself: a
// view's mount is the daemon's, a tmpfs is the sandbox's own. Asked for before the first request, as a launch has nothing else to do.
// docs/design/0033-directfs.md. Control plane.

import { join } from "node:path";
import { Errno, errnoName } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { DIRECT_ASK_MS } from "../base/limits.ts";
import { DAEMON_SOCKET } from "../cache/layout.ts";
import {
  type AnswerFields,
  bringsFile,
  decodeAnswer,
  encodeBare,
  encodeHello,
  Frame,
  frameBytes,
  frameType,
  REQUEST_MAX_BYTES,
  welcomeErrno,
} from "../cache/mailbox-wire.ts";
import { O_DIRECTORY } from "../sys/hostfs.ts";
import { native } from "../sys/native.ts";
import { addSocket, armSocket, createWait, dropSocket, nextEvent } from "../sys/wait.ts";
import type { ServedMount } from "./bundle.ts";
import { readExplanation } from "./explained.ts";
import { mountIdOf, readMount } from "./mount.ts";
import { hostTreeOf, type OpenedTree } from "./trees.ts";

const O_NONBLOCK = 0o4000;
const SEE_LOG =
  "its log, or `burrow daemon start` in a terminal, after `burrow daemon stop`, says why";
/** What an errno of the daemon's says by itself. */
const WHY_NOT: ReadonlyMap<number, string> = new Map([
  [Errno.ENFILE, "all direct mounts of this node are in use"],
  [Errno.EDQUOT, "its tenant's sandboxes have their share of this node's direct mounts in use"],
]);

/** The directory itself of an FD that may be O_PATH: opened anew, or -errno. */
function openRoot(fd: number): number {
  return native.openAt(fd, ".", O_DIRECTORY | O_NONBLOCK, 0);
}

/** Of each mount: the FD of its root where the daemon has it as a mount; -1 of a tmpfs, which has its own. Throws BurrowError. */
export function directRoots(mounts: readonly ServedMount[], state: string): readonly number[] {
  return mounts.map(({ destination, source }) => {
    const id = mountIdOf(state, source);
    if (id === undefined) throw refusal(destination, "it is a directory of the host");
    const mount = readMount(state, id);
    if (mount.kind === "upper") return -1;
    if (mount.upper !== undefined) throw refusal(destination, "it is a view that can be written");
    if (readExplanation(state, id) !== undefined)
      throw refusal(destination, "it is a view that explains itself");
    return askRoot(mount.cache, id, destination);
  });
}

/** What is served, with the root that its sandbox gets: the daemon's, or, for -1, a tmpfs's own. */
export function withRoot(opened: OpenedTree, rootFd: number): OpenedTree {
  const directFd = rootFd >= 0 ? rootFd : openRoot(hostTreeOf(opened.tree)?.rootFd ?? -Errno.EBADF);
  return { ...opened, directFd };
}

function refusal(destination: string, why: string): BurrowError {
  const what = `runsc's directfs is on, and ${destination} can't be had so: ${why}`;
  return new BurrowError("BURROW_USAGE", `${what}; run it without --directfs`);
}

/** The connection stays open until the process ends: it tells the daemon that the mount is in use. */
function askRoot(cache: string, id: string, destination: string): number {
  const link = native.connectUnix(join(cache, DAEMON_SOCKET));
  if (link < 0) throw refusal(destination, `no daemon serves ${cache} (${errnoName(link)})`);
  const out = Buffer.alloc(2 * REQUEST_MAX_BYTES);
  const helloBytes = encodeHello(out, 0, id);
  const bytes = helloBytes + encodeBare(out.subarray(helloBytes), Frame.askDirect, 1);
  native.sendMessage(link, out.subarray(0, bytes), new Int32Array(1), 0);
  const got = receiveFile(link);
  const rootFd = got < 0 ? got : openRoot(got);
  if (got >= 0) native.closeFd(got);
  if (rootFd >= 0) return rootFd;
  native.closeFd(link);
  const why = WHY_NOT.get(-rootFd) ?? SEE_LOG;
  throw refusal(destination, `its daemon can't mount it (${errnoName(rootFd)}): ${why}`);
}

/** The file that comes with the one answer: its FD or -errno. */
function receiveFile(link: number): number {
  createWait();
  const slot = addSocket(link);
  if (slot < 0) return slot;
  const untilMs = performance.now() + DIRECT_ASK_MS;
  const bytes = Buffer.alloc(4 * REQUEST_MAX_BYTES);
  const fds = new Int32Array(2);
  const file = { fd: -1, length: 0 };
  let outcome = 0;
  while (outcome === 0) {
    const got = native.receiveMessage(link, bytes.subarray(file.length), fds, 0);
    if (got > 0) {
      if (fds[0]! > 0) file.fd = fds[1]!;
      file.length += got;
      outcome = answerIn(bytes.subarray(0, file.length));
    } else if (got !== -Errno.EAGAIN) outcome = got === 0 ? -Errno.ECONNRESET : got;
    else {
      armSocket(slot, false);
      nextEvent(-1, 0, Math.max(0, untilMs - performance.now()));
      if (performance.now() >= untilMs) outcome = -Errno.ETIMEDOUT;
    }
  }
  dropSocket(slot);
  if (outcome > 0 && file.fd >= 0) return file.fd;
  if (file.fd >= 0) native.closeFd(file.fd);
  return outcome < 0 ? outcome : -Errno.EIO;
}

/** 1 when a file was answered, 0 while the answer isn't whole, or -errno. */
function answerIn(bytes: Buffer): number {
  for (let start = 0; ; ) {
    const length = frameBytes(bytes, start, bytes.length);
    if (length <= 0) return length;
    const type = frameType(bytes, start);
    const refused = type === Frame.welcome ? welcomeErrno(bytes, start, length) : 0;
    if (refused !== 0) return -Math.abs(refused);
    if (type === Frame.answer) {
      const answer: AnswerFields = { errno: 0, state: 0, name: "" };
      if (decodeAnswer(bytes, start, length, answer) < 0) return -Errno.EPROTO;
      return bringsFile(answer) ? 1 : -(answer.errno || Errno.EPROTO);
    }
    start += length;
  }
}
