// The members of an image's outer tar by offset, so that blobs are read where they lie and nothing is unpacked. Headers are read one
// by one, contents are skipped. POSIX.1-2017 pax, "ustar Interchange Format"; GNU long names. Control plane.

import { type FileHandle, open } from "node:fs/promises";
import { PATH_MAX_BYTES } from "../../base/limits.ts";
import { badArchive, readError } from "../conda/errors.ts";
import { plainPath, Refusal } from "../entry-tree.ts";
import { checkPath, type ImageFiles, runOf } from "./files.ts";

const BLOCK = 512;
/** Files of an image archive: a thousand images of sixty layers. */
const MEMBERS_MAX = 65_536;
const PAX_MAX_BYTES = 1 << 20;
/** docker save has one link from a layer to its equal; more is a game. */
const LINKS_MAX = 8;

interface Content {
  readonly start: number;
  readonly size: number;
}
/** A file; or a link, by the plain path it leads to. */
type Member = Content | { readonly target: string };

interface Header {
  readonly type: string;
  readonly name: string;
  readonly linkname: string;
  readonly size: number;
}

/** What PAX records and long names say of the header after them. */
interface Extra {
  path?: string;
  linkpath?: string;
  size?: number;
}

export interface TarFilesOptions {
  /** What errors call the image. */
  readonly name: string;
  /** False ends the reading at once: the tar is none of an image, and openTar gives undefined. Paths are latin1 and plain. */
  readonly isExpected?: (path: string) => boolean;
}

/**
 * The members of a plain tar; undefined when it has one that isn't expected. BURROW_BAD_ARCHIVE for a tar that is cut or damaged, has a
 * path twice or one that leads out of it.
 */
export async function openTar(
  path: string,
  options: TarFilesOptions,
): Promise<ImageFiles | undefined> {
  const { name } = options;
  let file: FileHandle;
  try {
    file = await open(path, "r");
  } catch (cause) {
    throw readError(cause, name);
  }
  let members: ReadonlyMap<string, Member> | undefined;
  try {
    members = await new TarScan(file, options).members();
  } finally {
    if (members === undefined) await file.close();
  }
  if (members === undefined) return undefined;
  const known = members;
  return {
    name,
    async find(wanted) {
      const content = follow(known, checkPath(wanted, name), name);
      return content && runOf(file, content.start, content.size);
    },
    [Symbol.asyncDispose]: () => file.close(),
  };
}

function follow(
  members: ReadonlyMap<string, Member>,
  path: string,
  name: string,
): Content | undefined {
  let at = path;
  for (let count = 0; count <= LINKS_MAX; count++) {
    const member = members.get(at);
    if (member === undefined || "start" in member) return member;
    at = member.target;
  }
  throw badArchive(name, "its links go in circles", path);
}

class TarScan {
  readonly #file: FileHandle;
  readonly #options: TarFilesOptions;
  readonly #members = new Map<string, Member>();
  #extra: Extra = {};
  #offset = 0;
  #fileBytes = 0;

  constructor(file: FileHandle, options: TarFilesOptions) {
    this.#file = file;
    this.#options = options;
  }

  async members(): Promise<ReadonlyMap<string, Member> | undefined> {
    this.#fileBytes = (await this.#file.stat()).size;
    for (let count = 0; ; count++) {
      const block = await this.#read(this.#offset, BLOCK);
      if (block.every((byte) => byte === 0)) return this.#members;
      if (count >= MEMBERS_MAX) throw this.#bad(`it has over ${MEMBERS_MAX} members`);
      const header = this.#headerOf(block);
      const start = this.#offset + BLOCK;
      const size = "xgLK".includes(header.type) ? header.size : (this.#extra.size ?? header.size);
      this.#offset = start + Math.ceil(size / BLOCK) * BLOCK;
      if (start + size > this.#fileBytes) throw this.#bad("the archive is cut", header.name);
      if ("xgLK".includes(header.type)) await this.#takeExtra(header, start);
      else if (!this.#take(header, { start, size })) return undefined;
    }
  }

  async #read(offset: number, length: number): Promise<Buffer> {
    const bytes = Buffer.alloc(length);
    const { bytesRead } = await this.#file.read(bytes, 0, length, offset);
    if (bytesRead === length) return bytes;
    throw this.#bad("the archive is cut: its end mark is missing");
  }

  #headerOf(block: Buffer): Header {
    const text = (at: number, length: number) => textOf(block.subarray(at, at + length));
    const sum = numberOf(block.subarray(148, 156));
    let actual = 8 * 0x20;
    for (const [i, byte] of block.entries()) if (i < 148 || i >= 156) actual += byte;
    if (sum !== actual) throw this.#bad("it is no good tar: a header's checksum is wrong");
    const size = numberOf(block.subarray(124, 136));
    const prefix = text(257, 6) === "ustar" ? text(345, 155) : "";
    const name = prefix === "" ? text(0, 100) : `${prefix}/${text(0, 100)}`;
    if (size === undefined) throw this.#bad("its size is no number", name);
    return {
      type: String.fromCharCode(block[156]! || 0x30),
      name,
      linkname: text(157, 100),
      size,
    };
  }

  /** Keeps what is said of the next header. */
  async #takeExtra({ type, size }: Header, start: number): Promise<void> {
    const isLongName = type === "L" || type === "K";
    if (size > (isLongName ? PATH_MAX_BYTES + 1 : PAX_MAX_BYTES)) {
      throw this.#bad(`it has an extended header of ${size} bytes`);
    }
    const bytes = await this.#read(start, size);
    if (isLongName) {
      this.#extra[type === "L" ? "path" : "linkpath"] = textOf(bytes);
      return;
    }
    const records = recordsOf(bytes);
    if (records === undefined) throw this.#bad("it has a PAX header that can't be read");
    const isOdd = type === "g" && ["path", "linkpath", "size"].some((key) => records.has(key));
    if (isOdd || [...records.keys()].some((key) => key.startsWith("GNU.sparse."))) {
      throw this.#bad("it has a PAX header of a kind that no image has");
    }
    if (type === "g") return;
    const [path, linkpath, length] = ["path", "linkpath", "size"].map((key) => records.get(key));
    if (path) this.#extra.path = path;
    if (linkpath) this.#extra.linkpath = linkpath;
    if (length === undefined) return;
    if (!/^\d{1,15}$/.test(length)) throw this.#bad("its size is no number", path);
    this.#extra.size = Number(length);
  }

  /** Takes a member; false when it isn't expected. */
  #take(header: Header, content: Content): boolean {
    const shown = this.#extra.path ?? header.name;
    const linkname = this.#extra.linkpath ?? header.linkname;
    this.#extra = {};
    const path = plainPath(shown);
    const isExpected = this.#options.isExpected ?? (() => true);
    if (path instanceof Refusal) {
      if (this.#options.isExpected !== undefined) return false;
      throw this.#bad(path.why, shown);
    }
    if (path !== "" && !isExpected(path)) return false;
    const isFolder = header.type === "5" || (header.type === "0" && shown.endsWith("/"));
    if (isFolder) return true;
    let member: Member = content;
    if (header.type === "1" || header.type === "2") {
      const folder = header.type === "2" ? path.split("/").slice(0, -1) : [];
      member = { target: this.#targetOf([...folder, ...linkname.split("/")], linkname, shown) };
    } else if (header.type !== "0" && header.type !== "7") {
      throw this.#bad("it is of a type that no image has", shown);
    }
    if (this.#members.has(path)) throw this.#bad("it comes twice", shown);
    this.#members.set(path, member);
    return true;
  }

  /** Where a link leads: its ".." are resolved here, and none of them leads out. */
  #targetOf(names: readonly string[], linkname: string, entry: string): string {
    const path: string[] = [];
    for (const name of names) {
      if (name === "" || name === ".") continue;
      if (name !== "..") path.push(name);
      else if (path.pop() === undefined) throw this.#bad("its link leads out of the image", entry);
    }
    const isOut = linkname.startsWith("/") || path.length === 0;
    if (isOut) throw this.#bad("its link leads out of the image", entry);
    return path.join("/");
  }

  #bad(why: string, entry?: string) {
    return badArchive(this.#options.name, why, entry);
  }
}

/** Latin1, up to the first NUL. */
function textOf(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString("latin1", 0, end < 0 ? bytes.length : end);
}

/** Octal digits, or base 256 (GNU) with the top bit set; undefined for what is neither, or past 2^53. */
function numberOf(field: Buffer): number | undefined {
  if (field[0] === 0x80) {
    let value = 0;
    for (const byte of field.subarray(1)) value = value * 256 + byte;
    return Number.isSafeInteger(value) ? value : undefined;
  }
  const text = field
    .toString("latin1")
    .replace(/[\0 ]+$/, "")
    .replace(/^ +/, "");
  return /^[0-7]{1,12}$/.test(text) ? Number.parseInt(text, 8) : undefined;
}

/** PAX records, "LENGTH KEY=VALUE\n" each, as latin1; undefined when they are damaged. */
function recordsOf(bytes: Buffer): Map<string, string> | undefined {
  const records = new Map<string, string>();
  for (let at = 0; at < bytes.length; ) {
    const head = /^(\d{1,7}) /.exec(bytes.toString("latin1", at, at + 8));
    const end = at + Number(head?.[1]);
    const equals = bytes.indexOf("=", at);
    const isWhole = head !== null && end <= bytes.length && bytes[end - 1] === 0x0a;
    if (!isWhole || equals < 0 || equals >= end) return undefined;
    const key = bytes.toString("latin1", at + head[0].length, equals);
    records.set(key, bytes.toString("latin1", equals + 1, end - 1));
    at = end;
  }
  return records;
}
