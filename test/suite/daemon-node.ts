// A node for daemon tests: a temporary store, cache and state directory, snapshots in the store, mounts that name them, a daemon
// in a process of its own, and a client that speaks the mailbox. Everything is removed by close().

import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";
import type { BlobRef } from "../../lib/base/blob.ts";
import type { Digest } from "../../lib/base/digest.ts";
import { type DaemonStatus, daemonStatus, isDaemonUp } from "../../lib/cache/client.ts";
import type { GateFigures } from "../../lib/cache/gate.ts";
import { cachePath } from "../../lib/cache/layout.ts";
import {
  type AnswerFields,
  decodeAnswer,
  encodeAskBlob,
  encodeAskBlocks,
  encodeAskLazy,
  encodeHello,
  encodeTouches,
  Frame,
  frameBytes,
  frameId,
  frameType,
  TOUCHES_MAX_BYTES,
  welcomeErrno,
} from "../../lib/cache/mailbox-wire.ts";
import { openSocketName } from "../../lib/cache/socket-name.ts";
import type { DaemonConfig } from "../../lib/daemon/config.ts";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { Index } from "../../lib/layer/index.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { openStore } from "../../lib/store/open.ts";
import { type NearIndex, openPackWriter, type WriterOptions } from "../../lib/store/pack-writer.ts";
import { lazyMountsOf, removeLazyMount } from "./lazy-leftovers.ts";
import { sleep, until } from "./wait.ts";

/** Files of a snapshot under test, by name. */
export type Files = Readonly<Record<string, Buffer>>;

export interface Published {
  readonly digest: Digest;
  readonly index: Index;
  readonly refs: ReadonlyMap<string, BlobRef>;
  /** Row of a file's blob in the index. */
  row(name: string): number;
}

/** Content that does not compress, and is the same for one seed. */
export function noise(bytes: number, seed = 1): Buffer {
  const out = Buffer.alloc(bytes);
  let state = seed * 2654435761;
  for (let i = 0; i < bytes; i++) {
    if (i % 4 === 0) state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    out[i] = (state ^ (state >>> 15)) >>> (8 * (i % 4));
  }
  return out;
}

/** Packs files into the store at `root` and publishes them as one snapshot. */
export async function publish(
  root: string,
  files: Files,
  options: WriterOptions = {},
): Promise<Published> {
  const writer = await openPackWriter(await openStore(root), options);
  const refs = new Map<string, BlobRef>();
  // One after the other: a file may be made by its getter, and be more than all may be in memory.
  for (const name of Object.keys(files)) refs.set(name, await writer.addBytes(files[name]!, name));
  const bytes = writeIndex(IndexKind.snapshot, entriesOf(refs));
  const { digest } = await writer.finish(bytes);
  return publishedOf(digest, bytes, refs);
}

export function entriesOf(refs: ReadonlyMap<string, BlobRef>): LayerEntry[] {
  const common = { mode: 0o644, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 };
  return [...refs].map(([path, blob]) => ({ ...common, type: "file", path, blob }) as const);
}

/** What a writer may make deltas of. */
export function nearOf({ digest, refs }: Published): NearIndex {
  return { digest, blobAt: (path) => refs.get(path) };
}

export function publishedOf(
  digest: Digest,
  bytes: Uint8Array,
  refs: ReadonlyMap<string, BlobRef>,
): Published {
  const index = new Index(bytes);
  const row = (name: string): number => {
    const wanted = refs.get(name)?.digest;
    for (let i = 0; i < index.blobCount; i++) if (index.blobDigest(i) === wanted) return i;
    return -1;
  };
  return { digest, index, refs, row };
}

/** Nothing is asked of an origin but what a test asks for. */
const QUIET: Partial<DaemonConfig> = { profiles: false, foresight: false };

export class TestNode {
  readonly root = fs.mkdtempSync(`${tmpdir()}/burrow-node-`);
  readonly store = `${this.root}/store`;
  readonly state = `${this.root}/state`;
  cache = `${this.root}/cache`;
  readonly #children = new Set<ChildProcess>();
  readonly #clients = new Set<MailboxClient>();
  output = "";

  /** Describes a view: base first, then grafts; its id. */
  mount(origin: string, ...snapshots: readonly Digest[]): string {
    const id = `m-${randomBytes(4).toString("hex")}`;
    const sources = snapshots.map((digest) => ({ snapshot: `sha256:${digest}`, origin }));
    const grafts = sources.slice(1).map((source, i) => ({ at: `/graft${i}`, ...source }));
    const mount = { format: 1, kind: "view", cache: this.cache, base: sources[0], grafts };
    fs.mkdirSync(`${this.state}/mounts/${id}`, { recursive: true });
    fs.writeFileSync(`${this.state}/mounts/${id}/mount.json`, JSON.stringify(mount));
    return id;
  }

  /** Starts a daemon process without waiting for it; `prefix`: the command that runs it, such as prlimit. */
  spawn(config: Partial<DaemonConfig> = {}, prefix: readonly string[] = []): ChildProcess {
    const program = fileURLToPath(new URL("daemon-program.js", import.meta.url));
    const given = {
      cache: this.cache,
      state: this.state,
      idleMs: 0,
      standbys: 0,
      ...QUIET,
      ...config,
    };
    return this.spawnCommand([...prefix, process.execPath, program, JSON.stringify(given)]);
  }

  /** The same by a command of the caller's. */
  spawnCommand(words: readonly string[]): ChildProcess {
    const child = spawn(words[0]!, words.slice(1), {
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#children.add(child);
    child.once("exit", () => this.#children.delete(child));
    const note = (bytes: Buffer) => {
      this.output += bytes.toString();
    };
    child.stdout?.on("data", note);
    child.stderr?.on("data", note);
    return child;
  }

  async start(
    config: Partial<DaemonConfig> = {},
    prefix: readonly string[] = [],
  ): Promise<ChildProcess> {
    const child = this.spawn(config, prefix);
    await until(async () => child.exitCode !== null || (await isDaemonUp(this.cache)));
    if (child.exitCode === null && (await isDaemonUp(this.cache))) return child;
    throw new Error(`the daemon did not come up: ${this.output}`);
  }

  /** A client that has been welcomed to a mount; throws with the errno when it was not. */
  async connect(mountId: string): Promise<MailboxClient> {
    const client = await MailboxClient.connect(this.cache, mountId);
    this.#clients.add(client);
    if (client.welcome !== 0) throw new Error(`welcomed with errno ${client.welcome}`);
    return client;
  }

  async status(): Promise<Figures> {
    const status = await daemonStatus(this.cache);
    if (status === undefined) throw new Error(`no daemon: ${this.output}`);
    return status as Figures;
  }

  /** Waits until the daemon has nothing under way. */
  async settled(): Promise<Figures> {
    for (;;) {
      const status = await this.status();
      if (status.now.isIdle) return status;
      await sleep(10);
    }
  }

  blobPath(digest: Digest): string {
    return cachePath(this.cache, "blobs", digest);
  }

  /** Names in a flat folder of the cache. */
  names(folder: "partial" | "tmp"): string[] {
    return fs.readdirSync(`${this.cache}/${folder}`);
  }

  /** How often something is mounted where the daemon mounts large files that are on their way. */
  get lazyMounts(): number {
    return lazyMountsOf(this.cache);
  }

  async close(): Promise<void> {
    for (const client of this.#clients) client.close();
    const gone = [...this.#children].map((child) => exited(child));
    for (const child of this.#children) child.kill("SIGKILL");
    await Promise.all(gone);
    // A killed daemon leaves its lazy mount to a holder, for the next one.
    removeLazyMount(this.cache);
    // Somebody may still be writing what nobody waits for; Node.js's own retries don't look for what is new.
    const isGone = () => {
      try {
        fs.rmSync(this.root, { recursive: true, force: true });
        return true;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "ENOTEMPTY") return false;
        throw error;
      }
    };
    if (!(await until(isGone))) throw new Error(`${this.root} is filled again and again`);
  }
}

export interface Figures extends DaemonStatus {
  readonly now: DaemonStatus["now"] & { readonly partials: number };
  readonly fetch: Record<string, number>;
  /** Requests under way and in line, by origin. */
  readonly queues: Record<string, GateFigures>;
  readonly lazy?: Record<string, number>;
}

export function exited(child: ChildProcess): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve(child.exitCode);
  return new Promise((resolve) => child.once("exit", (code) => resolve(code)));
}

/** An asynchronous end of the mailbox, as a gofer would use it. */
export class MailboxClient {
  readonly #socket: net.Socket;
  readonly #waits = new Map<number, (answer: AnswerFields) => void>();
  #in: Buffer = Buffer.alloc(0);
  #nextId = 1;
  welcome = -1;
  #onWelcome: () => void = () => undefined;

  private constructor(socket: net.Socket) {
    this.#socket = socket;
    socket.on("data", (bytes) => this.#receive(bytes));
    socket.on("error", () => socket.destroy());
    socket.once("close", () => {
      for (const wait of this.#waits.values()) wait({ errno: -1, state: 0, name: "" });
      this.#onWelcome();
    });
  }

  static async connect(cache: string, mountId: string): Promise<MailboxClient> {
    const { name, close } = openSocketName(cache);
    const socket = net.connect(name).once("connect", close).once("close", close);
    const client = new MailboxClient(socket);
    const welcomed = new Promise<void>((resolve) => {
      client.#onWelcome = resolve;
    });
    const out = Buffer.alloc(256);
    socket.write(out.subarray(0, encodeHello(out, 0, mountId)));
    await welcomed;
    return client;
  }

  /** errno -1 in an answer: the daemon closed the connection. */
  askBlob(snapshot: number, row: number): Promise<AnswerFields> {
    const out = Buffer.alloc(64);
    const id = this.#nextId++;
    return this.#ask(id, out.subarray(0, encodeAskBlob(out, id, snapshot, row)));
  }

  askBlocks(snapshot: number, row: number, first: number, count: number): Promise<AnswerFields> {
    const out = Buffer.alloc(64);
    const id = this.#nextId++;
    const ask = { snapshot, row, first, count };
    return this.#ask(id, out.subarray(0, encodeAskBlocks(out, id, ask)));
  }

  askLazy(snapshot: number, row: number): Promise<AnswerFields> {
    const out = Buffer.alloc(64);
    const id = this.#nextId++;
    return this.#ask(id, out.subarray(0, encodeAskLazy(out, id, snapshot, row)));
  }

  send(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** Tells touches: snapshot (with LOCAL_TOUCH or not), row, first block, count and time of each. */
  tell(...touches: readonly (readonly number[])[]): void {
    const out = Buffer.alloc(TOUCHES_MAX_BYTES);
    const words = Uint32Array.from(touches.flat());
    this.send(Buffer.from(out.subarray(0, encodeTouches(out, words, touches.length))));
  }

  /** Ends when all that was sent has been. */
  end(): void {
    this.#socket.end();
  }

  get isClosed(): boolean {
    return this.#socket.destroyed;
  }

  close(): void {
    this.#socket.destroy();
  }

  #ask(id: number, frame: Buffer): Promise<AnswerFields> {
    return new Promise((resolve) => {
      this.#waits.set(id, resolve);
      this.#socket.write(frame);
    });
  }

  #receive(bytes: Buffer): void {
    this.#in = Buffer.concat([this.#in, bytes]);
    for (;;) {
      const length = frameBytes(this.#in, 0, this.#in.length);
      if (length <= 0) return;
      if (frameType(this.#in, 0) === Frame.welcome) {
        this.welcome = welcomeErrno(this.#in, 0, length);
        this.#onWelcome();
      } else {
        const answer = { errno: 0, state: 0, name: "" };
        decodeAnswer(this.#in, 0, length, answer);
        const id = frameId(this.#in, 0);
        this.#waits.get(id)?.(answer);
        this.#waits.delete(id);
      }
      this.#in = this.#in.subarray(length);
    }
  }
}
