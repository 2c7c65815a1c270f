// Decompressed streams of archives: node:zlib for gzip, the system's libzstd for zstd, and its programs for bzip2 and xz, and for
// zstd where there is no library. A cut input or a failing child is an error of the stream, never a short success. Control plane.

import { pipeline, type Readable, Transform } from "node:stream";
import { createGunzip } from "node:zlib";
import { Errno, errnoName } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { Program } from "../sys/program.ts";
import { type ByteSource, sourceOf, streamOf } from "./byte-source.ts";
import { zstdBytes } from "./zstd.ts";

export type Compression = "gz" | "zst" | "bz2" | "xz" | "none";

/** What kindOf wants of a file's start to be sure. */
export const MAGIC_BYTES = 6;

/**
 * How each program is called: input from stdin, output to stdout. Memory is bounded at the largest presets in use:
 * `zstd --ultra -22` of conda packages has a 128 MiB window (2^27), Debian's `xz -9` takes 65 MiB.
 */
const PROGRAMS = {
  zst: { command: "zstd", args: ["-dcq", "--long=27", "--memory=128MB"], debian: "zstd" },
  bz2: { command: "bzip2", args: ["-dcq"], debian: "bzip2" },
  xz: { command: "xz", args: ["-dcq", "--memlimit-decompress=256MiB"], debian: "xz-utils" },
} as const;

/** Output of zlib in one piece: its default of 16 KiB costs a trip through the thread pool each. */
const OUTPUT_CHUNK_BYTES = 256 * 1024;

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
  return streamOf(decompressedBytes(sourceOf(source), kind, name));
}

/** The same for bytes that are asked for. */
export function decompressedBytes(source: ByteSource, kind: Compression, name: string): ByteSource {
  if (kind === "none") return source;
  if (kind === "gz") return sourceOf(gunzipped(streamOf(source), name));
  const own = kind === "zst" ? zstdBytes(source, (why) => damaged(name, kind, why)) : undefined;
  return own ?? new Decompressor(source, kind, name);
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

/** Of a program's stdin, at once. */
const INPUT_BYTES = 256 * 1024;

/** What a program makes of a source. */
class Decompressor implements ByteSource {
  readonly #input: ByteSource;
  readonly #kind: keyof typeof PROGRAMS;
  readonly #name: string;
  /** From the first read on. */
  #program: Program | undefined;
  /** What is wrong with the input. */
  #failure: { readonly cause: unknown } | undefined;
  #isClosed = false;

  constructor(input: ByteSource, kind: keyof typeof PROGRAMS, name: string) {
    this.#input = input;
    this.#kind = kind;
    this.#name = name;
  }

  read(into: Buffer): number | Promise<number> {
    const program = this.#program ?? this.#start();
    const count = program.read(into);
    return typeof count === "number" && count > 0 ? count : this.#rest(program, count);
  }

  close(): void {
    this.#isClosed = true;
    this.#input.close();
    this.#program?.kill();
  }

  #start(): Program {
    const { command, args, debian } = PROGRAMS[this.#kind];
    const program = Program.start(command, args);
    if (typeof program === "number") {
      const isMissing = program === -Errno.ENOENT;
      const why = isMissing
        ? `${command} is not installed; it is in the Debian package ${debian}`
        : `can't start ${command} (${errnoName(program)})`;
      throw new BurrowError("BURROW_UNSUPPORTED", why, { context: { archive: this.#name } });
    }
    this.#program = program;
    void this.#feed(program);
    return program;
  }

  /** The program's output ends before its exit code is known: only both together are the end. */
  async #rest(program: Program, reading: number | Promise<number>): Promise<number> {
    const count = await reading;
    if (count > 0) return count;
    const complaint = await program.ended;
    this.#input.close();
    if (this.#failure !== undefined) throw this.#failure.cause;
    if (this.#isClosed) throw new Error("the decompressor was closed");
    if (complaint !== undefined) throw damaged(this.#name, this.#kind, complaint);
    return 0;
  }

  /** Moves the input into the program. What is wrong with it ends the program. */
  async #feed(program: Program): Promise<void> {
    const buffer = Buffer.allocUnsafeSlow(INPUT_BYTES);
    try {
      let isEmpty = true;
      for (;;) {
        const count = await this.#input.read(buffer);
        if (count === 0) break;
        isEmpty = false;
        // A program that stops reading says why by its exit code.
        if (!(await program.write(buffer.subarray(0, count)))) return;
      }
      if (isEmpty) throw damaged(this.#name, this.#kind, "it is empty");
      program.endInput();
    } catch (cause) {
      this.#failure = { cause };
      program.kill();
    }
  }
}
