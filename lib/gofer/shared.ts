// Shared: a server that serves many sandboxes of one tenant on one thread. It is a standby that a broker asked to be shared: it keeps what
// it needs of the cache, is hardened as a gofer is, and from then on gets one sandbox after the other, as a plan and FDs, until the
// broker lets go of it and the last sandbox has ended. docs/design/0025-shared-server.md. Control plane, but for the loop that it has run.

import { readlinkSync } from "node:fs";
import { assert } from "../base/assert.ts";
import { explain } from "../base/error.ts";
import { SHARED_CHANNELS, SHARED_CONNECTIONS_MAX, SHARED_UPPER_FDS_MIN } from "../base/limits.ts";
import { COUNTER_COUNT, Count, countFor } from "../serve/counters.ts";
import type { LogLine } from "../serve/dispatch.ts";
import { keepOwnFds } from "../sys/fence.ts";
import { native } from "../sys/native.ts";
import {
  type AdoptedFd,
  type Message,
  MORE,
  Role,
  sendDone,
  sendGone,
  sendReady,
  sendServing,
  Type,
  takeMessage,
} from "./adopt.ts";
import { parseSpec, rootAmong } from "./bundle.ts";
import { harden, type Needs, WRITERS } from "./harden.ts";
import { logOf } from "./log.ts";
import { Loop, type Sandbox } from "./loop.ts";
import { type Plan, readPlan, type Share } from "./plan.ts";
import {
  addConnections,
  checkSockets,
  fdOf,
  keeperOf,
  mapCounters,
  OPEN_FILES,
  tellMounts,
} from "./serve.ts";
import { fdsForUppers } from "./tally.ts";
import {
  type CacheFolders,
  hostTreeOf,
  type OpenedTree,
  openCacheFolders,
  openDescribed,
} from "./trees.ts";

/** Of all trees that may come: views, with and without uppers, and tmpfs. */
const NEEDS: Needs = {
  calls: new Set(["channels", "daemon", "host", "writes", "devices", "launches"]),
  capabilities: [...WRITERS],
};
/** What a stub gives that is kept; the rest is closed, which lets runsc go on: its mount namespace is left alone here. */
const USED = new Set<number>([Role.io, Role.mounts]);

/** One of the sandboxes, from its plan to its end. */
class SharedSandbox implements Sandbox {
  readonly keeper: Sandbox["keeper"];
  readonly log: LogLine;
  readonly missDeadlineMs: number;
  readonly mountCount: number;
  readonly channelsMax = SHARED_CHANNELS;
  readonly counters: Float64Array;
  readonly plan: Plan;
  readonly stubFd: number;
  readonly logFd: number;
  /** What the stub has given, until all of it is here. */
  adopted: AdoptedFd[] = [];
  isServed = false;
  /** Another server takes it up, and is told nothing. */
  isLeft = false;
  slot = -1;
  readonly #isMapped: boolean;

  constructor(plan: Plan, fds: readonly AdoptedFd[], ended: (sandbox: SharedSandbox) => void) {
    this.plan = plan;
    this.stubFd = fdOf(fds, Role.stub, 0)!;
    this.logFd = fdOf(fds, Role.debugLog, 0) ?? -1;
    this.log = logOf(this.logFd);
    const home = mapCounters(fdOf(fds, Role.counters, 0) ?? -1);
    this.#isMapped = home !== undefined;
    this.counters = home ?? new Float64Array(COUNTER_COUNT);
    this.missDeadlineMs = plan.missDeadlineMs;
    this.mountCount = plan.mounts.length;
    const keeper = keeperOf(this.stubFd);
    const drop = (index: number) => {
      if (!this.isLeft) keeper.drop(index);
      ended(this);
    };
    this.keeper = { ...keeper, drop };
  }

  /** Its FDs and its file of counters. */
  close(): void {
    for (const { fd } of this.adopted) native.closeFd(fd);
    native.closeFd(this.stubFd);
    if (this.logFd >= 0) native.closeFd(this.logFd);
    if (this.#isMapped) native.unmap(this.counters.buffer as ArrayBuffer);
  }
}

class SharedServer {
  readonly #loop = new Loop();
  readonly #brokerFd: number;
  readonly #brokerSlot: number;
  readonly #folders: CacheFolders;
  readonly #places: readonly number[];
  /** FDs that each upper may hold. */
  readonly #fdShare: number;
  /** What the hardening had to say: each sandbox's log is told. */
  readonly #notes: readonly string[];
  readonly #sandboxes = new Set<SharedSandbox>();
  #isLetGo = false;

  constructor(brokerFd: number, { cache, places }: Share) {
    this.#brokerFd = brokerFd;
    this.#places = places;
    this.#folders = openCacheFolders(cache);
    assert(keepOwnFds() === 0, "/proc is here");
    const left = fdsForUppers(native.setNoFile(OPEN_FILES));
    this.#fdShare = Math.max(SHARED_UPPER_FDS_MIN, Math.floor(left / SHARED_CONNECTIONS_MAX));
    const { indexesFd, blobsFd, partialFd, lazyFd } = this.#folders;
    const folderFds = [indexesFd, blobsFd, partialFd, lazyFd].filter((fd) => fd >= 0);
    const notes: string[] = [];
    this.#notes = notes;
    const trees = [{ cache, folderFds, upperFds: places }];
    harden(trees, [], undefined, (line) => notes.push(line), NEEDS);
    this.#brokerSlot = this.#loop.watch(brokerFd, () => this.#hear());
  }

  run(): void {
    this.#loop.run(true);
  }

  /** The broker's word: one more sandbox, or that there will be no other. */
  #hear(): void {
    const message = takeMessage(this.#brokerFd);
    if (message === "none") return;
    const plan = message?.fds.find(({ role }) => role === Role.plan);
    if (message?.type === Type.launch && plan !== undefined) {
      this.#launch(message, readPlan(plan.fd));
      native.closeFd(plan.fd);
      return;
    }
    this.#isLetGo = true;
    this.#loop.unwatch(this.#brokerSlot);
    native.closeFd(this.#brokerFd);
    this.#endIfDone();
  }

  #endIfDone(): void {
    if (this.#isLetGo && this.#sandboxes.size === 0) this.#loop.stop();
  }

  #launch({ fds }: Message, plan: Plan): void {
    const sandbox = new SharedSandbox(plan, fds, (each) => this.#connectionEnded(each));
    this.#sandboxes.add(sandbox);
    sandbox.slot = this.#loop.watch(sandbox.stubFd, () => this.#hearStub(sandbox));
    if (sandbox.slot < 0 || sendReady(sandbox.stubFd) < 0) this.#finish(sandbox, undefined);
  }

  #hearStub(sandbox: SharedSandbox): void {
    const message = takeMessage(sandbox.stubFd);
    if (message === "none") return;
    if (message?.type === Type.adopt && !sandbox.isServed) {
      sandbox.adopted.push(...message.fds);
      if ((message.flags & MORE) === 0) this.#begin(sandbox);
      return;
    }
    for (const { fd } of message?.fds ?? []) native.closeFd(fd);
    // Gone, or asked to leave. Before all is adopted there is nothing to leave.
    sandbox.isLeft = message?.type === Type.leave;
    this.#loop.drop(sandbox, sandbox.isLeft);
    if (this.#sandboxes.has(sandbox)) this.#finish(sandbox, undefined);
  }

  /** The launch duties, of a sandbox all of whose FDs are here. */
  #begin(sandbox: SharedSandbox): void {
    const adopted = sandbox.adopted;
    sandbox.adopted = [];
    for (const { role, fd } of adopted) if (!USED.has(role)) native.closeFd(fd);
    sandbox.isServed = true;
    countFor(sandbox.counters);
    const trees: OpenedTree[] = [];
    let mountsFd = fdOf(adopted, Role.mounts, 0) ?? -1;
    try {
      const { plan } = sandbox;
      const mounts = plan.mounts.map(({ destination, isReadOnly }) => {
        return { destination, isReadOnly, source: "" };
      });
      checkSockets(adopted, mounts);
      for (const mount of plan.mounts) trees.push(this.#open(mount));
      tellMounts(mountsFd, parseSpec(plan.spec), trees[rootAmong(mounts)]?.tree);
      mountsFd = -1;
      addConnections(this.#loop, sandbox, sandbox.stubFd, { mounts, trees }, adopted);
    } catch (error) {
      sandbox.log(`failed to start: ${explain(error)}`);
      // The process goes on, so its end frees nothing: who waits for an FD's other end would wait for ever.
      const served = this.#loop.countOf(sandbox);
      for (const { mailbox, tree } of trees.slice(served)) {
        mailbox?.dispose();
        tree.dispose();
      }
      const isLeft = ({ role, index }: AdoptedFd) => role === Role.io && index >= served;
      for (const { fd } of adopted.filter(isLeft)) native.closeFd(fd);
      if (mountsFd >= 0) native.closeFd(mountsFd);
      this.#loop.drop(sandbox, false);
      if (this.#sandboxes.has(sandbox)) this.#finish(sandbox, 1);
      return;
    }
    sendServing(sandbox.stubFd);
    for (const note of this.#notes) sandbox.log(note);
    const others = this.#sandboxes.size - 1;
    sandbox.log(`serving ${sandbox.mountCount} mounts, shared with ${others} more`);
  }

  #open(mount: Plan["mounts"][number]): OpenedTree {
    const place = this.#places[mount.place];
    const opened = openDescribed(mount, { upperFd: place, isServing: false }, this.#folders);
    const host = hostTreeOf(opened.tree);
    if (host === undefined) return opened;
    host.limitFds(this.#fdShare);
    return { ...opened, upperFd: host.rootFd };
  }

  #connectionEnded(sandbox: SharedSandbox): void {
    if (this.#loop.countOf(sandbox) === 0) this.#finish(sandbox, sandbox.isLeft ? undefined : 0);
  }

  /** Forgets a sandbox; `code` is what its stub ends with, if it is there to be told. */
  #finish(sandbox: SharedSandbox, code: number | undefined): void {
    this.#sandboxes.delete(sandbox);
    if (code !== undefined) {
      sandbox.log(`done, having answered ${requestsOf(sandbox.counters)} requests`);
      sendDone(sandbox.stubFd, code);
    }
    if (sandbox.slot >= 0) this.#loop.unwatch(sandbox.slot);
    sandbox.close();
    if (!this.#isLetGo) sendGone(this.#brokerFd, sandbox.plan.number);
    this.#endIfDone();
  }
}

function requestsOf(counters: Float64Array): number {
  return counters.subarray(0, Count.errors).reduce((sum, count) => sum + count, 0);
}

/** Serves the sandboxes that a broker gives until it gives no more and the last has ended: the exit code. */
export function serveShared(brokerFd: number, share: Share): number {
  process.umask(0);
  native.askForShortTurns();
  const pid = Number(readlinkSync("/proc/self"));
  process.title = `burrow-gofer shared ${share.tenant}`; // ps tells whose it is
  const server = new SharedServer(brokerFd, share);
  if (sendReady(brokerFd, pid) < 0) return 1;
  server.run();
  return 0;
}
