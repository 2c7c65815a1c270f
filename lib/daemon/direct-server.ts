// DirectServer: the process that answers the kernel for one direct mount, and its successors when it is killed: the device stays open
// here meanwhile, so that who reads waits for the next instead of failing. Control plane.

import { fileURLToPath } from "node:url";
import { errnoName } from "../base/errno.ts";
import { DIRECT_RESTARTS_MAX, DIRECT_RESTARTS_MS } from "../base/limits.ts";
import type { FuseConfig } from "../gofer/fuse-config.ts";
import { Detached } from "../sys/detached.ts";
import { isolated, killGroup } from "./isolated.ts";

const PROGRAM = fileURLToPath(new URL("../../fuse.cjs", import.meta.url));
/** One that doesn't answer by then is ended. */
const READY_MS = 30_000;

export interface DirectServerHost {
  log(what: string, why: string): void;
  onRestart(): void;
  /** A server was started. */
  onStart(pid: number): void;
  /** The one that was left to itself has ended. */
  onEnd(): void;
  /** There will be none any more: the device is the owner's to close. */
  onLost(): void;
}

export class DirectServer {
  /** Resolves when the first answers; rejects when it can't. */
  readonly isReady: Promise<void>;
  readonly #config: FuseConfig;
  /** The owner's: closed only after leave(). */
  readonly #device: number;
  readonly #host: DirectServerHost;
  #server: Detached | undefined;
  #isLeft = false;
  #ends: number[] = [];

  constructor(config: FuseConfig, device: number, host: DirectServerHost) {
    this.#config = config;
    this.#device = device;
    this.#host = host;
    this.isReady = this.#start("first");
  }

  /** Leaves it to itself: it ends when nobody has the mount any more. `isOver`: so do we, and nobody is told. */
  leave(isOver: boolean): void {
    this.#isLeft = true;
    if (isOver) this.#server?.link.destroy();
  }

  async #start(direct: "first" | "follows"): Promise<void> {
    const config = JSON.stringify({ ...this.#config, direct });
    const words = [process.execPath, "--no-warnings", PROGRAM, config];
    const server = new Detached(isolated(words), [this.#device]);
    this.#server = server;
    const late = setTimeout(() => void server.pid.then(killGroup), READY_MS);
    try {
      const pid = await server.pid;
      if (pid < 0) throw new Error(`can't start its server: ${errnoName(pid)}`);
      this.#host.onStart(pid);
      await this.#firstWord(server);
    } finally {
      clearTimeout(late);
    }
    server.link.once("close", () => this.#ended());
    if (server.link.destroyed) this.#ended();
  }

  /** Waits until it answers. What it says later is for the log. */
  #firstWord({ link }: Detached): Promise<void> {
    link.setEncoding("utf8");
    return new Promise((resolve, reject) => {
      let said = "";
      link.on("data", (text: string) => {
        if (said === "") said = text;
        if (said.startsWith("\n")) resolve();
        const line = text.trim();
        if (line !== "") this.#host.log("direct mount", line);
      });
      link.once("error", () => undefined);
      link.once("close", () => reject(new Error(said.trim() || "its server ended")));
    });
  }

  /** Who has the mount waits until the next one answers. */
  #ended(): void {
    if (this.#isLeft) {
      this.#host.onEnd();
      return;
    }
    const nowMs = performance.now();
    this.#ends = [...this.#ends.filter((ms) => nowMs - ms < DIRECT_RESTARTS_MS), nowMs];
    if (this.#ends.length > DIRECT_RESTARTS_MAX) {
      this.#host.log("direct mount lost", "its servers end as soon as they begin");
      this.#host.onLost();
      return;
    }
    this.#host.onRestart();
    this.#start("follows").catch((error: Error) => {
      this.#host.log("direct mount not taken over", error.message);
      this.#ended();
    });
  }
}
