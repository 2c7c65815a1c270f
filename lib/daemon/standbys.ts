// Standbys: the servers that wait for stubs, started ahead, so that a sandbox does not wait for one (docs/design/0006-standby.md).
// One that is taken is the sandbox's: the daemon starts another and has nothing more to do with it. Where none can be had, stubs
// start their own. Control plane.

import fs from "node:fs";
import type { Duplex } from "node:stream";
import { fileURLToPath } from "node:url";
import { Errno, errnoName } from "../base/errno.ts";
import { explain } from "../base/error.ts";
import type { Log } from "../cache/counters.ts";
import { sharedFolder, standbyFolder } from "../cache/layout.ts";
import { FiguresReader, type SharedFigures } from "../gofer/shared-figures.ts";
import { Detached } from "../sys/detached.ts";
import { isolated, killGroup } from "./isolated.ts";

const programOf = (name: string) => fileURLToPath(new URL(`../../${name}.cjs`, import.meta.url));
/** How long after the start, or after one was taken, the next is started: the sandbox that took it has the CPUs first. */
const DELAY_MS = 1_000;
/** One that doesn't wait by then never will: a rehearsal takes a second of a CPU, which it has last of all. */
const READY_MS = 180_000;
/** What it says when somebody has taken it. */
const TAKEN = "-";
/** After one that did not come to wait: twice as long each time. */
const RETRY_MAX_MS = 60_000;

/** A program that is kept running: `program PATH ARGUMENTS…`, which listens there. */
export interface Kept {
  readonly folder: string;
  /** In dist/. Its socket's name begins so, and is long enough for no hardened server's filter to let it be connected to:
   * lib/gofer/calls.ts, DAEMON_ADDRESS_BYTES. */
  readonly program: "standby" | "broker";
  readonly words: readonly string[];
  /** How many at a time. */
  readonly wanted: number;
}

/** The servers that wait for stubs. */
export function standbysOf(cache: string, wanted: number): Kept {
  return { folder: standbyFolder(cache), program: "standby", words: [], wanted };
}

/** Who finds shared servers for stubs; `sandboxes` of one, 0: nobody shares. */
export function brokerOf(cache: string, sandboxes: number): Kept {
  const words = [cache, `${sandboxes}`];
  return { folder: sharedFolder(cache), program: "broker", words, wanted: Math.min(sandboxes, 1) };
}

interface Standby {
  readonly path: string;
  /** Undefined until it has been started. */
  pid: number | undefined;
  /** Its end tells the standby of ours, and the other way round. */
  readonly link: Duplex;
  isWaiting: boolean;
  /** A broker's. */
  readonly reader: FiguresReader;
}

export class Standbys {
  readonly #kept: Kept;
  readonly #program: string;
  readonly #folder: string;
  readonly #log: Log;
  readonly #all = new Set<Standby>();
  #wanted: number;
  #timer: NodeJS.Timeout | undefined;
  #started = 0;
  #delayMs = DELAY_MS;

  /** In a cache whose lock the caller has. Only root can start any. */
  constructor(kept: Kept, log: Log) {
    this.#kept = kept;
    this.#program = programOf(kept.program);
    this.#folder = kept.folder;
    this.#wanted = process.geteuid?.() === 0 && fs.existsSync(this.#program) ? kept.wanted : 0;
    this.#log = log;
  }

  /** How many wait. */
  get waiting(): number {
    let count = 0;
    for (const standby of this.#all) if (standby.isWaiting) count++;
    return count;
  }

  /** What the broker says of its servers; undefined where none waits. */
  get shared(): SharedFigures | undefined {
    for (const { isWaiting, reader } of this.#all) if (isWaiting) return reader.figures;
    return undefined;
  }

  start(): void {
    try {
      // What stands there was left by a killed daemon; those who waited there saw its end.
      fs.rmSync(this.#folder, { recursive: true, force: true });
      if (this.#wanted > 0) fs.mkdirSync(this.#folder, { mode: 0o700 });
    } catch (error) {
      this.#wanted = 0; // the daemon does without
      this.#log("no standbys", { error: explain(error) });
    }
    this.#schedule();
  }

  /** Those that wait end; those that serve go on. */
  stop(): void {
    this.#wanted = 0;
    clearTimeout(this.#timer);
    for (const { link, pid, isWaiting } of this.#all) {
      link.destroy();
      if (!isWaiting) killGroup(pid); // it rehearses, in files of its own, and would see our end only then
    }
    try {
      fs.rmSync(this.#folder, { recursive: true, force: true, maxRetries: 10 });
    } catch {
      // The next daemon of the cache tries again.
    }
  }

  #schedule(): void {
    if (this.#all.size >= this.#wanted || this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      try {
        fs.mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
        this.#spawn();
      } catch (error) {
        this.#retryLater(explain(error)); // no FDs, no memory, no room
      }
      this.#schedule();
    }, this.#delayMs);
  }

  #spawn(): void {
    const { program, words: own } = this.#kept;
    const path = `${this.#folder}/${program}-${process.pid}-${this.#started++}`;
    const node = [process.execPath, "--no-warnings", this.#program, path, ...own];
    const { link, pid } = new Detached(isolated(node));
    const reader = new FiguresReader();
    const standby: Standby = { path, pid: undefined, link, isWaiting: false, reader };
    this.#all.add(standby);
    const late = setTimeout(() => killGroup(standby.pid), READY_MS).unref();
    link.once("close", () => clearTimeout(late));
    void this.#named(standby, pid);
    link.on("error", () => undefined);
    link.on("data", (said: Buffer) => {
      clearTimeout(late);
      standby.isWaiting = true;
      this.#delayMs = DELAY_MS;
      if (said.includes(TAKEN)) this.#gone(standby, "");
      reader.take(said.toString("latin1"));
    });
    link.once("close", () => this.#gone(standby, "it ended before it waited"));
  }

  async #named(standby: Standby, starting: Promise<number>): Promise<void> {
    const pid = await starting.catch(() => -Errno.ENOMEM);
    if (pid < 0) return this.#gone(standby, errnoName(-pid));
    standby.pid = pid;
    if (this.#wanted === 0 && !standby.isWaiting) killGroup(pid); // stopped meanwhile
  }

  /** Taken, ended, or never there. */
  #gone(standby: Standby, why: string): void {
    if (!this.#all.delete(standby)) return;
    standby.link.destroy();
    fs.rmSync(standby.path, { force: true });
    if (this.#wanted === 0) return;
    if (!standby.isWaiting) this.#retryLater(why);
    this.#schedule();
  }

  #retryLater(why: string): void {
    this.#delayMs = Math.min(this.#delayMs * 2, RETRY_MAX_MS);
    this.#log(`no ${this.#kept.program}`, { error: why, nextMs: this.#delayMs });
  }
}
