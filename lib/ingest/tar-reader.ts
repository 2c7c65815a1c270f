// TarReader: the entries of a tar as they come, with their long names and PAX records, and their content. Judges nothing but
// whether it is a tar that can be read to its end. What is in memory already is gone through without waiting. Control plane.

import { Readable } from "node:stream";
import type { Digest } from "../base/digest.ts";
import { hashPieces, hasLanes, type Piece } from "../store/lanes.ts";
import { ByteFeed } from "./byte-feed.ts";
import { type ByteSource, sourceOf } from "./byte-source.ts";
import type { Content } from "./sink.ts";
import {
  contentsIn,
  longName,
  NO_RECORDS,
  type PaxRecords,
  paxRecords,
  type RawHeader,
  readBlock,
  TAR_BLOCK_BYTES,
  type TarType,
} from "./tar-block.ts";

/** Of one long name or extended header: they are held in memory. */
const EXTENDED_MAX_BYTES = 4 << 20;
/** Gathered where small contents are hashed many at once: more would be gone from the CPU's cache when it is packed. */
const AHEAD_BYTES = 4 << 20;

type Extended = "pax-header" | "pax-global-header" | "gnu-long-link-path" | "gnu-long-path";

export interface TarEntry {
  /** Undefined for a type that is not known. */
  readonly type: Exclude<TarType, Extended> | undefined;
  readonly header: RawHeader;
  /** Latin1, with what long names say. PAX records may say otherwise. */
  readonly name: string;
  readonly linkname: string;
  /** Of the content that follows, with what PAX records say: NaN or below 0 when the bytes are none. */
  readonly size: number;
  readonly pax: PaxRecords;
  /** Good until the next entry is asked for; what isn't read is passed over. */
  readonly content: Content;
}

/** What is wrong with the tar itself; who reads it says which it is. */
export class BadTar extends Error {
  readonly isCut: boolean;

  constructor(why: string, isCut = false) {
    super(why);
    this.isCut = isCut;
  }
}

/** What the owner of a reader has a say in. */
export interface TarHooks {
  /** Told how many bytes came; may end the reading with an error. */
  onBytes(count: number): Error | undefined;
  /** What is thrown for BadTar, an error of the source or one of onBytes. */
  explain(cause: unknown): unknown;
}

export class TarReader {
  readonly #feed: Bytes;
  #content: EntryContent | undefined;
  /** What fills the last block of the entry at hand up. */
  #padding = 0;
  #common: PaxRecords = NO_RECORDS;
  #pax: PaxRecords = NO_RECORDS;
  #longName = "";
  #longLinkname = "";
  /** Where the last entry's content ends, padding included. */
  #contentEnd = 0;
  /** Zero bytes that came since the last other one. */
  #zeros = 0;
  /** Contents that were hashed ahead, and where there are none any more. */
  #ahead: readonly Piece[] = [];
  #aheadNext = 0;
  #aheadStart = 0;
  #aheadEnd = 0;

  /** Owns the source. */
  constructor(source: Readable | ByteSource, hooks: TarHooks) {
    const onBytes = (chunk: Buffer) => {
      this.#countZeros(chunk);
      return hooks.onBytes(chunk.length);
    };
    const bytes = source instanceof Readable ? sourceOf(source) : source;
    this.#feed = new Bytes(new ByteFeed(bytes, onBytes), hooks);
  }

  /** Whether the tar ends as it should, once next() gave undefined: cut between two entries it is one without its end mark. */
  get isWhole(): boolean {
    const isBehind = this.#feed.byteCount >= this.#contentEnd + TAR_BLOCK_BYTES;
    return isBehind && this.#zeros >= TAR_BLOCK_BYTES;
  }

  /** The next entry, or undefined at the end. */
  async next(): Promise<TarEntry | undefined> {
    const feed = this.#feed;
    for (;;) {
      if (this.#content?.left) await this.#content.pass();
      if (this.#padding > 0) feed.take(this.#padding) ?? (await feed.exactly(this.#padding));
      this.#padding = 0;
      if (hasLanes && feed.position >= this.#aheadEnd) await this.#lookAhead();
      let block = feed.take(TAR_BLOCK_BYTES);
      if (block === undefined) {
        if (feed.buffered === 0 && !(await feed.more())) return undefined;
        block = await feed.exactly(TAR_BLOCK_BYTES);
      }
      const header = readBlock(block);
      if (header === undefined) continue;
      if (typeof header === "string") throw feed.bad(header);
      const { type } = header;
      if (!isExtended(type)) return this.#entry(type, header);
      this.#takeExtended(type, await this.#extended(header));
    }
  }

  close(): void {
    this.#feed.close();
  }

  #entry(type: TarEntry["type"], header: RawHeader): TarEntry {
    const pax = this.#pax;
    const name = this.#longName || header.name;
    const linkname = this.#longLinkname || header.linkname;
    this.#pax = NO_RECORDS;
    this.#longName = "";
    this.#longLinkname = "";
    const said = pax.get("size");
    const size = said ? Number.parseInt(said, 10) : header.size;
    // What a directory says is how much it may grow to: nothing follows. What is no size is for the caller to refuse.
    const length = type === "directory" || !(size >= 0) ? 0 : size;
    const start = this.#feed.position;
    const content = new EntryContent(this.#feed, length, this.#digestAt(start, length));
    this.#content = content;
    this.#padding = paddingOf(content.left);
    this.#contentEnd = start + content.left + this.#padding;
    return { type, header, name, linkname, size, pax, content };
  }

  /** Hashes the small contents that come next, at a header. */
  async #lookAhead(): Promise<void> {
    const feed = this.#feed;
    await feed.fill(AHEAD_BYTES);
    const { window } = feed;
    const { pieces, end } = contentsIn(window);
    hashPieces(window, pieces);
    this.#ahead = pieces;
    this.#aheadNext = 0;
    this.#aheadStart = feed.position;
    this.#aheadEnd = feed.position + end;
  }

  /** The digest of the content that lies there, if it was hashed ahead. */
  #digestAt(position: number, length: number): Digest | undefined {
    const start = position - this.#aheadStart;
    while (this.#aheadNext < this.#ahead.length && this.#ahead[this.#aheadNext]!.start < start)
      this.#aheadNext++;
    const piece = this.#ahead[this.#aheadNext];
    return piece?.start === start && piece.length === length ? piece.digest : undefined;
  }

  /** The bytes of a header that says something of the next. */
  async #extended({ size }: RawHeader): Promise<Buffer> {
    if (!(size >= 0)) throw this.#feed.bad("a size that is none");
    if (size > EXTENDED_MAX_BYTES) throw this.#feed.bad("an extended header that is too large");
    this.#padding = paddingOf(size);
    return await this.#feed.exactly(size);
  }

  #takeExtended(type: Extended, bytes: Buffer): void {
    switch (type) {
      case "pax-header":
        this.#pax = paxRecords(bytes, this.#common);
        break;
      case "pax-global-header":
        this.#common = paxRecords(bytes, NO_RECORDS);
        break;
      case "gnu-long-path":
        this.#longName = longName(bytes);
        break;
      case "gnu-long-link-path":
        this.#longLinkname = longName(bytes);
        break;
    }
  }

  #countZeros(chunk: Buffer): void {
    let at = chunk.length;
    while (at > 0 && chunk.length - at < TAR_BLOCK_BYTES && chunk[at - 1] === 0) at--;
    const zeros = chunk.length - at;
    this.#zeros = zeros === chunk.length ? this.#zeros + zeros : zeros;
  }
}

/** The content of one entry, straight from the feed; `left` bytes of it weren't read. */
class EntryContent implements Content {
  left: number;
  readonly digest: Digest | undefined;
  readonly #feed: Bytes;

  constructor(feed: Bytes, size: number, digest: Digest | undefined) {
    this.left = size;
    this.digest = digest;
    this.#feed = feed;
  }

  async whole(): Promise<Buffer> {
    const { left } = this;
    this.left = 0;
    return this.#feed.take(left) ?? (await this.#feed.exactly(left));
  }

  async *[Symbol.asyncIterator](): AsyncIterator<Buffer> {
    while (this.left > 0) {
      const piece = await this.#feed.some(this.left);
      this.left -= piece.length;
      yield piece;
    }
  }

  /** Reads what is left, for nobody. */
  async pass(): Promise<void> {
    while (this.left > 0) this.left -= (await this.#feed.some(this.left)).length;
  }
}

/** A feed whose errors are explained, and whose end comes too soon when there should be more. */
class Bytes {
  readonly #feed: ByteFeed;
  readonly #hooks: TarHooks;

  constructor(feed: ByteFeed, hooks: TarHooks) {
    this.#feed = feed;
    this.#hooks = hooks;
  }

  get byteCount(): number {
    return this.#feed.byteCount;
  }

  get buffered(): number {
    return this.#feed.buffered;
  }

  /** Where the next byte to be taken lies in the tar. */
  get position(): number {
    return this.#feed.byteCount - this.#feed.buffered;
  }

  /** See ByteFeed. */
  get window(): Buffer {
    return this.#feed.window;
  }

  /** See ByteFeed. */
  async fill(length: number): Promise<void> {
    await this.#feed.fill(length);
  }

  /** See ByteFeed. */
  take(length: number): Buffer | undefined {
    return this.#feed.take(length);
  }

  /** See ByteFeed. */
  async more(wanted = 0): Promise<boolean> {
    try {
      return await this.#feed.more(wanted);
    } catch (cause) {
      throw this.#hooks.explain(cause);
    }
  }

  async exactly(length: number): Promise<Buffer> {
    for (;;) {
      const bytes = this.#feed.take(length);
      if (bytes !== undefined) return bytes;
      if (!(await this.more(length))) throw this.bad("it ends too soon", true);
    }
  }

  /** At least one byte, at most `max`. */
  async some(max: number): Promise<Buffer> {
    while (this.buffered === 0) if (!(await this.more())) throw this.bad("it ends too soon", true);
    return this.#feed.takeSome(max);
  }

  close(): void {
    this.#feed.close();
  }

  bad(why: string, isCut = false): unknown {
    return this.#hooks.explain(new BadTar(why, isCut));
  }
}

function isExtended(type: TarType | undefined): type is Extended {
  return (
    type === "pax-header" ||
    type === "pax-global-header" ||
    type === "gnu-long-path" ||
    type === "gnu-long-link-path"
  );
}

/** Bytes that fill the last block up. */
function paddingOf(size: number): number {
  return (TAR_BLOCK_BYTES - (size % TAR_BLOCK_BYTES)) % TAR_BLOCK_BYTES;
}
