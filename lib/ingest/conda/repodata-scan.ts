// The records of a repodata.json by package name, as slices of its bytes: a channel lists a million archives, of which a solve
// looks at a few thousand, so no record is parsed that isn't asked for. Control plane.

import { BurrowError } from "../../base/error.ts";
import { ARCHIVE_SUFFIX } from "./dist.ts";

/** Where the JSON of one record lies: bytes [start, end). */
export interface RecordSlice {
  readonly fileName: string;
  readonly start: number;
  readonly end: number;
}

export interface RepodataIndex {
  readonly bytes: Buffer;
  /** As errors call it. */
  readonly where: string;
  /** What "info" holds. */
  readonly info: Readonly<Record<string, unknown>>;
  /** By the lower-case name in the archive's name, in the file's order. */
  readonly records: ReadonlyMap<string, readonly RecordSlice[]>;
}

/** Largest record; the largest seen has 30 kB. */
const RECORD_MAX_BYTES = 1 << 20;
const SECTIONS: ReadonlySet<string> = new Set(["packages", "packages.conda"]);

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

/** The error of repodata that can't be believed, naming it and the record. */
export function badRepodata(
  where: string,
  why: string,
  fileName?: string,
  cause?: unknown,
): BurrowError {
  return new BurrowError("BURROW_BAD_REPODATA", why, {
    context: { repodata: where, ...(fileName === undefined ? {} : { record: show(fileName) }) },
    ...(cause === undefined ? {} : { cause }),
  });
}

function show(text: string): string {
  return text.slice(0, 200).replace(/[\0-\x1f\x7f]/g, "?");
}

/**
 * Finds all records of a repodata.json. BURROW_BAD_REPODATA when it is none, names an archive by a path, or has one
 * over 1 MiB. What is in a record is not looked at.
 */
export function scanRepodata(bytes: Buffer, where: string): RepodataIndex {
  const scanner = new Scanner(bytes, where);
  const records = new Map<string, RecordSlice[]>();
  let info: Readonly<Record<string, unknown>> = {};
  scanner.members((key) => {
    if (key === "info") {
      const start = scanner.at;
      scanner.skipValue();
      info = objectOf(bytes, start, scanner.at, where);
    } else if (SECTIONS.has(key) && scanner.peek() === OPEN_BRACE) {
      scanner.members((fileName) => scanner.record(fileName, records));
    } else scanner.skipValue();
  });
  scanner.end();
  return { bytes, where, info, records };
}

/** The JSON object at a slice. */
export function objectOf(
  bytes: Buffer,
  start: number,
  end: number,
  where: string,
  fileName?: string,
): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString("utf8", start, end));
  } catch (cause) {
    throw badRepodata(where, "it is no JSON", fileName, cause);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Readonly<Record<string, unknown>>;
  }
  throw badRepodata(where, "an object is something else", fileName);
}

/** Walks JSON without recursion, checking no more of what it skips than that brackets and strings end. */
class Scanner {
  at = 0;
  readonly #bytes: Buffer;
  readonly #where: string;

  constructor(bytes: Buffer, where: string) {
    this.#bytes = bytes;
    this.#where = where;
    // A byte order mark, which JSON has none of but editors write.
    if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) this.at = 3;
  }

  /** The next byte that is no blank; 0 at the end. */
  peek(): number {
    const bytes = this.#bytes;
    let byte = bytes[this.at];
    while (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09) {
      byte = bytes[++this.at];
    }
    return byte ?? 0;
  }

  /** Calls `visit` at the value of each member of the object here; it must move past the value. */
  members(visit: (key: string) => void): void {
    this.#take(OPEN_BRACE);
    if (this.peek() === CLOSE_BRACE) {
      this.at++;
      return;
    }
    for (;;) {
      const key = this.#string();
      this.#take(COLON);
      this.peek();
      visit(key);
      if (this.peek() !== COMMA) break;
      this.at++;
    }
    this.#take(CLOSE_BRACE);
  }

  record(fileName: string, records: Map<string, RecordSlice[]>): void {
    const start = this.at;
    this.skipValue();
    if (this.at - start > RECORD_MAX_BYTES) this.#refuse("a record is too large", fileName);
    if (/[/\\\0]/.test(fileName)) this.#refuse("an archive's name is a path", fileName);
    // NAME-VERSION-BUILD, without distOf()'s pattern: that takes a third of a scan's time.
    const end = fileName.lastIndexOf("-", fileName.lastIndexOf("-") - 1);
    // What is no archive of ours (wheels of later formats) is none that could be chosen.
    if (end < 1 || !ARCHIVE_SUFFIX.test(fileName)) return;
    const name = fileName.slice(0, end).toLowerCase();
    const slice = { fileName, start, end: this.at };
    const known = records.get(name);
    if (known === undefined) records.set(name, [slice]);
    else known.push(slice);
  }

  skipValue(): void {
    const bytes = this.#bytes;
    let depth = 0;
    this.peek();
    for (; this.at < bytes.length; this.at++) {
      const byte = bytes[this.at]!;
      if (byte === QUOTE) this.#skipString();
      else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) depth++;
      else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
        if (depth === 0) return; // of what is around it
        if (--depth === 0) {
          this.at++;
          return;
        }
      } else if (byte === COMMA && depth === 0) return;
      if (depth === 0 && byte === QUOTE) {
        this.at++;
        return;
      }
    }
    this.#refuse("it is cut");
  }

  end(): void {
    if (this.peek() !== 0 || this.at < this.#bytes.length)
      this.#refuse("it goes on behind its end");
  }

  /** From a string's first quote to its last. */
  #skipString(): void {
    const bytes = this.#bytes;
    for (this.at++; this.at < bytes.length; this.at++) {
      const byte = bytes[this.at];
      if (byte === QUOTE) return;
      if (byte === BACKSLASH) this.at++;
    }
    this.#refuse("it is cut");
  }

  #string(): string {
    if (this.peek() !== QUOTE) this.#refuse("it is no JSON");
    const start = this.at;
    this.#skipString();
    this.at++;
    const text = this.#bytes.toString("utf8", start + 1, this.at - 1);
    if (!text.includes("\\")) return text;
    try {
      return JSON.parse(`"${text}"`) as string;
    } catch (cause) {
      throw badRepodata(this.#where, "it is no JSON", undefined, cause);
    }
  }

  #take(byte: number): void {
    if (this.peek() !== byte) {
      this.#refuse(this.at >= this.#bytes.length ? "it is cut" : "it is no repodata.json");
    }
    this.at++;
  }

  #refuse(why: string, fileName?: string): never {
    throw badRepodata(this.#where, `${why} (byte ${this.at})`, fileName);
  }
}
