// Decompressed streams of archives: node:zlib for gzip, the system's own programs for zstd, bzip2 and xz, so that
// the hot loops are native and a bug in a decoder stays in a child process. A cut input or a failing child is an
// error of the stream, never a short success. Control plane.

import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { pipeline, type Readable, Transform } from "node:stream";
import { createGunzip } from "node:zlib";
import { BurrowError } from "../base/error.ts";

export type Compression = "gz" | "zst" | "bz2" | "xz" | "none";

/** What kindOf wants of a file's start to be sure. */
export const MAGIC_BYTES = 6;

/**
 * How each program is called: input from stdin, output to stdout. Memory is bounded at the largest presets in use:
 * `zstd --ultra -22` of conda packages has a 128 MiB window (2^27), Debian's `xz -9` takes 65 MiB.
 */
const PROGRAMS = {
  zst: { command: "zstd", args: ["-dcq", "--long=27", "--memory=256MB"], debian: "zstd" },
  bz2: { command: "bzip2", args: ["-dcq"], debian: "bzip2" },
  xz: { command: "xz", args: ["-dcq", "--memlimit-decompress=256MiB"], debian: "xz-utils" },
} as const;

/** Output of zlib in one piece: its default of 16 KiB costs a trip through the thread pool each. */
const OUTPUT_CHUNK_BYTES = 256 * 1024;
/** The last characters of a program's complaint that go into the error. */
const COMPLAINT_MAX_CHARS = 400;

const SUFFIXES: readonly (readonly [RegExp, Compression])[] = [
  [/\.(gz|tgz)$/i, "gz"],
  [/\.(zst|zstd|tzst)$/i, "zst"],
  [/\.(bz2|tbz2?)$/i, "bz2"],
  [/\.(xz|txz)$/i, "xz"],
];

/** How bytes are compressed by their first MAGIC_BYTES, or what a file's name claims; "none" when neither says. */
export function kindOf(start: Uint8Array | string): Compression {
  if (typeof start === "string") {
    return SUFFIXES.find(([suffix]) => suffix.test(start))?.[1] ?? "none";
  }
  const hex = Buffer.from(start.subarray(0, MAGIC_BYTES)).toString("hex");
  if (hex.startsWith("1f8b")) return "gz";
  // RFC 8878 section 3.1.1; its skippable frames (section 3.1.2) may come first too.
  if (hex.startsWith("28b52ffd") || /^5[0-9a-f]2a4d18/.test(hex)) return "zst";
  if (hex.startsWith("425a68")) return "bz2";
  return hex === "fd377a585a00" ? "xz" : "none";
}

/**
 * The content of `source`, decompressed. The result owns source: destroying it destroys source and ends the child
 * process. Errors: BURROW_BAD_ARCHIVE for input that is cut or corrupt, BURROW_UNSUPPORTED for a missing program;
 * an error of source is passed on as it is. `name` is what errors call the archive.
 */
export function decompressed(source: Readable, kind: Compression, name: string): Readable {
  if (kind === "none") return source;
  if (kind === "gz") return gunzipped(source, name);
  return throughChild(source, kind, name);
}

function damaged(name: string, kind: Compression, why: string, cause?: unknown): BurrowError {
  return new BurrowError("BURROW_BAD_ARCHIVE", `the ${kind} data is cut or corrupt: ${why}`, {
    context: { archive: name },
    ...(cause === undefined ? {} : { cause }),
  });
}

/** Passes bytes on; none at all is an error, which zlib and xz alike take for an empty success. */
function refuseEmpty(name: string, kind: Compression): Transform {
  let isEmpty = true;
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      isEmpty = false;
      done(null, chunk);
    },
    flush(done) {
      done(isEmpty ? damaged(name, kind, "it is empty") : null);
    },
  });
}

function gunzipped(source: Readable, name: string): Readable {
  // Errors are translated on their way out, so they can't travel by pipeline, which would pass them on as they are.
  const inflate = createGunzip({ chunkSize: OUTPUT_CHUNK_BYTES });
  const out = new Transform({
    transform: (chunk: Buffer, _encoding, done) => done(null, chunk),
    destroy(error, done) {
      source.destroy();
      inflate.destroy();
      done(error);
    },
  });
  const fail = (error: Error) => {
    const isZlib = "code" in error && String(error.code).startsWith("Z_");
    out.destroy(isZlib ? damaged(name, "gz", error.message, error) : error);
  };
  // Pipeline is content when its last stream has taken all input; that this was cut is found out after.
  inflate.on("error", fail).pipe(out);
  pipeline(source, refuseEmpty(name, "gz"), inflate, (error) => {
    if (error) fail(error);
  });
  return out;
}

function throughChild(source: Readable, kind: keyof typeof PROGRAMS, name: string): Readable {
  const { command, args, debian } = PROGRAMS[kind];
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"] });
  const ended = endOf(child);
  const out = new Transform({
    transform: (chunk: Buffer, _encoding, done) => done(null, chunk),
    // The child's output ends before its exit code is known: only both together are the end of the stream.
    flush(done) {
      void ended.then((complaint) => {
        done(complaint === undefined ? null : damaged(name, kind, complaint));
      });
    },
    destroy(error, done) {
      source.destroy();
      child.kill("SIGKILL");
      done(error);
    },
  });
  child.on("error", (cause) => {
    const isMissing = "code" in cause && cause.code === "ENOENT";
    const why = isMissing
      ? `${command} is not installed; it is in the Debian package ${debian}`
      : `can't start ${command}`;
    out.destroy(new BurrowError("BURROW_UNSUPPORTED", why, { cause, context: { archive: name } }));
  });
  pipeline(source, refuseEmpty(name, kind), child.stdin, (error) => {
    // A child that stops reading says why by its exit code.
    const isStopped = error && "code" in error && error.code === "EPIPE";
    if (error && !isStopped) out.destroy(error);
  });
  child.stdin.on("error", ignore);
  child.stdout.on("error", (error) => out.destroy(error));
  child.stdout.pipe(out);
  return out;
}

/** For streams whose errors pipeline has reported already, and emits once more. */
function ignore(): void {}

/** Settles when the child has ended: its complaint, or undefined when it ended well. */
function endOf(child: ChildProcessWithoutNullStreams): Promise<string | undefined> {
  let complaint = "";
  child.stderr.setEncoding("utf8");
  child.stderr.on("data", (text: string) => {
    complaint = (complaint + text).slice(-COMPLAINT_MAX_CHARS);
  });
  return new Promise((resolve) => {
    child.on("close", (code, signal) => {
      if (code === 0) resolve(undefined);
      else resolve(complaint.trim() || `ended by ${signal ?? `exit code ${code}`}`);
    });
  });
}
