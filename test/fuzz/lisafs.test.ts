// Fuzzing of a live gofer: mutated messages on both pathways, to an upper and to a view with blobs missing. Rule: each is
// answered, the process lives, memory is flat, no bug of ours is logged.
// BURROW_SEED repeats a run, BURROW_LONG=1 sends 10^7 over four channels of each connection at once, BURROW_MESSAGES any number and
// BURROW_MINUTES what they may take.

import { t as file, test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { native } from "../../lib/sys/native.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { type GoferProcess, writeMount } from "../suite/gofer-process.ts";
import {
  type ChannelPathway,
  LisafsClient,
  type Pathway,
  type Reply,
} from "../suite/lisafs-client.ts";
import { isLong } from "../suite/long.ts";
import { isSanitized, startGofer, type Teardown, temporary } from "../suite/served.ts";
import { makeView } from "../suite/view-cache.ts";
import { crashers, fdidAt, isSkipped, Mutator, Recent } from "./lisafs.ts";

const MESSAGES = Number(process.env["BURROW_MESSAGES"] ?? (isLong ? 10_000_000 : 1_000_000));
/** The gate's share of time; it sends what it can in it (a million take some 20 to 40 s on a machine of 2 CPUs). */
const BUDGET_MS = isLong ? 60_000 * Number(process.env["BURROW_MINUTES"] ?? 115) : 60_000;
const seed = Number(process.env["BURROW_SEED"] ?? Date.now() % 0x7fff_ffff);
/** FDIDs given since the last Mount are closed after so many messages, so that tables and trees stay small. */
const EPOCH = 2000;
/** No reply within this long is a hang: not what a starved machine does. */
const HANG_MS = isLong ? 300_000 : 20_000;
/** Channels of a connection that are asked at once. The gate's one, so that its seed decides what each connection is asked, and in which order. */
const ABREAST = isLong ? 4 : 1;
const RSS_MAX = 32 * 1024 * 1024;
file.setTimeout(isLong ? 7_200_000 : 300_000);

function serveBoth(t: Teardown): { gofer: GoferProcess; clients: LisafsClient[] } {
  const state = temporary(t);
  const upper = { kind: "upper", sizeBytes: 8 << 20, inodes: 200, mode: 0o755 };
  const files = { f: "content", "d/g": "more", "d/x": "missing", l: "-> d/g", empty: "" };
  const gofer = startGofer(
    t,
    [
      { destination: "/", source: makeView(state, files, ["d/x"]), isReadOnly: true },
      { destination: "/upper", source: writeMount(state, "upper", upper) },
    ],
    { BURROW_STATE: state, BURROW_MISS_DEADLINE_MS: "1" },
  );
  const clients = [0, 1].map((i) => LisafsClient.mount(gofer.takeSocket(i), ABREAST));
  t.teardown(() => {
    for (const client of clients) client.close();
  });
  for (const client of clients) {
    client.socket.timeoutMs = HANG_MS;
    for (const channel of client.channels) channel.timeoutMs = HANG_MS;
  }
  return { gofer, clients };
}

/** What a run knows of one connection: FDIDs to ask about. */
class Session {
  readonly client: LisafsClient;
  known: number[] = [];
  newest = 0;
  #oldest = 1;

  constructor(client: LisafsClient) {
    this.client = client;
    this.renew();
  }

  /** Mounts anew, closes all FDIDs given before, and opens a few. */
  renew(): void {
    const { client } = this;
    client.supported = [];
    if (client.mount() !== 0) throw new Error("Mount fails");
    if (this.newest < 2 ** 52) {
      const old: number[] = [];
      for (let fd = this.#oldest; fd < client.rootFd && old.length < 60_000; fd++) old.push(fd);
      client.call(Mid.Close, { fds: old });
      this.#oldest = client.rootFd;
    }
    this.known = [client.rootFd];
    this.newest = client.rootFd;
    for (const name of ["f", "d", "l", "n1", "n2", "n3"]) {
      const { errno, payload } = client.call(Mid.Walk, { fd: client.rootFd, names: [name] });
      if (errno === 0 && payload.readUInt16LE(1) === 1) this.#learn(payload, 3);
    }
    for (const fd of this.known.slice()) {
      const { errno, payload, fds } = client.call(Mid.OpenAt, { fd });
      client.takeBack(fds);
      if (errno === 0) this.#learn(payload, 0);
    }
  }

  #learn(payload: Buffer, at: number): void {
    this.newest = Number(payload.readBigUInt64LE(at));
    this.known.push(this.newest);
  }

  /** Takes an FDID that a reply names, in the place of an older one. */
  note(mid: number, payload: Buffer): void {
    const at = fdidAt(mid, payload);
    if (at < 0) return;
    this.#learn(payload, at);
    if (this.known.length > 40) this.known.splice(8, 1);
  }
}

/** What went wrong, or "". */
function troubleIn(session: Session, mid: number, { errno, fds, payload }: Reply): string {
  session.client.takeBack(fds);
  if (errno === 0) session.note(mid, payload);
  const isLost = errno === Errno.ETIMEDOUT || errno === Errno.EPIPE || errno === Errno.ECONNRESET;
  if (isLost) return "lost";
  return errno === Errno.EREMOTEIO ? "bug" : "";
}

/**
 * Asks over each channel of both connections, or over the socket in its place, and takes all replies: how many messages, or what went
 * wrong. It blocks for the last alone: by then most of the others are answered.
 */
function turn(sessions: Session[], mutator: Mutator, recent: Recent): number | string {
  const asked: [Session, number, ChannelPathway][] = [];
  let sent = 0;
  let trouble = "";
  for (const session of sessions) {
    const { client } = session;
    for (const channel of client.channels) {
      // The socket costs several times a channel's call: one in eight.
      const via: Pathway = mutator.pick(8) === 0 ? client.socket : channel;
      const mid = mutator.next(via.buffer, via.start, session.known, session.newest);
      sent++;
      if (isSkipped(mid)) continue;
      recent.add(mid, via.buffer.subarray(via.start, via.start + mutator.length));
      const isLast = session === sessions.at(-1) && channel === client.channels.at(-1);
      if (via === channel && !isLast) {
        channel.begin(mid, mutator.length);
        asked.push([session, mid, channel]);
      } else trouble ||= troubleIn(session, mid, via.transact(mid, mutator.length));
    }
  }
  for (const [session, mid, channel] of asked)
    trouble ||= troubleIn(session, mid, channel.finish());
  return trouble === "" ? sent : trouble;
}

/** Sends `count` messages, fewer when `endMs` comes first: how many, or the file of what went wrong. */
function fuzz(
  gofer: GoferProcess,
  clients: LisafsClient[],
  mutator: Mutator,
  count: number,
  endMs: number,
): number | string {
  const recent = new Recent();
  const sessions = clients.map((client) => new Session(client));
  let renewed = 0;
  for (let sent = 0; sent < count; ) {
    if (sent - renewed > EPOCH) {
      renewed = sent;
      if (performance.now() > endMs) return sent;
      for (const session of sessions) session.renew();
      if (!gofer.isAlive) return recent.save(`lisafs-${mutator.seed}-died`);
    }
    const took = turn(sessions, mutator, recent);
    if (typeof took === "string") return recent.save(`lisafs-${mutator.seed}-${sent}-${took}`);
    sent += took;
  }
  return count;
}

test(`up to ${MESSAGES} mutated messages, seed ${seed}`, { timeout: 7_200_000 }, (t) => {
  const { gofer, clients } = serveBoth(t);
  const mutator = new Mutator(seed);
  const start = performance.now();
  const quarter = MESSAGES / 4;
  const first = fuzz(gofer, clients, mutator, quarter, start + BUDGET_MS / 4);
  t.equal(typeof first === "string" ? first : "", "", "the first quarter");
  // Code was compiled and heaps have grown by now.
  const [rss, fds] = [gofer.rssBytes, gofer.fdCount];
  const rest = fuzz(gofer, clients, mutator, 3 * quarter, start + BUDGET_MS);
  t.equal(typeof rest === "string" ? rest : "", "", "the rest");
  const sent = Number(first) + Number(rest);
  const perSecond = sent / ((performance.now() - start) / 1000);
  t.ok(gofer.isAlive, `${sent} messages, ${perSecond.toFixed(0)} a second`);
  t.ok(sent >= Math.min(MESSAGES, 25_000), "enough of them");
  const growth = (gofer.rssBytes - rss) / 1024 / 1024;
  t.ok(gofer.rssBytes - rss < RSS_MAX || isSanitized, `RSS grew by ${growth.toFixed(1)} MiB`);
  t.ok(gofer.fdCount < fds + 200, `${gofer.fdCount - fds} FDs more`);
  t.end();
});

test("every crasher found so far is answered", (t) => {
  const found = crashers();
  if (found.length === 0) return void t.end();
  const { gofer, clients } = serveBoth(t);
  for (const [name, messages] of found) {
    for (const client of clients) {
      for (const via of [client.socket, client.channels[0]!]) {
        for (const { mid, payload } of messages) {
          const { errno, fds } = client.callRaw(mid, payload, via);
          client.takeBack(fds);
          if (errno === Errno.EREMOTEIO || errno === Errno.ETIMEDOUT) t.fail(`${name}: ${errno}`);
        }
      }
    }
    t.ok(gofer.isAlive, name);
  }
  t.end();
});

/** A frame whose header lies ends the connection or is waited for; never more than one connection is lost. */
test("random bytes on a socket lose one connection at most", (t) => {
  const state = temporary(t);
  const count = isLong ? 60 : 20;
  const mounts = Array.from({ length: count + 1 }, (_, i) => ({
    destination: `/${i}`,
    source: state,
    isReadOnly: true,
  }));
  const gofer = startGofer(t, mounts);
  const good = LisafsClient.mount(gofer.takeSocket(0), 1);
  t.teardown(() => good.close());
  const mutator = new Mutator(seed);
  const noFds = new Int32Array(1);
  for (let i = 1; i <= count; i++) {
    const fd = gofer.takeSocket(i);
    const bytes = Buffer.alloc(4096, 0);
    for (let at = 0; at < bytes.length; at++) bytes[at] = mutator.pick(i % 2 === 0 ? 256 : 3);
    for (let round = 0; round < 50; round++) native.sendMessage(fd, bytes, noFds, 0);
    t.equal(good.call(Mid.FStat, { fd: good.rootFd }).errno, 0);
    native.closeFd(fd);
  }
  t.end();
});
