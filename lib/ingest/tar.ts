// Tar archives to layer entries: TarReader says what is there, this judges it. An archive is hostile until
// shown otherwise: nothing is written but through the sink, and what doesn't describe one plain tree below its root is refused
// with BURROW_BAD_ARCHIVE. Control plane.

import { open } from "node:fs/promises";
import type { Readable } from "node:stream";
import { BurrowError } from "../base/error.ts";
import { ARCHIVE_BYTES_MAX, ARCHIVE_ENTRIES_MAX, SYMLINK_MAX_BYTES } from "../base/limits.ts";
import { checkName, showName } from "../base/name.ts";
import type { LayerEntry } from "../layer/entry.ts";
import type { BlobSink } from "../store/blob-sink.ts";
import { type ByteSource, FileBytes } from "./byte-source.ts";
import { decompressedBytes, kindOf, MAGIC_BYTES } from "./decompress.ts";
import { EntryTree, plainPath, Refusal } from "./entry-tree.ts";
import { addContent, type Content } from "./sink.ts";
import { type Attributes, readHeader, shownName, type TarHeader } from "./tar-header.ts";
import { BadTar, type TarEntry, TarReader } from "./tar-reader.ts";

export interface TarOptions {
  readonly sink: BlobSink;
  /** What errors call the archive. */
  readonly name: string;
  /** "oci": `.wh.NAME` and `.wh..wh..opq` are whiteouts and opaque marks; "none" (as if missing): files like others. */
  readonly whiteouts?: "oci" | "none";
  /** Device nodes: "refuse" (as if missing), or "skip" and tell onSkip. A sandbox gets its /dev from its sentry. */
  readonly devices?: "refuse" | "skip";
  /** Absolute paths, of entries and of hard links: "refuse" (as if missing), or "root": they start at the layer's, as in images. */
  readonly absolute?: "refuse" | "root";
  /** Where an entry goes, by its latin1 path and type; undefined leaves it out. Targets of hard links pass through it too. */
  readonly mapPath?: (path: string, type: LayerEntry["type"]) => string | undefined;
  /** Called for each entry as it is taken, for progress. */
  readonly onEntry?: (entry: LayerEntry) => void;
  readonly onSkip?: (path: string, why: string) => void;
  /** Lower bounds than limits.ts has: entries, and bytes of the archive after decompression. */
  readonly maxEntries?: number;
  readonly maxBytes?: number;
}

const OCI_PREFIX = ".wh.";
/** OCI image-spec layer.md "opaque whiteout". Other names that start with ".wh..wh." are left-overs of aufs. */
const OCI_OPAQUE = ".wh..wh..opq";
const OCI_RESERVED = ".wh..wh.";

/**
 * The entries of a tar: a file's path (compressed or not, as its first bytes say) or tar bytes, whose source is given up
 * at the end. Content goes to the sink as it is read; entries come out after the last byte was judged, each path once.
 *
 * A path that comes twice: two directories are one with the later's attributes; two files or symlinks with the same content are
 * one, the later; anything else is refused. A hard link takes its target's attributes; one to a symlink is a copy of it.
 *
 * Names are bytes, but POSIX has PAX records in UTF-8: one that is not is refused.
 */
export async function* importTar(
  source: string | Readable | ByteSource,
  options: TarOptions,
): AsyncIterable<LayerEntry> {
  const reader = new TarImport(options);
  await reader.read(typeof source === "string" ? await openArchive(source, options.name) : source);
  yield* reader.tree.entries();
}

/** One reading of one archive. */
class TarImport {
  readonly tree = new EntryTree();
  readonly #options: TarOptions;
  readonly #maxEntries: number;
  readonly #maxBytes: number;
  #entryCount = 0;

  constructor(options: TarOptions) {
    this.#options = options;
    this.#maxEntries = options.maxEntries ?? ARCHIVE_ENTRIES_MAX;
    this.#maxBytes = options.maxBytes ?? ARCHIVE_BYTES_MAX;
  }

  async read(source: Readable | ByteSource): Promise<void> {
    let byteCount = 0;
    const tar = new TarReader(source, {
      onBytes: (count) => {
        byteCount += count;
        const isOver = byteCount > this.#maxBytes;
        return isOver ? this.#bad(`the archive is over ${this.#maxBytes} bytes`) : undefined;
      },
      explain: (cause) => this.#explained(cause),
    });
    try {
      for (let entry = await tar.next(); entry !== undefined; entry = await tar.next()) {
        await this.#take(entry);
      }
    } finally {
      tar.close();
    }
    if (!tar.isWhole) throw this.#bad("the archive is cut: its end mark is missing");
  }

  /** An error of the source or of the tar, as ours. */
  #explained(cause: unknown): unknown {
    if (cause instanceof BurrowError) {
      return cause.context["archive"] === undefined ? this.#bad(cause.message) : cause;
    }
    const context = { archive: this.#options.name };
    if (cause instanceof Error && "syscall" in cause) {
      return new BurrowError("BURROW_IO", "can't read the archive", { cause, context });
    }
    const isCut = cause instanceof BadTar && cause.isCut;
    const why = isCut ? "the archive is cut" : "it is no good tar";
    return new BurrowError("BURROW_BAD_ARCHIVE", why, { cause, context });
  }

  #bad(why: string, entry?: string): BurrowError {
    const archive = this.#options.name;
    const context = entry === undefined ? { archive } : { archive, entry };
    return new BurrowError("BURROW_BAD_ARCHIVE", why, { context });
  }

  async #take(entry: TarEntry): Promise<void> {
    if (++this.#entryCount > this.#maxEntries) {
      throw this.#bad(`it has over ${this.#maxEntries} entries`, shownName(entry));
    }
    const header = readHeader(entry);
    if (typeof header === "string") throw this.#bad(header, shownName(entry));
    const { size } = header;
    if (size > this.#maxBytes) throw this.#bad(`it claims ${size} bytes`, shownName(entry));
    const type = typeOf(header);
    const path = this.#place(header.name, type, entry);
    if (path === undefined) return;
    const result = await this.#taken(path, type, header, entry.content);
    if (result instanceof Refusal) throw this.#bad(result.why, shownName(entry));
    if (result !== undefined) this.#options.onEntry?.(result);
  }

  /** Where a path of the archive lies in the layer; undefined when mapPath leaves it out. */
  #place(text: string, type: LayerEntry["type"], entry: TarEntry | string): string | undefined {
    const { mapPath, absolute } = this.#options;
    const plain = plainPath(absolute === "root" ? text.replace(/^\/+/, "") : text);
    const mapped = plain instanceof Refusal || mapPath === undefined ? plain : mapPath(plain, type);
    const path = typeof mapped === "string" && mapPath !== undefined ? plainPath(mapped) : mapped;
    if (path instanceof Refusal) {
      throw this.#bad(path.why, typeof entry === "string" ? entry : shownName(entry));
    }
    return path;
  }

  /** Takes an entry to its path: what was taken, why not, or nothing when it was skipped. */
  async #taken(
    path: string,
    type: LayerEntry["type"],
    header: TarHeader,
    content: Content,
  ): Promise<LayerEntry | Refusal | undefined> {
    const { size, linkname, attributes } = header;
    if (type === "file" && (header.type === "file" || header.type === "contiguous-file")) {
      if (this.#options.whiteouts === "oci" && lastName(path).startsWith(OCI_PREFIX)) {
        return this.#takeWhiteout(path, attributes);
      }
      const blob = await addContent(this.#options.sink, content, size, (actual) =>
        this.#bad(`its size is ${size} bytes in its header and ${actual} in fact`, showName(path)),
      );
      const { mode, uid, gid, mtimeSec, mtimeNs, xattrs } = attributes;
      // There may be a million: field by field they take a quarter less.
      const plain = { type: "file", path, mode, uid, gid, mtimeSec, mtimeNs, blob } as const;
      return this.#added(xattrs === undefined ? plain : { ...plain, xattrs });
    }
    if (size !== 0)
      return new Refusal(`it is a ${header.type} and claims ${size} bytes of content`);
    switch (header.type) {
      case "directory":
      case "file":
        return this.#added({ type: "directory", path, ...attributes });
      case "fifo":
        return this.#added({ type: "fifo", path, ...attributes });
      case "symlink":
        if (linkname === "" || linkname.length > SYMLINK_MAX_BYTES || linkname.includes("\0")) {
          return new Refusal("its target is not allowed");
        }
        return this.#added({ type: "symlink", path, ...attributes, target: linkname });
      case "link": {
        const target = this.#place(linkname, "file", showName(path));
        return target === undefined
          ? new Refusal("its target is left out")
          : this.tree.link(path, target);
      }
      case "character-device":
      case "block-device":
        if (this.#options.devices !== "skip") return new Refusal(`it is a ${header.type}`);
        this.#options.onSkip?.(path, `it is a ${header.type}`);
        return undefined;
      default:
        return new Refusal(`it is a ${header.type}, which no layer can hold`);
    }
  }

  #added(entry: LayerEntry): LayerEntry | Refusal {
    return this.tree.add(entry) ?? entry;
  }

  #takeWhiteout(name: string, attributes: Attributes): LayerEntry | Refusal | undefined {
    const last = lastName(name);
    const directory = name.slice(0, Math.max(0, name.length - last.length - 1));
    if (last === OCI_OPAQUE) return this.tree.markOpaque(directory);
    if (last.startsWith(OCI_RESERVED)) {
      this.#options.onSkip?.(name, "it is a left-over of aufs");
      return undefined;
    }
    const hidden = last.slice(OCI_PREFIX.length);
    if (checkName(hidden) < 0) return new Refusal("it is a whiteout of a name that is not allowed");
    const path = directory === "" ? hidden : `${directory}/${hidden}`;
    return this.#added({ type: "whiteout", path, ...attributes });
  }
}

/** What the entry of a header is in a layer; hard links are files, and so is what will be refused. */
function typeOf({ type, name, size }: TarHeader): LayerEntry["type"] {
  if (type === "directory" || type === "symlink" || type === "fifo") return type;
  // Before ustar a directory was an empty file with a slash at its end; PAX names may still be.
  return type === "file" && size === 0 && name.endsWith("/") ? "directory" : "file";
}

function lastName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

async function openArchive(path: string, name: string): Promise<ByteSource> {
  const start = Buffer.alloc(MAGIC_BYTES);
  try {
    await using file = await open(path, "r");
    await file.read(start, 0, MAGIC_BYTES, 0);
  } catch (cause) {
    const isMissing = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
    const code = isMissing ? "BURROW_NOT_FOUND" : "BURROW_IO";
    throw new BurrowError(code, `can't read ${path}`, { cause, context: { archive: name } });
  }
  return decompressedBytes(new FileBytes(path), kindOf(start), name);
}
