// GoferProcess: a real gofer, started as the stub starts one: ADOPT on FD 3, the spec in a file, the mounts over a pipe. The
// starter holds the clients' ends of the io sockets. Every call blocks; stop() ends the process and closes all. Tests only.

import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { CHANNEL_WINDOW_BYTES } from "../../lib/base/limits.ts";
import { native } from "../../lib/sys/native.ts";

/** A bind mount, or the root when it is the first. */
export interface GoferMount {
  readonly destination: string;
  readonly source: string;
  readonly isReadOnly?: boolean;
}

/** An FD for the gofer besides those that it always gets; the starter's copy is closed. */
export interface ExtraFd {
  readonly role: number;
  readonly index?: number;
  readonly fd: number;
}

export interface GoferOptions {
  /** The first is the root file system. */
  readonly mounts: readonly GoferMount[];
  /** Words after the gofer's own name; default: as a 2022 runsc gives them. */
  readonly argv?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly nodeFlags?: readonly string[];
  /** Its RLIMIT_NOFILE, soft and hard. */
  readonly openFiles?: number;
  readonly extraFds?: readonly ExtraFd[];
  /** Changes the OCI spec before it is written. */
  readonly spec?: (spec: Record<string, unknown>) => unknown;
  /** Another number of io sockets than there are mounts. */
  readonly socketCount?: number;
  /** Do not wait for the mounts JSON: the caller has yet to let the gofer go on. */
  readonly isLate?: boolean;
}

const SOCK_STREAM = 1;
const SOCK_SEQPACKET = 5;
const MAGIC = 0x31575242;
const MAIN = fileURLToPath(new URL("../../lib/gofer/main.js", import.meta.url));

const Role = { io: 1, spec: 2, mounts: 3 } as const;

export class GoferProcess {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly directory: string;
  /** Clients' ends of the io sockets, in the order of the mounts. -1 once taken. */
  readonly sockets: number[];
  /** Exit code, or the signal's name. */
  readonly exit: Promise<number | string>;
  /** What the gofer wrote to FDs 0 to 2, which should be nothing. */
  output = "";
  mountsJson = "";
  readonly stubFd: number;
  /** Our end of the mounts pipe. */
  readonly mountsFd: number;

  private constructor(options: GoferOptions) {
    this.directory = mkdtempSync(join(tmpdir(), "burrow-gofer-"));
    const specPath = join(this.directory, "config.json");
    writeFileSync(specPath, JSON.stringify(specOf(options)));
    const stub = pair(SOCK_SEQPACKET);
    const mounts = pair(SOCK_STREAM);
    this.stubFd = stub[0];
    this.mountsFd = mounts[0];
    const given: ExtraFd[] = [
      { role: Role.spec, fd: native.openAt(-1, specPath, 0, 0) },
      { role: Role.mounts, fd: mounts[1] },
      ...(options.extraFds ?? []),
    ];
    this.sockets = [];
    for (let i = 0; i < (options.socketCount ?? options.mounts.length); i++) {
      const [ours, theirs] = pair(SOCK_STREAM);
      this.sockets.push(ours);
      given.push({ role: Role.io, index: i, fd: theirs });
    }
    sendAdopt(this.stubFd, given);
    const argv = options.argv ?? ["gofer", "--bundle", this.directory];
    const words = [process.execPath, ...(options.nodeFlags ?? []), MAIN, ...argv];
    if (options.openFiles !== undefined) words.unshift("prlimit", `--nofile=${options.openFiles}`);
    this.child = spawn(words[0]!, words.slice(1), {
      stdio: ["pipe", "pipe", "pipe", stub[1]],
      env: { ...process.env, BURROW_LOG: join(this.directory, "log"), ...options.env },
    });
    native.closeFd(stub[1]);
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream!.on("data", (chunk: Buffer) => {
        this.output += chunk.toString("latin1");
      });
    }
    this.pid = this.child.pid!;
    this.exit = new Promise((resolve) => {
      this.child.once("close", (code, signal) => resolve(code ?? signal ?? "?"));
    });
  }

  /** Starts a gofer and waits until it has written the mounts (unless options.isLate). */
  static start(options: GoferOptions): GoferProcess {
    const gofer = new GoferProcess(options);
    if (options.isLate !== true) gofer.readMounts();
    return gofer;
  }

  /** Reads the mounts pipe to its end; "" when the gofer failed before. */
  readMounts(): string {
    const part = Buffer.alloc(64 * 1024);
    const parts: Buffer[] = [];
    for (;;) {
      const got = native.readFd(this.mountsFd, part);
      if (got <= 0) break;
      parts.push(Buffer.from(part.subarray(0, got)));
    }
    this.mountsJson = Buffer.concat(parts).toString("utf8");
    return this.mountsJson;
  }

  /** The client's end of one io socket, now the caller's. */
  takeSocket(index: number): number {
    const fd = this.sockets[index]!;
    this.sockets[index] = -1;
    return fd;
  }

  /** What its FDs are, by /proc: "socket:[…]", a path, … */
  fds(): string[] {
    return readdirSync(`/proc/${this.pid}/fd`);
  }

  get fdCount(): number {
    return this.fds().length;
  }

  get rssBytes(): number {
    const status = readFileSync(`/proc/${this.pid}/status`, "latin1");
    return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024;
  }

  /** Mappings of channels' windows: not those of their journals, which are smaller. */
  get windowCount(): number {
    const maps = readFileSync(`/proc/${this.pid}/maps`, "latin1");
    const lines = maps.split("\n").filter((line) => line.includes("memfd:burrow-channels"));
    const bytes = lines.map((line) => {
      const [from = "", to = ""] = line.split(" ")[0]!.split("-");
      return Number.parseInt(to, 16) - Number.parseInt(from, 16);
    });
    return bytes.filter((length) => length >= CHANNEL_WINDOW_BYTES).length;
  }

  get isAlive(): boolean {
    try {
      const stat = readFileSync(`/proc/${this.pid}/stat`, "latin1");
      return !/\) Z /.test(stat);
    } catch {
      return false;
    }
  }

  get log(): string {
    try {
      return readFileSync(join(this.directory, "log"), "utf8");
    } catch {
      return "";
    }
  }

  /** Hangs up the sockets that nobody took, waits for the end (killing it after 20 s), and cleans up. */
  async stop(): Promise<number | string> {
    for (const fd of this.sockets) if (fd >= 0) native.closeFd(fd);
    this.sockets.fill(-1);
    const timer = setTimeout(() => this.child.kill("SIGKILL"), 20_000);
    const code = await this.exit;
    clearTimeout(timer);
    native.closeFd(this.stubFd);
    native.closeFd(this.mountsFd);
    rmSync(this.directory, { recursive: true, force: true });
    return code;
  }
}

/** A socket pair's two numbers. */
export function pair(type: number): [number, number] {
  const out = new Int32Array(2);
  if (native.socketPair(type, out) < 0) throw new Error("no socket pair");
  return [out[0]!, out[1]!];
}

function specOf({ mounts, spec }: GoferOptions): Record<string, unknown> {
  const [root, ...binds] = mounts;
  const made: Record<string, unknown> = {
    ociVersion: "1.0.0",
    root: { path: root!.source, readonly: root!.isReadOnly === true },
    mounts: binds.map(({ destination, source, isReadOnly }) => ({
      destination,
      source,
      type: "bind",
      options: isReadOnly === true ? ["ro"] : ["rw"],
    })),
  };
  spec?.(made);
  return made;
}

/** The stub's ADOPT, in as many messages as 200 FDs each ask for. Closes our copies. */
function sendAdopt(stubFd: number, given: readonly ExtraFd[]): void {
  for (let start = 0; start < given.length; start += 200) {
    const part = given.slice(start, start + 200);
    const message = Buffer.alloc(16 + 16 * part.length);
    message.writeUInt32LE(MAGIC, 0);
    message.writeUInt16LE(1, 4);
    message.writeUInt16LE(part.length, 6);
    message.writeUInt32LE(start + 200 < given.length ? 1 : 0, 8);
    const fds = new Int32Array(part.length);
    for (const [i, { role, index = 0, fd }] of part.entries()) {
      message.writeUInt32LE(role, 16 + 16 * i);
      message.writeUInt32LE(index, 20 + 16 * i);
      fds[i] = fd;
    }
    const sent = native.sendMessage(stubFd, message, fds, part.length);
    if (sent !== message.length) throw new Error(`adopt message not sent: ${sent}`);
  }
  for (const { fd } of given) native.closeFd(fd);
}

/** Writes <state>/mounts/<id>/mount.json: the mount's source. */
export function writeMount(state: string, id: string, mount: Record<string, unknown>): string {
  const folder = join(state, "mounts", id);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "mount.json"), JSON.stringify({ format: 1, ...mount }));
  return folder;
}
