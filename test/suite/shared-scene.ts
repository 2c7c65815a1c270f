// SharedScene: a broker, standbys for it, and sandboxes' real stubs over views and uppers of one cache, all gone when the test ends. Needs
// root and the stub. Tests only.

import { type ChildProcess, spawn } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { fileURLToPath } from "node:url";
import { threadId } from "node:worker_threads";
import { readServers, type ServerList } from "../../lib/gofer/server-list.ts";
import { FiguresReader } from "../../lib/gofer/shared-figures.ts";
import { NATIVE_DIRECTORY, native } from "../../lib/sys/native.ts";
import { fewOpenFiles } from "./file-limit.ts";
import { type GoferMount, pair, writeMount } from "./gofer-process.ts";
import { LisafsClient } from "./lisafs-client.ts";
import { type Teardown, temporary } from "./served.ts";
import { type Files, makeView } from "./view-cache.ts";
import { until } from "./wait.ts";

const STUB = path.join(NATIVE_DIRECTORY, "burrow-stub");
const DIST = fileURLToPath(new URL("../..", import.meta.url));
const SOCK_STREAM = 1;
const UPPER = { sizeBytes: 1 << 20, inodes: 64 };

export const noShared: string | false =
  process.getuid?.() !== 0
    ? "not root: shared servers have mounts made"
    : fs.existsSync(STUB)
      ? // Two uppers' share: docs/design/0025, consequences.
        fewOpenFiles(8192)
      : `${STUB} isn't built`;

function exit(child: ChildProcess): Promise<number | string> {
  if (child.exitCode !== null || child.signalCode !== null)
    return Promise.resolve(child.exitCode ?? child.signalCode ?? "?");
  return new Promise((resolve) => child.once("close", (code, signal) => resolve(code ?? signal!)));
}

/** A sandbox's stub and clients of its mounts. */
export class SharedStub {
  readonly child: ChildProcess;
  readonly clients: LisafsClient[];
  readonly directory: string;

  constructor(child: ChildProcess, clients: LisafsClient[], directory: string) {
    this.child = child;
    this.clients = clients;
    this.directory = directory;
  }

  get pid(): number {
    return this.child.pid!;
  }

  get log(): string {
    const file = path.join(this.directory, "log");
    return fs.existsSync(file) ? fs.readFileSync(file, "utf8") : "";
  }

  /** What is counted of its requests. */
  get counters(): Float64Array {
    const bytes = fs.readFileSync(path.join(this.directory, "counters"));
    return new Float64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8);
  }

  /** Pids of servers of its own. */
  get children(): string[] {
    const file = `/proc/${this.pid}/task/${this.pid}/children`;
    return fs.readFileSync(file, "utf8").split(" ").filter(Boolean);
  }

  get exit(): Promise<number | string> {
    return exit(this.child);
  }

  /** Hangs up, as a sandbox that ends. */
  async end(): Promise<number | string> {
    for (const client of this.clients.splice(0)) client.close();
    return this.exit;
  }
}

export class SharedScene {
  readonly #t: Teardown;
  /** The state directory, with the cache in it. */
  readonly directory: string;
  readonly folder: string;
  readonly view: string;
  /** What the broker tells its daemon. */
  readonly told = new FiguresReader();
  #standbys = 0;
  #uppers = 0;

  /** With a view of these files, or in the directory of a scene that has one. */
  constructor(t: Teardown, files: Files | string) {
    this.#t = t;
    const isJoined = typeof files === "string";
    this.directory = isJoined ? files : temporary(t);
    this.view = isJoined ? path.join(files, "mounts/view") : makeView(this.directory, files);
    this.folder = path.join(this.directory, "cache/standby");
    fs.mkdirSync(path.join(this.folder, "shared"), { recursive: true, mode: 0o700 });
  }

  /** Who serves whom, once the broker, which says it a moment after a server has begun, speaks of so many stubs. */
  async serversOf(stubs: number): Promise<ServerList> {
    const count = () => this.servers.reduce((sum, server) => sum + server.stubs.length, 0);
    await until(() => count() === stubs);
    return this.servers;
  }

  get servers(): ServerList {
    return readServers(path.join(this.directory, "cache"));
  }

  #spawn(
    program: string,
    words: readonly string[],
    fd3: "pipe" | "ignore",
    openFiles?: number,
  ): ChildProcess {
    const line = [process.execPath, "--no-warnings", path.join(DIST, program), ...words];
    if (openFiles !== undefined) line.unshift("prlimit", `--nofile=${openFiles}`);
    const child = spawn(line[0]!, line.slice(1), {
      stdio: ["ignore", "pipe", "inherit", fd3],
      env: { PATH: process.env["PATH"] },
    });
    this.#t.teardown(async () => {
      child.kill("SIGKILL");
      await exit(child);
    });
    return child;
  }

  /** A broker whose servers serve up to `max` sandboxes, and may have so many files open; returns when it listens. */
  async startBroker(max = 30, openFiles?: number): Promise<ChildProcess> {
    const words = [path.join(this.folder, "shared/broker-1"), `${this.directory}/cache`, `${max}`];
    const child = this.#spawn("lib/gofer/broker.js", words, "pipe", openFiles);
    const link = child.stdio[3] as NodeJS.ReadableStream;
    link.on("error", () => {});
    link.on("data", (said: Buffer) => this.told.take(String(said)));
    await new Promise((resolve) => link.once("data", resolve));
    return child;
  }

  /** A standby that waits for the broker. */
  async startStandby(): Promise<ChildProcess> {
    const words = [path.join(this.folder, `standby-${this.#standbys++}`)];
    const child = this.#spawn("test/suite/plain-standby.js", words, "ignore");
    await new Promise((resolve) => child.stdout!.once("data", resolve));
    return child;
  }

  /** A new upper's mount. */
  upper(limits: { sizeBytes: number; inodes: number } = UPPER): GoferMount {
    const id = `upper-${process.pid}-${threadId}-${this.#uppers++}`;
    const source = writeMount(this.directory, id, { kind: "upper", ...limits, mode: 0o1777 });
    return { destination: `/${id}`, source };
  }

  /** A stub with the view as its root and further mounts, and a client of each with one channel. */
  async startStub(
    env: Record<string, string> = {},
    mounts: readonly GoferMount[] = [this.upper()],
    root: GoferMount = { destination: "/", source: this.view, isReadOnly: true },
  ): Promise<SharedStub> {
    const directory = temporary(this.#t);
    const spec = {
      root: { path: root.source, readonly: root.isReadOnly === true },
      mounts: mounts.map(({ destination, source }) => {
        return { destination, source, type: "bind", options: ["rw"] };
      }),
    };
    const config = path.join(directory, "config.json");
    fs.writeFileSync(config, JSON.stringify(spec));
    fs.writeFileSync(path.join(directory, "counters"), Buffer.alloc(512));
    const [mountsEnd, mountsChild] = pair(SOCK_STREAM);
    const ends = [root, ...mounts].map(() => pair(SOCK_STREAM));
    const theirs = [fs.openSync(config, "r"), mountsChild, ...ends.map(([, theirs]) => theirs)];
    const io = ends.map((_, i) => `--io-fds=${5 + i}`);
    const words = ["gofer", "--bundle", directory, "--spec-fd=3", "--mounts-fd=4", ...io];
    const child = spawn(STUB, words, {
      stdio: ["ignore", "ignore", "inherit", ...theirs],
      env: {
        PATH: process.env["PATH"],
        BURROW_NODE: process.execPath,
        BURROW_GOFER: path.join(DIST, "gofer.cjs"),
        BURROW_STATE: this.directory,
        BURROW_LOG: path.join(directory, "log"),
        BURROW_COUNTERS: path.join(directory, "counters"),
        BURROW_STANDBYS: this.folder,
        BURROW_SHARED: "1",
        BURROW_TENANT: "acme",
        ...env,
      },
    });
    for (const fd of theirs) native.closeFd(fd);
    const clients: LisafsClient[] = [];
    const stub = new SharedStub(child, clients, directory);
    this.#t.teardown(async () => {
      for (const client of clients) client.close();
      child.kill("SIGKILL");
      await exit(child);
    });
    const isTold = await until(() => /serving( on)? \d+ mounts/.test(stub.log) || isOver(child));
    native.closeFd(mountsEnd);
    if (!isTold || isOver(child)) throw new Error(`not served: ${stub.log}`);
    clients.push(...ends.map(([ours]) => LisafsClient.mount(ours, 1)));
    return stub;
  }
}

function isOver(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}
