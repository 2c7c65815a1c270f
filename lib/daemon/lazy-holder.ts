// Who holds the lazy mount while no daemon does: a shell that has its FD of /dev/fuse, reads from the daemon until that ends, and stays
// a little longer. So a daemon that dies is a pause for who reads, until the next one takes the FD over and has the kernel ask again;
// and if none comes, an error in time. docs/format/cache.md has the state file. Control plane.

import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { Socket } from "node:net";
import { BurrowError } from "../base/error.ts";
import { readRegular } from "../cache/regular-file.ts";
import { ioError } from "../store/node-error.ts";
import { native } from "../sys/native.ts";
import { ownerOf, pidOf } from "../sys/owner.ts";

/** Where a holder has the FD. */
const HOLDER_FD = 3;
/** Stays for as long as a gofer waits for an answer (MISS_DEADLINE_MS): seconds. */
const LINGER_SECONDS = 30;
const STATE_FORMAT = 2;
const STATE_MAX_BYTES = 64 * 1024 * 1024;

/** A file of the mount, as the next daemon needs it. */
export interface HeldFile {
  readonly name: string;
  readonly node: number;
  /** What tells who may share it. */
  readonly key: string;
  readonly snapshot: string;
  readonly origin: string;
  readonly row: number;
  readonly size: number;
}

/** What a holder has kept: an FD of /dev/fuse, ours to close, and the files that the kernel may know. */
export interface Held {
  readonly device: number;
  readonly suffix: string;
  readonly files: readonly HeldFile[];
  readonly owner: string;
}

interface Head {
  readonly format: number;
  readonly holder: string;
  readonly suffix: string;
}

export class Holder {
  readonly #path: string;
  readonly #child: ChildProcess;
  readonly #state: number;
  #isOurs = true;

  /**
   * Has a shell hold a device from now on, and writes the state file at `path` anew. Throws the system's errors. `onLost`: the shell has
   * ended, and not by us.
   */
  constructor(
    path: string,
    device: number,
    { suffix, files }: Pick<Held, "suffix" | "files">,
    onLost: () => void,
  ) {
    this.#path = path;
    // In a process group of its own: signals to ours are not for it. It holds nothing else of ours.
    this.#child = spawn("sh", ["-c", `cat; sleep ${LINGER_SECONDS}`], {
      stdio: ["pipe", "ignore", "ignore", device],
      detached: true,
      cwd: "/",
    });
    this.#child.once("error", () => undefined);
    this.#child.unref();
    if (this.#child.stdin instanceof Socket) this.#child.stdin.unref();
    const { pid } = this.#child;
    if (pid === undefined) throw new BurrowError("BURROW_DAEMON", "can't start sh");
    try {
      const head: Head = { format: STATE_FORMAT, holder: ownerOf(pid), suffix };
      this.#state = writeState(path, [head, ...files]);
    } catch (error) {
      endGroup(pid); // nobody would find it
      throw error;
    }
    this.#child.once("exit", () => {
      if (!this.#isOurs) return;
      this.#isOurs = false;
      fs.closeSync(this.#state);
      onLost();
    });
  }

  /** Notes a file before anyone hears its name. BURROW_NO_SPACE, BURROW_IO: it isn't noted, and nothing of it is left amid the others. */
  note(file: HeldFile): void {
    if (!this.#isOurs) return;
    const line = Buffer.from(`${JSON.stringify(file)}\n`);
    const before = fs.fstatSync(this.#state).size;
    try {
      for (let done = 0; done < line.length; ) done += fs.writeSync(this.#state, line, done);
    } catch (cause) {
      fs.ftruncateSync(this.#state, before);
      throw ioError("can't note a file of the lazy mount", this.#path, cause);
    }
  }

  /** Ends it: nobody takes over. */
  end(): void {
    fs.rmSync(this.#path, { force: true });
    if (!this.#isOurs) return;
    this.#isOurs = false;
    fs.closeSync(this.#state);
    endGroup(this.#child.pid);
  }
}

/** Writes a state file anew: its FD, which appends to it. Throws the system's errors, and leaves nothing then. */
function writeState(path: string, lines: readonly object[]): number {
  const aside = `${path}.${randomBytes(8).toString("hex")}`;
  const state = fs.openSync(aside, "ax", 0o600);
  try {
    fs.writeFileSync(state, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
    fs.renameSync(aside, path);
    return state;
  } catch (error) {
    fs.closeSync(state);
    fs.rmSync(aside, { force: true });
    throw error;
  }
}

/** What the holder named in a state file has; undefined where there is none that is alive, or its file can't be read. */
export function takeHeld(path: string): Held | undefined {
  try {
    const lines = readRegular(path, STATE_MAX_BYTES).toString("utf8").split("\n");
    const head = JSON.parse(lines[0]!) as Head;
    const pid = head.format === STATE_FORMAT ? pidOf(head.holder) : undefined;
    if (pid === undefined) return undefined;
    // The last may be cut off: nobody has heard of it.
    const files = lines.slice(1, -1).map((line) => JSON.parse(line) as HeldFile);
    const device = native.takeFd(pid, HOLDER_FD);
    return device < 0 ? undefined : { device, suffix: head.suffix, files, owner: head.holder };
  } catch {
    return undefined;
  }
}

/** Ends the holder whose FD was taken over. */
export function endHolder({ owner }: Held): void {
  endGroup(pidOf(owner));
}

function endGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}
