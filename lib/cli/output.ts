// Output: what commands print: results on stdout, everything else on stderr, progress only to a terminal. Control plane.

import {
  accessSync,
  constants,
  existsSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, resolve } from "node:path";
import { BurrowError, explain } from "../base/error.ts";
import { errnoOf, ioCode, ioError } from "../store/node-error.ts";

/** Exit codes of burrow itself; `run` passes its command's code through. */
export const ExitCode = { ok: 0, failed: 1, usage: 2, brokenPipe: 141 } as const;

/** Prints a result: JSON on one line, or the text for people; file names in it as they are, but on a terminal, as ls(1) does. */
export function print(isJson: boolean, value: unknown, text: string): void {
  const forPeople = () => (process.stdout.isTTY ? shown(text) : text);
  process.stdout.write(`${isJson ? JSON.stringify(value) : forPeople()}\n`);
}

/** Writes a file of ours. BURROW_NO_SPACE and BURROW_IO, with its path: Node names none when a write fails. */
export function writeText(path: string, text: string, mode = 0o644): void {
  try {
    writeFileSync(path, text, { mode });
  } catch (error) {
    throw ioError("can't write a file", path, error);
  }
}

/** The same, of a file that others may be reading or that a crash must leave whole: the old text or the new. */
export function replaceText(path: string, text: string, mode = 0o644): void {
  const aside = `${path}.new`;
  try {
    writeText(aside, text, mode);
    renameSync(aside, path);
  } catch (error) {
    rmSync(aside, { force: true });
    throw error instanceof BurrowError ? error : ioError("can't write a file", path, error);
  }
}

/** Whether writeText can be hoped to succeed, before the work whose result it is to write. BURROW_USAGE, naming the option. */
export function checkWritable(path: string, option: string): void {
  const folder = dirname(resolve(path));
  const refuse = (why: string) => new BurrowError("BURROW_USAGE", `${option}: ${why}`);
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory())
    throw refuse(`${path} is a directory`);
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory())
    throw refuse(`there is no directory ${folder}`);
  try {
    accessSync(existsSync(path) ? path : folder, constants.W_OK);
  } catch (cause) {
    throw ioError("can't write a file", path, cause);
  }
}

/**
 * A text of errors or progress as it may be shown: what packages, channels and images say reaches it, so control characters are "?",
 * but for line breaks and tabs; and URLs are without passwords, tokens and queries (signatures), since a terminal's text ends up in logs.
 */
export function shown(text: string): string {
  return text
    .replace(/(\w:\/\/)[^\s/@]*@/g, "$1")
    .replace(/(https?:\/\/[^\s/]+(?:\/[^\s/]+)*?)\/t\/[^\s/]+(?=[/\s'"]|$)/g, "$1")
    .replace(/(https?:\/\/[^\s?#'"]*)\?[^\s#'"]+/g, "$1?…")
    .replace(/[\0-\x08\x0b-\x1f\x7f-\x9f]/g, "?");
}

/** What work needs to say how far it is. */
export type ProgressLine = Pick<Progress, "begin" | "update" | "line" | "end">;

/** For who doesn't want to hear of it. */
export const SILENCE: ProgressLine = { begin() {}, update() {}, line() {}, end() {} };

/**
 * A line of progress on stderr; replaced in place on a terminal, silent with `isQuiet`. With `isJson` there is none, and lines that
 * stay are JSON, as errors are.
 */
export class Progress {
  readonly #isTerminal: boolean;
  readonly #isQuiet: boolean;
  readonly #isJson: boolean;
  #lastAtMs = 0;
  #isOpen = false;

  constructor(isQuiet: boolean, isJson: boolean) {
    this.#isTerminal = process.stderr.isTTY === true && !isJson;
    this.#isQuiet = isQuiet;
    this.#isJson = isJson;
  }

  /** Says that long work begins: a line of its own where no terminal shows how far it is. */
  begin(text: string): void {
    if (this.#isTerminal) this.update(text);
    else if (!this.#isJson) this.line(text);
  }

  /** Says where long work is: at most ten times a second. */
  update(text: string): void {
    const now = Date.now();
    if (this.#isQuiet || !this.#isTerminal || now - this.#lastAtMs < 100) return;
    this.#lastAtMs = now;
    this.#isOpen = true;
    process.stderr.write(`\r\x1b[K${shown(text).slice(0, (process.stderr.columns || 80) - 1)}`);
  }

  /** A line that stays. */
  line(text: string): void {
    if (this.#isQuiet) return;
    this.end();
    const said = shown(text);
    process.stderr.write(`${this.#isJson ? JSON.stringify({ note: said }) : said}\n`);
  }

  end(): void {
    if (this.#isOpen) process.stderr.write("\r\x1b[K");
    this.#isOpen = false;
  }
}

/** "1 file", "2 files". */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** "36.5 MB": powers of 1000, as disks and networks count. */
export function showBytes(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return unit === 0 ? `${value} B` : `${value.toFixed(value < 10 ? 2 : 1)} ${units[unit]}`;
}

/** Columns padded to their widest cell; numbers are the caller's to format. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  }
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** The code of an error: what the operating system refused has one of its own, anything else without is a bug. */
export function codeOf(error: unknown): string {
  if (error instanceof BurrowError) return error.code;
  const { code, syscall } = (error ?? {}) as NodeJS.ErrnoException;
  if (code === undefined || syscall === undefined) return "BURROW_INTERNAL";
  return ioCode(errnoOf(error).errno);
}

/** What to do for an ordinary user who was refused. */
export const NOT_ROOT =
  'you are not root: run it as root; "burrow doctor" says what else is missing';

/** Whether the operating system refused something for want of rights, here or as a cause. */
function isRefused(error: unknown): boolean {
  const { code, cause } = (error ?? {}) as NodeJS.ErrnoException;
  return code === "EACCES" || code === "EPERM" || (cause !== undefined && isRefused(cause));
}

/** An error in one line; with what to do when an ordinary user was refused what is made for root. */
function messageOf(error: unknown): string {
  const text = shown(explain(error));
  if (process.getuid?.() === 0 || !isRefused(error)) return text;
  return `${text}; ${NOT_ROOT}`;
}

/** The context of an error as programs may log it. */
export function shownContext({ context }: BurrowError): BurrowError["context"] {
  const show = (value: string | number) => (typeof value === "string" ? shown(value) : value);
  return Object.fromEntries(Object.entries(context).map(([key, value]) => [key, show(value)]));
}

/** Prints an error for people (or as JSON on stderr) and gives the exit code for it. */
export function report(error: unknown, isJson: boolean): number {
  const code = codeOf(error);
  const message = messageOf(error);
  if (isJson) {
    const context = error instanceof BurrowError ? shownContext(error) : {};
    process.stderr.write(`${JSON.stringify({ error: { code, message, context } })}\n`);
  } else {
    process.stderr.write(`burrow: ${message} (${code})\n`);
    if (!(error instanceof BurrowError) && error instanceof Error && process.env["BURROW_DEBUG"]) {
      process.stderr.write(`${error.stack}\n`);
    }
  }
  return code === "BURROW_USAGE" ? ExitCode.usage : ExitCode.failed;
}
