// burrow broker: finds, for the stub of a sandbox that may share, a server of its tenant's: it takes standbys and asks them to be shared, and
// opens for them what they, hardened, can't: mount descriptions, logs, uppers' sizes. It is the daemon's, reads nothing that a sandbox
// sent, and serves nobody. A stub that it turns away starts as if there were none. docs/protocol/adopt.md, section 9. Control plane.

import { chmodSync, readdirSync, readlinkSync } from "node:fs";
import { basename } from "node:path";
import { explain } from "../base/error.ts";
import { SHARED_UPPERS_MAX } from "../base/limits.ts";
import { SocketOption } from "../sys/address.ts";
import { native } from "../sys/native.ts";
import { newTmpfs, resizeTmpfs } from "../sys/new-mount.ts";
import { addSocket, armSocket, createWait, dropSocket, nextEvent, WaitEvent } from "../sys/wait.ts";
import { Role, Type, takeMessage } from "./adopt.ts";
import { type Candidate, candidateOf } from "./candidate.ts";
import { logOf, openLog } from "./log.ts";
import { askToShare, sendPlan } from "./plan.ts";
import { OPEN_FILES, openFigures } from "./serve.ts";
import { type ServerList, writeServers } from "./server-list.ts";
import { encodeFigures } from "./shared-figures.ts";
import { own, procOf, readStub, type StubFacts } from "./start.ts";
import { type Needed, Tally } from "./tally.ts";

/** The daemon's: one byte tells it that we wait, then come figures; its end tells us of its. */
const DAEMON_FD = 3;
/** Stubs that may come at once. */
const BACKLOG = 64;
/** A shared server without a sandbox is let go of after this long. */
const IDLE_MS = 60_000;
/** One that isn't ready by then never will be, and whoever comes would wait for it in vain: it takes some 50 ms. */
const READY_MS = 5_000;
/** What an upper's tmpfs is until it is somebody's: the least, since one without limits can't get any. */
const EMPTY = { sizeBytes: 4096, inodes: 2, mode: 0o755 };

interface Launch {
  readonly candidate: Candidate;
  readonly peer: number;
  readonly stubPid: number;
}

class Server {
  readonly tenant: string;
  readonly fd: number;
  slot = -1;
  pid = 0;
  isReady = false;
  idleSinceMs = performance.now();
  readonly tally = new Tally();
  /** Mounts of uppers that are nobody's yet, by number; -1 once they are. */
  readonly places: number[];
  /** Until it is ready. */
  readonly waiting: Launch[] = [];
  readonly served = new Map<number, Launch>();
  #launches = 0;

  constructor(tenant: string, fd: number, places: number[]) {
    this.tenant = tenant;
    this.fd = fd;
    this.places = places;
  }

  get nextNumber(): number {
    return this.#launches++;
  }
}

class Broker {
  readonly #cache: string;
  readonly #folder: string;
  readonly #own: string;
  readonly #max: number;
  /** That each of its servers may have: as it itself may. */
  readonly #openFiles: number;
  readonly #listener: number;
  readonly #listenerSlot: number;
  readonly #daemonSlot: number;
  /** Connected, and yet to say what they want. */
  readonly #peers = new Map<number, number>();
  readonly #servers = new Map<number, Server>();
  /** Sandboxes that were given to a server, and that were turned away. */
  #placed = 0;
  #refused = 0;
  #told = "";

  /** Listens at `path`; standbys are in the folder above its own. `max`: sandboxes of one server. */
  constructor(path: string, cache: string, max: number) {
    createWait(true);
    this.#cache = cache;
    this.#own = path.slice(0, path.lastIndexOf("/"));
    this.#folder = this.#own.slice(0, this.#own.lastIndexOf("/"));
    this.#max = max;
    this.#openFiles = native.setNoFile(OPEN_FILES);
    this.#listener = native.listenPackets(path, BACKLOG);
    if (this.#listener < 0) native.exitNow(1);
    this.#listenerSlot = addSocket(this.#listener);
    this.#daemonSlot = addSocket(DAEMON_FD);
    native.writeFd(DAEMON_FD, Buffer.from("+\n"));
    this.#publish();
  }

  run(): never {
    for (;;) {
      const event = nextEvent(-1, 0, this.#waitMs());
      const slot = event - WaitEvent.socket;
      if (slot === this.#daemonSlot) return native.exitNow(0);
      if (slot === this.#listenerSlot) this.#accept();
      else if (this.#peers.has(slot)) this.#hearPeer(slot, this.#peers.get(slot)!);
      else if (this.#servers.has(slot)) this.#hearServer(this.#servers.get(slot)!);
      this.#letGoOfIdle();
    }
  }

  #waitMs(): number {
    const ends = Math.min(...[...this.#servers.values()].map(idleEndMs));
    return ends === Number.POSITIVE_INFINITY
      ? -1
      : Math.max(0, Math.ceil(ends - performance.now()));
  }

  #letGoOfIdle(): void {
    for (const server of [...this.#servers.values()])
      if (performance.now() >= idleEndMs(server)) this.#forget(server);
  }

  #accept(): void {
    for (;;) {
      const peer = native.acceptPeer(this.#listener);
      if (peer < 0) break;
      const isOurs = native.socketOption(peer, SocketOption.peerUser) === process.geteuid!();
      const slot = isOurs ? addSocket(peer) : -1;
      if (slot < 0) native.closeFd(peer);
      else this.#peers.set(slot, peer);
    }
    armSocket(this.#listenerSlot, false);
  }

  #hearPeer(slot: number, peer: number): void {
    const message = takeMessage(peer);
    if (message === "none") {
      armSocket(slot, false);
      return;
    }
    this.#peers.delete(slot);
    dropSocket(slot);
    const proc = message?.fds.find(({ role }) => role === Role.proc);
    const isStart = message?.type === Type.start && proc !== undefined;
    if (!isStart || !this.#admit(peer, procOf(proc.fd))) {
      native.closeFd(peer); // it looks elsewhere
      if (isStart) this.#refused++;
      this.#tell();
    }
    for (const { fd } of message?.fds ?? []) native.closeFd(fd);
  }

  /** False, with the reason in the sandbox's own log, for a stub that gets none here. */
  #admit(peer: number, proc: string): boolean {
    let facts: StubFacts | undefined;
    try {
      facts = readStub(proc);
      if (facts === undefined) return false; // of another build
      const candidate = candidateOf(facts, proc, this.#cache);
      this.#place({ candidate, peer, stubPid: Number(basename(readlinkSync(proc))) });
      return true;
    } catch (error) {
      sayWhy(facts?.settings, explain(error));
      return false;
    }
  }

  /** Gives a launch to a server of its tenant's that has room, or to a new one. Throws when there is none. */
  #place(launch: Launch): void {
    const { tenant, needs } = launch.candidate;
    const servers = [...this.#servers.values()].filter((server) => server.tenant === tenant);
    const lacks = servers.map((server) => this.#lack(server, needs));
    const server = servers[lacks.indexOf(undefined)] ?? this.#share(tenant, lacks[0]);
    server.tally.add(needs);
    if (server.isReady) this.#launch(server, launch);
    else server.waiting.push(launch);
  }

  /** Why a server can't take what is needed. */
  #lack({ tally, places }: Server, needs: Needed): string | undefined {
    const left = places.filter((fd) => fd >= 0).length;
    if (left < needs.uppers) return `a server has ${SHARED_UPPERS_MAX} writable mounts in its life`;
    return tally.lack(needs, this.#max, this.#openFiles);
  }

  /** Asks a standby to be shared. Throws when none waits, with what the tenant's server lacks, if it has one. */
  #share(tenant: string, lack: string | undefined): Server {
    for (const name of readdirSync(this.#folder)) {
      const fd = native.connectUnix(`${this.#folder}/${name}`, true);
      if (fd < 0) continue;
      const places = Array.from({ length: SHARED_UPPERS_MAX }, () =>
        newTmpfs(EMPTY.sizeBytes, EMPTY.inodes, EMPTY.mode),
      );
      const server = new Server(tenant, fd, places);
      const share = { cache: this.#cache, tenant, build: own, places };
      server.slot = places.every((each) => each >= 0) ? addSocket(fd) : -1;
      if (server.slot >= 0 && askToShare(fd, share) >= 0) {
        this.#servers.set(server.slot, server);
        return server;
      }
      this.#close(server);
    }
    throw new Error(lack === undefined ? "no standby" : `no standby, and ${lack}`);
  }

  #launch(server: Server, { candidate, peer, stubPid }: Launch): void {
    const number = server.nextNumber;
    const { settings, spec, missDeadlineMs } = candidate;
    const fds = {
      stub: peer,
      log: settings["BURROW_LOG"] ? openLog(settings["BURROW_LOG"]) : -1,
      counters: openFigures(settings["BURROW_COUNTERS"]),
    };
    try {
      const mounts = candidate.mounts.map(({ upper, ...mount }) => {
        if (upper === undefined) return { ...mount, place: -1 };
        const place = server.places.findIndex((fd) => fd >= 0);
        const fd = server.places[place]!;
        server.places[place] = -1;
        const { sizeBytes, inodes, mode } = upper;
        const failed = resizeTmpfs(fd, sizeBytes, inodes, mode);
        if (failed === 0) chmodSync(`/proc/self/fd/${fd}`, mode);
        native.closeFd(fd);
        if (failed < 0) throw new Error("its tmpfs can't be sized");
        return { ...mount, place };
      });
      if (sendPlan(server.fd, { number, missDeadlineMs, spec, mounts }, fds) < 0)
        throw new Error("its server is gone");
      server.served.set(number, { candidate, peer: -1, stubPid });
      this.#placed++;
    } catch (error) {
      this.#refused++;
      sayWhy(settings, explain(error));
      server.tally.remove(candidate.needs);
    }
    for (const fd of Object.values(fds)) if (fd >= 0) native.closeFd(fd);
    this.#publish();
  }

  #hearServer(server: Server): void {
    const message = takeMessage(server.fd);
    const word =
      message !== "none" && message?.body.length === 4 ? message.body.readUInt32LE(0) : 0;
    // It reads what sandboxes send: FDs from it, which it has no reason to give, could fill our table.
    const given = message === undefined || message === "none" ? [] : message.fds;
    for (const { fd } of given) native.closeFd(fd);
    if (message === undefined || given.length > 0) {
      this.#forget(server);
      return;
    }
    if (message !== "none" && message.type === Type.ready) {
      server.isReady = true;
      server.pid = word;
      for (const launch of server.waiting.splice(0)) this.#launch(server, launch);
    } else if (message !== "none" && message.type === Type.gone) {
      const launch = server.served.get(word);
      if (launch !== undefined && server.served.delete(word))
        server.tally.remove(launch.candidate.needs);
      server.idleSinceMs = performance.now();
      this.#publish();
    }
    armSocket(server.slot, false);
  }

  /** It ended, or has been idle: then our end has it end. */
  #forget(server: Server): void {
    this.#servers.delete(server.slot);
    dropSocket(server.slot);
    this.#close(server);
    this.#publish();
  }

  #close(server: Server): void {
    for (const { candidate, peer } of server.waiting) {
      this.#refused++;
      sayWhy(candidate.settings, "its server ended before it was ready");
      native.closeFd(peer);
    }
    for (const fd of server.places) if (fd >= 0) native.closeFd(fd);
    native.closeFd(server.fd);
  }

  #publish(): void {
    const list: ServerList = [...this.#servers.values()].map(({ tenant, pid, served }) => {
      return { tenant, pid, stubs: [...served.values()].map(({ stubPid }) => stubPid) };
    });
    try {
      writeServers(this.#own, list);
    } catch {
      // A full disk: the list is for people.
    }
    this.#tell();
  }

  #tell(): void {
    const servers = [...this.#servers.values()];
    const sandboxes = servers.reduce((sum, { served }) => sum + served.size, 0);
    const now = {
      servers: servers.length,
      sandboxes,
      placed: this.#placed,
      refused: this.#refused,
    };
    const line = encodeFigures(now);
    if (line !== this.#told) native.writeFd(DAEMON_FD, Buffer.from(line));
    this.#told = line;
  }
}

/** Tells the log of a sandbox that gets no shared server. */
function sayWhy(settings: StubFacts["settings"] | undefined, why: string): void {
  const path = settings?.["BURROW_LOG"];
  const log = path ? openLog(path) : -1;
  logOf(log)(`shares no server: ${why}`);
  if (log >= 0) native.closeFd(log);
}

/** When a server that serves nobody is let go of; Infinity while it serves. */
function idleEndMs({ isReady, served, idleSinceMs }: Server): number {
  if (served.size > 0) return Number.POSITIVE_INFINITY;
  return idleSinceMs + (isReady ? IDLE_MS : READY_MS);
}

const [, , path = "", cache = "", max = ""] = process.argv;
new Broker(path, cache, Number(max)).run();
