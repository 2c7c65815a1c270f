// Owns: a stub as runsc starts it, with a client of its own in the sandbox's place, whose servers a test kills. Plane: control.
import { type ChildProcess, spawn } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { native } from "../../lib/sys/native.ts";
import { pair } from "../suite/gofer-process.ts";
import { LisafsClient } from "../suite/lisafs-client.ts";
import { type Teardown, temporary } from "../suite/served.ts";
import { until } from "../suite/wait.ts";
import { exitOf, ROOT, STUB } from "./runsc.ts";

export const GOFER = path.join(ROOT, "dist/gofer.cjs");
const SOCK_STREAM = 1;
const missing = [STUB, GOFER].find((file) => !fs.existsSync(file));
/** Why there can be none, or "". */
export const noHot =
  missing !== undefined ? `${missing} isn't built` : process.getuid?.() !== 0 ? "not root" : "";

export interface HotMount {
  readonly source: string;
  readonly isReadOnly: boolean;
}

/** A stub and its servers. */
export class HotStub {
  readonly stub: ChildProcess;
  readonly directory: string;
  readonly #sockets: number[] = [];
  readonly #mountsFd: number;

  /** The mounts' first is the root. Ends with the test, whatever it did. */
  constructor(
    t: Teardown,
    directory: string,
    mounts: readonly HotMount[],
    env: Record<string, string> = {},
  ) {
    this.directory = directory;
    const [root, ...others] = mounts;
    const config = path.join(directory, "config.json");
    const spec = {
      root: { path: root!.source, readonly: root!.isReadOnly },
      mounts: others.map(({ source, isReadOnly }, i) => ({
        destination: `/m${i}`,
        type: "bind",
        source,
        options: [isReadOnly ? "ro" : "rw"],
      })),
    };
    fs.writeFileSync(config, JSON.stringify(spec));
    const specFd = fs.openSync(config, "r");
    const [mountsFd, mountsChild] = pair(SOCK_STREAM);
    this.#mountsFd = mountsFd;
    const children = [specFd, mountsChild];
    const words = ["gofer", "--bundle", directory, "--spec-fd=3", "--mounts-fd=4"];
    for (let i = 0; i < mounts.length; i++) {
      const [ours, theirs] = pair(SOCK_STREAM);
      this.#sockets.push(ours);
      words.push(`--io-fds=${3 + children.length}`);
      children.push(theirs);
    }
    this.stub = spawn(STUB, words, {
      stdio: ["ignore", "ignore", "ignore", ...children],
      env: {
        PATH: process.env["PATH"],
        BURROW_NODE: process.execPath,
        BURROW_GOFER: GOFER,
        BURROW_STATE: directory,
        BURROW_LOG: path.join(directory, "log"),
        ...env,
      },
    });
    for (const fd of children) native.closeFd(fd);
    t.teardown(async () => {
      for (const fd of this.#sockets) if (fd >= 0) native.closeFd(fd);
      native.closeFd(mountsFd);
      this.stub.kill("SIGKILL");
      await exitOf(this.stub);
    });
  }

  get log(): string {
    const file = path.join(this.directory, "log");
    return fs.existsSync(file) ? fs.readFileSync(file, "utf8") : "";
  }

  /** Waits until the first server serves. */
  start(): void {
    const bytes = Buffer.alloc(65_536);
    let text = "";
    for (let got = 1; got > 0; ) {
      got = native.readFd(this.#mountsFd, bytes);
      text += bytes.toString("utf8", 0, Math.max(0, got));
    }
    if (!text.startsWith("[")) throw new Error(`no mounts: ${text}\n${this.log}`);
  }

  /** A client on a mount. */
  mount(t: Teardown, index = 0, channels = 1): LisafsClient {
    const fd = this.#sockets[index]!;
    this.#sockets[index] = -1;
    const client = LisafsClient.mount(fd, channels);
    t.teardown(() => client.close());
    return client;
  }

  /** Pids of the stub's children; none when it has ended. */
  servers(): number[] {
    const file = `/proc/${this.stub.pid}/task/${this.stub.pid}/children`;
    const text = fs.existsSync(file) ? fs.readFileSync(file, "utf8") : "";
    return text.split(" ").filter(Boolean).map(Number);
  }

  /** Kills the server that is there and waits until it is gone: its pid. */
  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<number> {
    if (!(await until(() => this.servers().length === 1))) throw new Error("no server");
    const server = this.servers()[0]!;
    process.kill(server, signal);
    if (!(await until(() => !this.servers().includes(server)))) throw new Error("it lives");
    return server;
  }
}

/** A folder of the test's own that the server may search. */
export function hotDirectory(t: Teardown): string {
  return temporary(t);
}
