// Connection: one peer of the daemon's socket, from its first byte to its last. It names its mount once and can then ask only for rows of
// that view's snapshots. All that it may have open or leave untaken is bounded. docs/protocol/mailbox.md. Control plane.

import type net from "node:net";
import { Errno } from "../base/errno.ts";
import { BurrowError, explain } from "../base/error.ts";
import { PARKED_MAX } from "../base/limits.ts";
import { type AskFailure, failureOf, type Log } from "../cache/counters.ts";
import type { FetchAnswer, Fetcher } from "../cache/fetcher.ts";
import {
  AnswerState,
  type AskFields,
  decodeAsk,
  decodeTouches,
  encodeAnswer,
  encodeBare,
  encodeStatusReply,
  encodeTraced,
  encodeWelcome,
  FRAME_BYTES,
  FRAME_MAX_BYTES,
  Frame,
  frameBytes,
  frameId,
  frameType,
  helloHearsWork,
  helloMountId,
  helloTakesFiles,
  helloVersion,
  MAILBOX_VERSION,
  REQUEST_MAX_BYTES,
  TOUCHES_MAX_BYTES,
} from "../cache/mailbox-wire.ts";
import type { SnapshotSource } from "../gofer/mount.ts";
import { closeSent, sendWithFile } from "../sys/peer.ts";
import type { AskPlaces } from "./asks.ts";
import type { DirectMounts } from "./direct-mounts.ts";
import type { Foreseeing, Foresight } from "./foresight.ts";
import type { LazyMount } from "./lazy-mount.ts";
import type { Prefetched } from "./prefetched.ts";
import type { Learner, Profiles } from "./profiles.ts";
import type { DescribedView, Sources } from "./sources.ts";
import type { Tracing } from "./tracing.ts";
import { ViewReport } from "./view-report.ts";
import type { ViewFigures, Views } from "./views.ts";

/** A peer that does not take its answers is not heard past this: as much as the answers to all asks it may have open. */
const UNSENT_MAX_BYTES = 64 * 1024;
/** Of a trace, which comes unasked. */
const TRACE_UNSENT_MAX_BYTES = 4 * 1024 * 1024;
/** How often a peer that waits is told that its asks are worked on, as a part of deadlineMs: what it waits for itself is no shorter. */
const WORKING_SHARE = 2 / 5;

/** The daemon, as its peers see it. */
export interface ConnectionContext {
  readonly fetcher: Fetcher;
  /** Undefined where there is none. */
  readonly lazy: LazyMount | undefined;
  readonly direct: DirectMounts;
  readonly sources: Sources;
  readonly views: Views;
  /** Undefined where none are kept. */
  readonly profiles: Profiles | undefined;
  /** Undefined where nothing is foreseen. */
  readonly foresight: Foresight | undefined;
  readonly prefetched: Prefetched;
  readonly tracing: Tracing;
  readonly deadlineMs: number;
  /** How long a peer that named no mount may say nothing. */
  readonly silentMs: number;
  readonly log: Log;
  /** JSON of STATUS_REPLY; isOwner: who asks is root or the daemon's own user. */
  status(isOwner: boolean): unknown;
  /** Counts what is in the cache again, for its owner's sake. Never rejects. */
  look(): Promise<void>;
}

export class Connection {
  readonly #context: ConnectionContext;
  readonly #socket: net.Socket;
  /** Root, or the daemon's own user. */
  readonly #isOwner: boolean;
  /** Asks by id; the value tells an ask from a cancelled one of the same id. */
  readonly #open = new Map<number, AskFields>();
  readonly #places: AskPlaces;
  readonly #onHello: () => void;
  /** Asks that are worked on: the open ones, and those cancelled meanwhile. */
  #atWork = 0;
  #isRefused = false;
  #isGreeting = false;
  #hasDirect = false;
  #takesFiles = false;
  #hearsWork = false;
  #working: NodeJS.Timeout | undefined;
  #mountId = "";
  #described: DescribedView | undefined;
  #learner: Learner | undefined;
  #foreseeing: Foreseeing | undefined;
  #report: ViewReport | undefined;
  /** What the view had to wait for. */
  #view: ViewFigures | undefined;
  #in: Buffer = Buffer.alloc(0);

  constructor(
    context: ConnectionContext,
    socket: net.Socket,
    isOwner: boolean,
    places: AskPlaces,
    onHello: () => void,
  ) {
    this.#context = context;
    this.#socket = socket;
    this.#isOwner = isOwner;
    this.#places = places;
    this.#onHello = onHello;
    socket.setTimeout(context.silentMs, () => socket.destroy());
    socket.on("data", (bytes) => this.#receive(bytes));
    socket.on("drain", () => this.#continue());
    // A peer that dies is no news: its flights live on.
    socket.on("error", () => socket.destroy());
    socket.once("close", () => clearTimeout(this.#working));
  }

  close(): void {
    this.#socket.destroy();
  }

  /** What can be asked of; undefined of a peer that named no mount. */
  get #snapshots(): readonly SnapshotSource[] | undefined {
    return this.#described?.snapshots;
  }

  #receive(bytes: Buffer): void {
    this.#in = this.#in.length === 0 ? bytes : Buffer.concat([this.#in, bytes]);
    this.#takeFrames();
  }

  /** The peer took what it was sent: what it asked meanwhile comes first. */
  #continue(): void {
    this.#takeFrames();
    if (!this.#isFull) this.#socket.resume();
  }

  /** Whether nothing more is taken from the peer for now. */
  get #isFull(): boolean {
    return this.#isGreeting || this.#socket.writableLength > UNSENT_MAX_BYTES;
  }

  #takeFrames(): void {
    let start = 0;
    while (!this.#socket.destroyed && !this.#isRefused && !this.#isFull) {
      const max = this.#isHeard ? TOUCHES_MAX_BYTES : REQUEST_MAX_BYTES;
      const length = frameBytes(this.#in, start, this.#in.length, max);
      if (length === 0) break;
      if (length < 0 || !this.#take(start, length)) {
        this.#socket.destroy();
        return;
      }
      start += length;
    }
    this.#in = this.#isRefused ? Buffer.alloc(0) : this.#in.subarray(start);
    if (this.#isFull) this.#socket.pause();
  }

  /** Whether its touches are wanted: where starts teach nothing, and nothing is fetched ahead of them, nobody asks what they use. */
  get #isHeard(): boolean {
    return this.#described?.isProfiled === true && this.#context.profiles !== undefined;
  }

  /** Handles one frame; false when the peer breaks the protocol. */
  #take(start: number, length: number): boolean {
    const id = frameId(this.#in, start);
    switch (frameType(this.#in, start)) {
      case Frame.hello:
        return this.#hello(start, length, id);
      case Frame.askBlob:
      case Frame.askLazy:
      case Frame.askBlocks: {
        const ask: AskFields = { snapshot: 0, row: 0, first: 0, count: 0 };
        if (this.#snapshots === undefined || decodeAsk(this.#in, start, length, ask) < 0)
          return false;
        if (this.#open.has(id)) return false;
        const isLazy = frameType(this.#in, start) === Frame.askLazy;
        void this.#ask(id, ask, isLazy, this.#snapshots);
        return true;
      }
      case Frame.cancel:
        this.#open.delete(id);
        return true;
      case Frame.touches: {
        const touches = this.#isHeard ? decodeTouches(this.#in, start, length) : undefined;
        if (touches === undefined || !this.#report!.take(touches)) return false;
        this.#learner?.touched(touches);
        return true;
      }
      case Frame.askDirect:
        return this.#askDirect(id);
      case Frame.trace:
        return this.#trace(id);
      case Frame.status:
        this.#sendStatus(id);
        return true;
      case Frame.look:
        void this.#look(id);
        return true;
      default:
        return false;
    }
  }

  /** Nothing else of the peer is heard until it is welcome. */
  #hello(start: number, length: number, id: number): boolean {
    if (this.#snapshots !== undefined) return false;
    this.#takesFiles = helloTakesFiles(this.#in, start);
    this.#hearsWork = helloHearsWork(this.#in, start);
    const isVersion = helloVersion(this.#in, start, length) === MAILBOX_VERSION;
    const mountId = isVersion ? helloMountId(this.#in, start, length) : "";
    this.#isGreeting = true;
    // Who waits for an answer doesn't stand there only; refused, it is ended.
    this.#onHello();
    void this.#welcome(isVersion, mountId, id);
    return true;
  }

  async #welcome(isVersion: boolean, mountId: string, id: number): Promise<void> {
    let errno = isVersion ? 0 : Errno.EOPNOTSUPP;
    if (isVersion) {
      try {
        this.#described = await this.#context.sources.view(mountId);
      } catch (error) {
        errno = errnoOfHello(error);
        this.#context.log("hello refused", { mountId, error: explain(error) });
      }
    }
    this.#isGreeting = false;
    if (this.#socket.destroyed) return;
    const count = this.#snapshots?.length ?? 0;
    this.#send(64, (out) => encodeWelcome(out, id, errno, count, this.#isHeard));
    if (errno !== 0) {
      this.#isRefused = true;
      this.#in = Buffer.alloc(0);
      this.#socket.end();
      return;
    }
    this.#socket.setTimeout(0);
    this.#countFor(mountId, this.#snapshots!);
    this.#learn();
    this.#continue();
  }

  #countFor(mountId: string, snapshots: readonly SnapshotSource[]): void {
    const { views } = this.#context;
    const view = views.open(mountId);
    this.#view = view;
    this.#mountId = mountId;
    const isHeard = this.#isHeard;
    const report = new ViewReport(this.#context, { mountId, snapshots, figures: view, isHeard });
    this.#report = report;
    this.#socket.once("close", () => {
      report.close();
      views.close(mountId, view);
    });
  }

  #learn(): void {
    const view = this.#described!;
    if (!view.isProfiled) return;
    const { profiles, foresight } = this.#context;
    const learner = profiles?.begin(view.snapshots, view.command, this.#mountId);
    this.#learner = learner;
    this.#foreseeing = foresight?.begin(view, this.#mountId, learner);
    this.#socket.once("close", () => learner?.end());
  }

  /** Gives the view as a mount, until the peer is gone: false for who may not have it. Its own servers ask for none. */
  #askDirect(id: number): boolean {
    const view = this.#described;
    if (!this.#isOwner || view === undefined || this.#hasDirect) return false;
    this.#hasDirect = true;
    void this.#context.direct.use(view).then((use) => {
      if (typeof use === "number") return this.#answer(id, failure(use));
      this.#socket.once("close", use.release);
      if (this.#socket.destroyed) use.release();
      const { hostFd } = use;
      this.#answer(id, { errno: 0, state: AnswerState.completeHere, name: "", hostFd });
    });
    return true;
  }

  /** Begins to tell what is done for the view; asked again, tells what is left, and ends. False for who may not know. */
  #trace(id: number): boolean {
    if (!this.#isOwner || this.#report === undefined) return false;
    const hasRoom = () => this.#socket.writableLength < TRACE_UNSENT_MAX_BYTES;
    const tell = (body: object) => this.#sendTraced(id, body);
    this.#report.trace((events) => hasRoom() && tell({ events }), tell);
    return true;
  }

  /** False of what no frame holds. */
  #sendTraced(id: number, body: object): boolean {
    const json = Buffer.from(JSON.stringify(body));
    if (FRAME_BYTES + json.length > FRAME_MAX_BYTES) return false;
    this.#send(FRAME_BYTES + json.length, (out) => encodeTraced(out, id, json));
    return true;
  }

  async #ask(
    id: number,
    ask: AskFields,
    isLazy: boolean,
    snapshots: readonly SnapshotSource[],
  ): Promise<void> {
    if (this.#atWork >= PARKED_MAX || !this.#places.enter()) {
      this.#answer(id, failure(Errno.ENOBUFS));
      return;
    }
    this.#open.set(id, ask);
    this.#sayWorking();
    this.#atWork++;
    const begunMs = performance.now();
    const answer = await this.#fetch(ask, isLazy, snapshots);
    this.#atWork--;
    this.#places.leave();
    const view = this.#view!;
    view.asks++;
    view.blockedMs += performance.now() - begunMs;
    if (answer.errno !== 0) view.failedAsks++;
    // Cancelled meanwhile: nobody waits.
    if (this.#open.get(id) !== ask) {
      closeSent(answer.hostFd);
      return;
    }
    this.#open.delete(id);
    this.#answer(id, answer);
  }

  /** Has the peer hear now and then that its asks are worked on, for as long as it has any: each of them ends by a deadline of its own. */
  #sayWorking(): void {
    if (!this.#hearsWork || this.#working !== undefined || this.#socket.destroyed) return;
    this.#working = setTimeout(() => {
      this.#working = undefined;
      if (this.#open.size === 0) return;
      if (!this.#isFull) this.#send(FRAME_BYTES, (out) => encodeBare(out, Frame.working, 0));
      this.#sayWorking();
    }, WORKING_SHARE * this.#context.deadlineMs).unref();
  }

  async #fetch(
    ask: AskFields,
    isLazy: boolean,
    snapshots: readonly SnapshotSource[],
  ): Promise<FetchAnswer> {
    const snapshot = snapshots[ask.snapshot];
    if (snapshot === undefined) return failure(Errno.EINVAL);
    const { fetcher, lazy, sources, views, log } = this.#context;
    if (isLazy && lazy === undefined) return NO_LAZY_FILE;
    try {
      using deadline = fetcher.deadlineOf(snapshot.origin);
      const source = await sources.open(snapshot, deadline.signal);
      if (isLazy && lazy !== undefined) return { ...(await lazy.ask(source, ask.row)), hostFd: -1 };
      const onMiss = (bytes: number) => {
        this.#view!.fetchedBytes += bytes;
        this.#foreseeing?.miss();
        this.#learner?.asked(ask.snapshot, { row: ask.row, first: ask.first, count: ask.count });
      };
      const onFailure = (failure: AskFailure) => views.failed(this.#mountId, failure);
      const { onPrefetch } = this.#report!;
      const asking = { ...source, onMiss, onFailure, onPrefetch };
      return await fetcher.ask(asking, ask.row, ask.first, ask.count);
    } catch (error) {
      log("no index", {
        snapshot: snapshot.snapshot,
        origin: snapshot.origin,
        error: explain(error),
      });
      views.failed(this.#mountId, failureOf(error));
      const isLate = error instanceof BurrowError && error.code === "BURROW_TIMEOUT";
      return failure(isLate ? Errno.ETIMEDOUT : Errno.EIO);
    }
  }

  #answer(id: number, answer: FetchAnswer): void {
    if (answer.hostFd >= 0) {
      this.#answerWithFile(id, answer);
      return;
    }
    this.#send(FRAME_BYTES + 10 + answer.name.length, (out) => encodeAnswer(out, id, answer));
  }

  /** What a peer that takes no files can't have it can't have. */
  #answerWithFile(id: number, answer: FetchAnswer): void {
    if (!this.#takesFiles) {
      closeSent(answer.hostFd);
      this.#answer(id, failure(Errno.ENOSPC));
      return;
    }
    const out = Buffer.alloc(FRAME_BYTES + 10 + answer.name.length);
    encodeAnswer(out, id, answer);
    sendWithFile(this.#socket, out, answer.hostFd);
  }

  async #look(id: number): Promise<void> {
    if (this.#isOwner) await this.#context.look();
    this.#sendStatus(id);
  }

  #sendStatus(id: number): void {
    const json = Buffer.from(JSON.stringify(this.#context.status(this.#isOwner)));
    const capacity = Math.min(FRAME_BYTES + json.length, FRAME_MAX_BYTES);
    this.#send(capacity, (out) => encodeStatusReply(out, id, json));
  }

  #send(capacity: number, encode: (out: Uint8Array) => number): void {
    if (this.#socket.destroyed) return;
    const out = Buffer.alloc(capacity);
    const length = encode(out);
    if (length < 0) {
      this.#socket.destroy();
      return;
    }
    this.#socket.write(out.subarray(0, length));
  }
}

const NO_LAZY_FILE: FetchAnswer = { errno: 0, state: AnswerState.lazy, name: "", hostFd: -1 };

function errnoOfHello(error: unknown): number {
  if (!(error instanceof BurrowError)) return Errno.EINVAL;
  if (error.class === "notFound") return Errno.ENOENT;
  return error.code === "BURROW_IO" ? Errno.EIO : Errno.EINVAL;
}

function failure(errno: number): FetchAnswer {
  return { errno, state: 0, name: "", hostFd: -1 };
}
