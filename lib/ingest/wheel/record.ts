// RECORD of a wheel and of an installed project: a CSV of path, hash and size (PEP 376, PEP 427). Pure. Control plane.

import { createHash, type Hash } from "node:crypto";
import { badPackage } from "../conda/errors.ts";

export interface RecordRow {
  /** UTF-8 text, "/" between names. */
  readonly path: string;
  /** "sha256=" and unpadded base64url; "" for none. */
  readonly hash: string;
  /** In bytes, decimal; "" for none. */
  readonly size: string;
}

/** PEP 427: "sha256 or better", and what hashlib guarantees of these. */
const ALGORITHMS = new Set(["sha256", "sha384", "sha512"]);

/** The rows of a RECORD. BURROW_BAD_PACKAGE for text that is no CSV of such rows, or a path that comes twice. */
export function parseRecord(text: string, wheel: string, file: string): RecordRow[] {
  const rows: RecordRow[] = [];
  const seen = new Set<string>();
  for (const [i, line] of text.split(/\r\n|\n|\r/).entries()) {
    if (line === "") continue;
    const cells = cellsOf(line);
    if (cells === undefined || cells.length > 3 || cells[0] === "") {
      throw badPackage(wheel, `line ${i + 1} is no row of path, hash and size`, file);
    }
    const [path = "", hash = "", size = ""] = cells;
    if (seen.has(path)) throw badPackage(wheel, `it lists ${path} twice`, file);
    seen.add(path);
    rows.push({ path, hash, size });
  }
  return rows;
}

/** The cells of one line; undefined when its quotes don't match. */
function cellsOf(line: string): string[] | undefined {
  const cells: string[] = [];
  const cell = /(?:"((?:[^"]|"")*)"|([^",]*))(,|$)/y;
  while (cell.lastIndex <= line.length) {
    const match = cell.exec(line);
    if (match === null) return undefined;
    cells.push(match[1] === undefined ? match[2]! : match[1].replaceAll('""', '"'));
    if (match[3] === "") return cells;
  }
  return undefined;
}

/** A RECORD as pip writes it: sorted by code point, CRLF at the ends of lines. */
export function recordText(rows: readonly RecordRow[]): string {
  const lines = rows.map(({ path, hash, size }) => [path, hash, size].map(quoted).join(","));
  const byCodePoint = (left: string, right: string) =>
    Buffer.compare(Buffer.from(left), Buffer.from(right));
  const order = rows
    .map((row, i) => ({ key: row.path, line: lines[i]! }))
    .sort((left, right) => byCodePoint(left.key, right.key));
  return order.map(({ line }) => `${line}\r\n`).join("");
}

function quoted(cell: string): string {
  return /[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
}

/** "sha256=…" of bytes, as a row has it. */
export function hashOf(bytes: Uint8Array): string {
  return `sha256=${createHash("sha256").update(bytes).digest("base64url")}`;
}

/** A running check of a file against its row. BURROW_BAD_PACKAGE for a row without a hash, or with one that is too weak. */
export class RowCheck {
  readonly #row: RecordRow;
  readonly #wheel: string;
  readonly #hash: Hash;
  readonly #algorithm: string;
  #size = 0;

  constructor(row: RecordRow, wheel: string) {
    this.#row = row;
    this.#wheel = wheel;
    this.#algorithm = row.hash.slice(0, Math.max(0, row.hash.indexOf("=")));
    if (!ALGORITHMS.has(this.#algorithm)) {
      throw badPackage(wheel, "RECORD has no sha256 or better of it", row.path);
    }
    if (row.size !== "" && !/^\d{1,16}$/.test(row.size)) {
      throw badPackage(wheel, "RECORD has a size for it that is no number", row.path);
    }
    this.#hash = createHash(this.#algorithm);
  }

  update(bytes: Uint8Array): void {
    this.#hash.update(bytes);
    this.#size += bytes.length;
  }

  /** Throws BURROW_BAD_PACKAGE unless what was seen is what the row says. */
  finish(): void {
    const { path, hash, size } = this.#row;
    if (size !== "" && Number(size) !== this.#size) {
      throw badPackage(this.#wheel, `it has ${this.#size} bytes, and ${size} in RECORD`, path);
    }
    // Some tools pad their base64.
    const want = hash.slice(this.#algorithm.length + 1).replace(/=+$/, "");
    if (this.#hash.digest("base64url") === want) return;
    throw badPackage(this.#wheel, `its ${this.#algorithm} is not that in RECORD`, path);
  }

  /** The content, checked as it passes; the error comes after its last byte. */
  async *through(chunks: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
    for await (const chunk of chunks) {
      this.update(chunk);
      yield chunk;
    }
    this.finish();
  }
}
