// Programs of the system as children whose pipes are ours: started without a copy of our page tables, read without a buffer of
// Node's for every 64 KiB. Control plane.

import { Socket } from "node:net";
import { native } from "./native.ts";

/** What the loop itself reads when nothing had come; the rest of what the pipe holds is read at once behind it. */
const STAGED_BYTES = 64 * 1024;
/** The last characters of a complaint that are kept. */
const COMPLAINT_MAX_CHARS = 400;
/** Of socketPair: no type of a socket. */
const PIPE = 0;
/** man wait(2), of a status: the signal that ended it in the low bits, else the exit code above them. */
const SIGNAL_MASK = 0x7f;

/** How a program ended: undefined when it did so well, or its complaint. */
export type Ended = string | undefined;

/** A program that reads stdin and writes stdout. */
export class Program {
  /** Settles when it has ended and its output was read or given up. */
  readonly ended: Promise<Ended>;
  readonly #pid: number;
  readonly #stdin: Socket;
  readonly #stdout: Output;
  #hasEnded = false;

  /** A program of PATH; -errno when it can't be started, -ENOENT when there is none. */
  static start(file: string, args: readonly string[]): Program | number {
    const ends: number[] = [];
    const pipe = new Int32Array(2);
    let failed = 0;
    for (let i = 0; i < 3 && failed === 0; i++) {
      failed = native.socketPair(PIPE, pipe);
      if (failed === 0) ends.push(...pipe);
    }
    const [childIn = -1, stdin = -1, stdout = -1, childOut = -1, stderr = -1, childErr = -1] = ends;
    const words = Buffer.from([file, ...args].map((word) => `${word}\0`).join(""), "latin1");
    const theirs = Int32Array.of(childIn, childOut, childErr);
    const pid = failed < 0 ? failed : native.spawnProgram(words, theirs);
    for (const fd of pid < 0 ? ends : theirs) native.closeFd(fd);
    return pid < 0 ? pid : new Program(pid, stdin, stdout, stderr);
  }

  private constructor(pid: number, stdin: number, stdout: number, stderr: number) {
    this.#pid = pid;
    this.#stdin = new Socket({ fd: stdin, readable: false, writable: true });
    // A program that reads no more says why when it ends.
    this.#stdin.on("error", () => {});
    this.#stdout = new Output(stdout);
    this.ended = this.#end(new Socket({ fd: stderr, readable: true, writable: false }));
  }

  /** Bytes for its stdin. Resolves when they may be used for others: to false when it reads no more. */
  write(bytes: Uint8Array): Promise<boolean> {
    return new Promise((resolve) => {
      this.#stdin.write(bytes, (error) => resolve(!error));
    });
  }

  /** Its stdin ends, once all that was written is there. */
  endInput(): void {
    this.#stdin.destroySoon();
  }

  /** Of its stdout into `into`: how many bytes, 0 at the end. One at a time. */
  read(into: Buffer): number | Promise<number> {
    return this.#stdout.read(into);
  }

  /** Ends it, and a read under way. */
  kill(): void {
    if (!this.#hasEnded) process.kill(this.#pid, "SIGKILL");
    this.#stdin.destroy();
    this.#stdout.close();
  }

  async #end(stderr: Socket): Promise<Ended> {
    let complaint = "";
    stderr.setEncoding("utf8");
    stderr.on("data", (text: string) => {
      complaint = (complaint + text).slice(-COMPLAINT_MAX_CHARS);
    });
    stderr.on("error", () => {});
    await new Promise((resolve) => stderr.once("close", resolve));
    await this.#stdout.ended;
    // Both its pipes are closed, so it is in its exit: this is no wait.
    const status = native.waitProgram(this.#pid, 1);
    this.#hasEnded = true;
    this.#stdin.destroy();
    if (status === 0) return undefined;
    const signal = status & SIGNAL_MASK;
    const how = signal > 0 ? `ended by signal ${signal}` : `ended by exit code ${status >> 8}`;
    return complaint.trim() || how;
  }
}

/** A pipe that is read into memory of who asks. */
class Output {
  /** Settles at the end of the pipe or of its reader. */
  readonly ended: Promise<void>;
  readonly #fd: number;
  readonly #socket: Socket;
  /** What the loop read; of it, what wasn't taken. */
  readonly #buffer = Buffer.allocUnsafeSlow(STAGED_BYTES);
  #staged = this.#buffer.subarray(0, 0);
  #hasEnded = false;
  /** Of a read under way, when something has happened. */
  #wake: (() => void) | undefined;

  constructor(fd: number) {
    this.#fd = fd;
    const onread = {
      buffer: this.#buffer,
      callback: (count: number) => {
        this.#staged = this.#buffer.subarray(0, count);
        this.#wake?.();
        return false;
      },
    };
    // Undocumented, and what keeps it from reading before it is asked to: net.js, Socket().
    const options = { fd, readable: true, writable: false, manualStart: true, onread };
    this.#socket = new Socket(options);
    this.#socket.on("error", () => {});
    this.ended = new Promise((resolve) => {
      this.#socket.once("close", () => {
        this.#hasEnded = true;
        this.#wake?.();
        resolve();
      });
    });
  }

  read(into: Buffer): number | Promise<number> {
    const count = this.#now(into);
    return count > 0 || this.#hasEnded ? count : this.#later(into);
  }

  close(): void {
    this.#hasEnded = true;
    this.#socket.destroy();
  }

  /** What has come: 0 when that is nothing so far, or all. */
  #now(into: Buffer): number {
    const filled = this.#staged.copy(into);
    this.#staged = this.#staged.subarray(filled);
    if (filled === into.length || this.#hasEnded) return filled;
    // What is wrong with a pipe is told by the socket, which ends then.
    return filled + Math.max(0, native.readFd(this.#fd, into.subarray(filled)));
  }

  async #later(into: Buffer): Promise<number> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      this.#socket.resume();
    });
    this.#wake = undefined;
    return this.#now(into);
  }
}
