// Repodata of a channel's subdir: from a directory, or over HTTP(S) with a copy in the cache that is revalidated on each use.
// A copy is believed when its sha256 is the noted one, and kept only when it could be read. Control plane.

import { createHash, randomBytes } from "node:crypto";
import { constants, createWriteStream } from "node:fs";
import { open, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { BurrowError } from "../../base/error.ts";
import { makeFolder } from "../../store/folder.ts";
import { decompressed } from "../decompress.ts";
import { type Answer, type RetryOptions, withAnswer, withRetries } from "../fetch-stream.ts";
import type { Channel } from "./channel.ts";
import { plainUrl } from "./record.ts";
import { badRepodata, type RepodataIndex, scanRepodata } from "./repodata-scan.ts";

export interface RepodataOptions extends RetryOptions {
  /** Folder of copies, made when it is missing; for this user alone, since a channel may be private. */
  readonly cache: string;
  readonly stallMs?: number;
  readonly onBytes?: (bytes: number) => void;
}

/** conda-forge's linux-64 has about 300 MB; a parser of twice as much would still fit a small machine. */
const REPODATA_MAX_BYTES = 1 << 30;
/** In preference: the compressed one is an eighth of the other. */
const FILES = ["repodata.json.zst", "repodata.json"] as const;
type FileName = (typeof FILES)[number];
/** A copy in the making that is older belongs to a process that was killed. */
const ASIDE_MAX_MS = 3_600_000;

/** What is noted of a copy. `content` is the sha256 of the JSON. */
interface Note {
  readonly format: 1;
  readonly url: string;
  readonly file: FileName;
  readonly content: string;
  readonly etag?: string;
  readonly lastModified?: string;
}

/**
 * The records of a subdir; undefined where the channel has none. BURROW_BAD_REPODATA, BURROW_ORIGIN, BURROW_TIMEOUT, naming the
 * file without secrets.
 */
export async function loadRepodata(
  channel: Channel,
  subdir: string,
  options: RepodataOptions,
): Promise<RepodataIndex | undefined> {
  return channel.path === undefined
    ? await new Remote(channel.url, subdir, options).load()
    : await loadLocal(join(channel.path, subdir));
}

async function loadLocal(folder: string): Promise<RepodataIndex | undefined> {
  // A directory's repodata.json is what its tools write; the other may be of an earlier day.
  for (const name of FILES.toReversed()) {
    const path = join(folder, name);
    const bytes = await readLocal(path);
    if (bytes !== undefined) return scanRepodata(bytes, path);
  }
  return undefined;
}

async function readLocal(path: string): Promise<Buffer | undefined> {
  let file: Awaited<ReturnType<typeof open>>;
  try {
    // A fifo would hold up an open that waits for its writer.
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new BurrowError("BURROW_IO", "can't read the repodata", {
      cause,
      context: { repodata: path },
    });
  }
  await using _ = file;
  const facts = await file.stat();
  if (!facts.isFile()) throw badRepodata(path, "it is no file");
  const source = file.createReadStream({ autoClose: false });
  const parts: Uint8Array[] = [];
  for await (const part of bounded(plain(source, path), path)) parts.push(part);
  return Buffer.concat(parts);
}

/** The JSON of a source, by the name of its file. */
function plain(source: Readable, path: string): Readable {
  return path.endsWith(".zst") ? decompressed(source, "zst", path) : source;
}

async function* bounded(chunks: AsyncIterable<Uint8Array>, where: string) {
  let bytes = 0;
  try {
    for await (const chunk of chunks) {
      bytes += chunk.length;
      if (bytes > REPODATA_MAX_BYTES) throw badRepodata(where, "it has more than 1 GiB");
      yield chunk;
    }
  } catch (cause) {
    // What the decompressor says of it; errors of the network stay what they are.
    const isDamaged = cause instanceof BurrowError && cause.code === "BURROW_BAD_ARCHIVE";
    throw isDamaged ? badRepodata(where, "it can't be decompressed", undefined, cause) : cause;
  }
}

class Remote {
  readonly #base: string;
  readonly #options: RepodataOptions;
  /** What the copy's files are called by: a hash, since the URL may hold a token. */
  readonly #key: string;

  constructor(channelUrl: string, subdir: string, options: RepodataOptions) {
    this.#base = `${channelUrl}${subdir}/`;
    this.#options = options;
    this.#key = createHash("sha256").update(this.#base).digest("hex").slice(0, 32);
  }

  async load(): Promise<RepodataIndex | undefined> {
    makeFolder(this.#options.cache, 0o700);
    const copy = await this.#copy();
    const known = copy?.note.file;
    for (const file of known === undefined ? FILES : [known, ...FILES.filter((f) => f !== known)]) {
      const found = await withRetries(
        () => this.#ask(file, file === known ? copy : undefined),
        this.#options,
      );
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** Asks for a file, with what is known of the copy: undefined when the server has none. */
  async #ask(
    file: FileName,
    copy: { note: Note; bytes: Buffer } | undefined,
  ): Promise<RepodataIndex | undefined> {
    const url = this.#base + file;
    const shownUrl = plainUrl(url);
    const headers: Record<string, string> = {};
    if (copy?.note.etag !== undefined) headers["if-none-match"] = copy.note.etag;
    if (copy?.note.lastModified !== undefined) {
      headers["if-modified-since"] = copy.note.lastModified;
    }
    const isConditional = Object.keys(headers).length > 0;
    const { stallMs } = this.#options;
    const request = {
      what: "the repodata",
      shownUrl,
      headers,
      ...(stallMs === undefined ? {} : { stallMs }),
      maxBytes: REPODATA_MAX_BYTES,
      // Some stores of files answer 403 for what isn't there: then the other file is the one to ask for.
      statuses: [
        200,
        404,
        ...(isConditional ? [304] : []),
        ...(file.endsWith(".zst") ? [403] : []),
      ],
    };
    return await withAnswer(url, request, async (answer) => {
      if (answer.status === 304) return scanRepodata(copy!.bytes, shownUrl);
      return answer.status === 200 ? await this.#keep(file, answer, shownUrl) : undefined;
    });
  }

  /** Reads an answer's body, and keeps it as the copy when it is repodata. */
  async #keep(file: FileName, answer: Answer, shownUrl: string): Promise<RepodataIndex> {
    const { cache } = this.#options;
    const aside = join(cache, `aside-${randomBytes(8).toString("hex")}`);
    try {
      const source = Readable.from(this.#counted(answer.body));
      const content = createHash("sha256");
      const json = file.endsWith(".zst") ? decompressed(source, "zst", shownUrl) : source;
      const hashed = async function* () {
        for await (const chunk of bounded(json, shownUrl)) {
          content.update(chunk);
          yield chunk;
        }
      };
      await pipeline(hashed, createWriteStream(aside, { mode: 0o600 }));
      const index = scanRepodata(await readFile(aside), shownUrl);
      const etag = answer.headers.get("etag");
      const lastModified = answer.headers.get("last-modified");
      const note: Note = {
        format: 1,
        url: shownUrl,
        file,
        content: content.digest("hex"),
        ...(etag === null ? {} : { etag }),
        ...(lastModified === null ? {} : { lastModified }),
      };
      await this.#note(note, aside);
      return index;
    } finally {
      await rm(aside, { force: true });
    }
  }

  async *#counted(chunks: AsyncIterable<Uint8Array>) {
    let bytes = 0;
    for await (const chunk of chunks) {
      bytes += chunk.length;
      this.#options.onBytes?.(bytes);
      yield chunk;
    }
  }

  /** The content first, then the note that names it: at any kill the note's content is there, or there is no copy. */
  async #note(note: Note, aside: string): Promise<void> {
    const { cache } = this.#options;
    await rename(aside, this.#contentPath(note.content));
    await writeFile(aside, `${JSON.stringify(note)}\n`, { mode: 0o600 });
    await rename(aside, join(cache, `${this.#key}.note`));
    for (const name of await readdir(cache)) {
      const isOld = name.startsWith(`${this.#key}.`) && name.endsWith(".json");
      const path = join(cache, name);
      if (isOld && name !== basename(this.#contentPath(note.content))) {
        await rm(path, { force: true });
      } else if (name.startsWith("aside-")) await sweep(path);
    }
  }

  #contentPath(content: string): string {
    return join(this.#options.cache, `${this.#key}.${content}.json`);
  }

  /** The copy, when it is whole. */
  async #copy(): Promise<{ note: Note; bytes: Buffer } | undefined> {
    try {
      const text = await readFile(join(this.#options.cache, `${this.#key}.note`), "utf8");
      const note = JSON.parse(text) as Note;
      if (note.format !== 1 || !FILES.includes(note.file)) return undefined;
      const bytes = await readFile(this.#contentPath(note.content));
      const content = createHash("sha256").update(bytes).digest("hex");
      return content === note.content ? { note, bytes } : undefined;
    } catch {
      return undefined; // none, or none that can be read: it is fetched again
    }
  }
}

async function sweep(path: string): Promise<void> {
  const facts = await stat(path).catch(() => undefined);
  if (facts !== undefined && Date.now() - facts.mtimeMs > ASIDE_MAX_MS) {
    await rm(path, { force: true });
  }
}
