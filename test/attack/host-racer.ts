// Racer: a thread that is one client of a gofer over a writable host directory: it moves and swaps directories, walks, opens,
// makes and removes without pause, and counts what it sees. Or a thread that swaps two names on the host itself. Tests only.

import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { errnoName } from "../../lib/base/errno.ts";
import { hostFs, O_PATH } from "../../lib/sys/hostfs.ts";
import { native } from "../../lib/sys/native.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { contentOf, inodeAt } from "../suite/lisafs-calls.ts";
import { LisafsClient } from "../suite/lisafs-client.ts";

interface RacerData {
  /** A client's io socket; -1 for a thread that swaps on the host. */
  readonly socketFd: number;
  readonly directory: string;
  readonly seed: number;
  /** Inode numbers that must never be seen. */
  readonly forbidden: readonly number[];
  readonly stop: Int32Array;
}

export interface Racer {
  /** Ends it: how often it saw what. "escape …" must not be there. */
  stop(): Promise<Record<string, number>>;
}

/** Resolves when it is about to race. */
export async function startRacer(data: Omit<RacerData, "stop">): Promise<Racer> {
  const stop = new Int32Array(new SharedArrayBuffer(4));
  // None of the test runner's hooks: they take seconds to load on a busy machine.
  const options = { workerData: { ...data, stop }, execArgv: [] };
  const worker = new Worker(fileURLToPath(import.meta.url), options);
  await once(worker, "message");
  return {
    async stop() {
      Atomics.store(stop, 0, 1);
      const [seen] = await once(worker, "message");
      return seen;
    },
  };
}

const EXCHANGE = 2;
const INODE_BYTES = 152;
const O_RDWR = 2;
/** Names that are swapped: a directory, one more, and symlinks that lead outside. */
const SWAPPED = ["d", "s", "e", "up"];
const PATHS = [
  "d/secret",
  "d/sub/secret",
  "e/sub/secret",
  "s/secret",
  "up/outside/secret",
  "e/s/secret",
];

class Client {
  readonly #client: LisafsClient;
  readonly #forbidden: Set<number>;
  readonly seen: Record<string, number> = {};
  #state: number;

  constructor({ socketFd, seed, forbidden }: RacerData) {
    this.#client = LisafsClient.mount(socketFd, 1);
    this.#client.pathway = this.#client.channels[0]!;
    this.#forbidden = new Set(forbidden);
    this.#state = seed;
  }

  count(what: string): void {
    this.seen[what] = (this.seen[what] ?? 0) + 1;
  }

  /** 0 to below `bound`. Numerical Recipes' generator. */
  #random(bound: number): number {
    this.#state = (Math.imul(this.#state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * bound);
  }

  #call(mid: number, fields: Parameters<LisafsClient["call"]>[1]) {
    const reply = this.#client.call(mid, fields);
    this.count(`${mid} ${reply.errno === 0 ? "done" : errnoName(reply.errno)}`);
    return reply;
  }

  /** Walks a path: FDIDs of what is there, each of which must be of the tree. */
  #walk(path: string): number[] {
    const names = path.split("/");
    const { errno, payload } = this.#call(Mid.Walk, { fd: this.#client.rootFd, names });
    if (errno !== 0) return [];
    const fds: number[] = [];
    for (let i = 0; i < payload.readUInt16LE(1); i++) {
      const { fd, stat } = inodeAt(payload, 3 + i * INODE_BYTES);
      fds.push(fd);
      if (this.#forbidden.has(stat.ino)) this.count(`escape: walked to ${path}`);
    }
    if (fds.length === names.length) this.count("walked to the end");
    return fds;
  }

  #open(path: string): void {
    const fds = this.#walk(path);
    const file = fds.at(-1);
    if (file !== undefined) {
      const opened = this.#call(Mid.OpenAt, { fd: file, flags: this.#random(2) * O_RDWR });
      if (opened.errno === 0) fds.push(Number(opened.payload.readBigUInt64LE(0)));
      for (const hostFd of opened.fds) {
        const text = contentOf(hostFd).toString("latin1");
        this.count(text.startsWith("CANARY") ? `escape: read ${path}` : "read");
        native.closeFd(hostFd);
      }
    }
    this.#client.call(Mid.Close, { fds });
  }

  #make(): void {
    const fds = this.#walk(["d", "e", "s", "up", "d/sub"][this.#random(5)]!);
    const fd = fds.at(-1);
    if (fd !== undefined) {
      const owner = { uid: 0xffff_ffff, gid: 0xffff_ffff };
      const name = `n${this.#random(3)}`;
      const made = { fd, name, mode: 0o644, ...owner };
      const kinds = [Mid.OpenCreateAt, Mid.MkdirAt, Mid.MknodAt, Mid.SymlinkAt, Mid.LinkAt];
      const mid = kinds[this.#random(kinds.length)]!;
      const otherFd = fds[0]!;
      const mode = mid === Mid.MknodAt ? 0o100644 : made.mode;
      const {
        errno,
        payload,
        fds: given,
      } = this.#call(mid, {
        ...made,
        mode,
        otherFd,
        flags: O_RDWR,
        otherName: "../outside",
      });
      for (const hostFd of given) native.closeFd(hostFd);
      if (errno === 0) fds.push(inodeAt(payload, 0).fd);
      this.#call(Mid.SetStat, { fd, mask: 2, mode: 0o755 });
      for (const flags of [0, 0x200]) this.#call(Mid.UnlinkAt, { fd, name, flags });
      this.#call(Mid.UnlinkAt, { fd, name: "gone", flags: 0 });
    }
    this.#client.call(Mid.Close, { fds });
  }

  #move(): void {
    const [fd, otherFd] = [this.#client.rootFd, this.#client.rootFd];
    const name = SWAPPED[this.#random(4)]!;
    const otherName = SWAPPED[this.#random(4)]!;
    this.#call(Mid.RenameAt2, { fd, otherFd, name, otherName, flags: EXCHANGE });
  }

  step(): void {
    const kind = this.#random(4);
    if (kind < 2) this.#open(PATHS[this.#random(PATHS.length)]!);
    else if (kind === 2) this.#make();
    else this.#move();
  }

  close(): void {
    this.#client.close();
  }
}

function race(data: RacerData): void {
  const client = new Client(data);
  parentPort!.postMessage("up");
  while (Atomics.load(data.stop, 0) === 0) client.step();
  client.close();
  parentPort!.postMessage(client.seen);
}

function swap({ directory, stop }: RacerData): void {
  const dir = native.openAt(-1, directory, O_PATH, 0);
  let swaps = 0;
  parentPort!.postMessage("up");
  while (Atomics.load(stop, 0) === 0) {
    if (hostFs.renameAt(dir, "d", dir, "s", EXCHANGE) === 0) swaps++;
    if (hostFs.renameAt(dir, "e", dir, "up", EXCHANGE) === 0) swaps++;
  }
  native.closeFd(dir);
  parentPort!.postMessage({ swaps });
}

if (!isMainThread) {
  const data = workerData as RacerData;
  if (data.socketFd < 0) swap(data);
  else race(data);
}
