// Start order: in which order a new layer's content is best laid into packs, without anybody having started it: what Python and its installed
// modules will read when they are imported, as it is foreseen of a start (foresee.ts); then other code; what is hardly ever read comes last.
// Of the same content always the same order. docs/design/0030-start-order.md. Control plane.

import type { Digest } from "../base/digest.ts";
import { BLOCK_BYTES, BLOCK_DIGESTS_OVER_BYTES } from "../base/limits.ts";
import type { LayerEntry } from "../layer/entry.ts";
import { IndexKind } from "../layer/format.ts";
import { Index } from "../layer/index.ts";
import { mergeIndexes } from "../layer/merge.ts";
import { writeIndex } from "../layer/writer.ts";
import { LoopShare } from "../store/loop-share.ts";
import type { HeldContents, LayOrder, WantedContent } from "../store/open-packs.ts";
import type { PackWriter } from "../store/pack-writer.ts";
import type { FileRange } from "./elf-start.ts";
import { type Bringer, Foreseen } from "./foresee.ts";
import { PythonPath } from "./python-path.ts";
import { type ViewFile, ViewFiles } from "./view-files.ts";

/** A layer of so little is fetched in one go, whatever its order. */
const ORDERED_MIN_BYTES = 512 * 1024;
/** Text and byte code that is looked at for it, at most: some 100 ms. What more of a package is imported lies with its other code. */
const TEXT_MAX_BYTES = 8 * 1024 * 1024;
/** Of a package of libraries; of a system's hundreds each program reads some. */
const LIBRARIES_MAX = 8;
/** What modules at the top import, of a package's code: with less it is one whose parts are imported one by one, as scipy's are. */
const SCANT_SHARE = 1 / 4;
/** Where a layer has a Python or its packages: conda's prefix and wheels', Debian's, images'. */
const PREFIXES = ["", "/usr", "/usr/local"];
/** What compiled code is linked with, whoever made it: what compilers bring along; then what Python's own extensions are, wherever that is. */
const RUN_TIME =
  "libc.so.6 libm.so.6 libstdc++.so.6 libgcc_s.so.1 libz.so.1 libgomp.so.1 libgfortran.so.5 libquadmath.so.0 libcrypto.so.3 libssl.so.3 libexpat.so.1 libffi.so.8 liblzma.so.5 libbz2.so.1.0 libuuid.so.1".split(
    " ",
  );
/** Of Python's library what programs and packages import most, themselves or by another of these. */
const COMMON_MODULES =
  "typing dataclasses collections.abc functools contextlib re json datetime pathlib logging subprocess tempfile threading inspect decimal random hashlib pickle ctypes shutil urllib.parse urllib.request ssl csv zipfile tarfile uuid platform concurrent.futures asyncio argparse textwrap copy struct base64 gzip bz2 lzma secrets sysconfig __future__ _strptime zoneinfo glob queue traceback warnings email.parser http.client importlib.metadata importlib.resources mmap".split(
    " ",
  );
/** What Python's sysconfig imports by a name that it puts together, whatever the machine. */
const BUILD_FACTS = /^_sysconfigdata_[\w-]*(?=\.py$)/;
/** What programs in the C locale, and modules that ask for the machine's name, read of a base. */
const COMMON_FOLDERS = ["/usr/lib/locale/C.utf8", "/usr/lib/locale/C.utf8/LC_MESSAGES"];
const COMMON_FILES = ["/usr/bin/uname"];
/** Behind all of one rank comes the next. */
const Rank = { code: 0, data: 1, source: 2, rare: 3 } as const;
/** Nothing that runs reads these: tests, what compilers and people read, and what installers do. */
const RARE = new RegExp(
  [
    "(^|/)(tests?|idlelib|turtledemo|lib2to3|ensurepip|tkinter|examples?|include|docs?|man|info|licenses?)/",
    "(^|/)(conda-meta|pkgconfig|cmake|[^/]*\\.(dist|egg)-info)/",
    "\\.(a|la|c|cc|cpp|h|hpp|pxd|pyx|pyi|md|rst|html|exe)$",
  ].join("|"),
);
const SYSTEM = /^\/usr\/lib\//;
const INSTALLED = /\/(?:site|dist)-packages\//;
const SHARED = /\.so(\.[0-9]+)*$/;
/** And what the C library and its linker read for most of them. */
const NATIVE = /\.so$|\.so\.[0-9.]+$|\/s?bin\/|\/ld\.so\.cache$|\/locale\/|\/gconv\//;
const CODE = /\.(pyc|so)$|\.so\.[0-9.]+$/;

/** Publishes a layer of these entries, whose content `writer` was given. `below`: what it is to lie over, where its code can't be found without. */
export async function finishLayer(
  writer: PackWriter,
  entries: readonly LayerEntry[],
  below?: Index,
): Promise<{ digest: Digest }> {
  const bytes = writeIndex(IndexKind.layer, entries);
  if (writer.heldBytes <= ORDERED_MIN_BYTES) return await writer.finish(bytes);
  const own = new Index(bytes);
  const index = below === undefined ? own : new Index(mergeIndexes([below, own]));
  return await writer.finish(bytes, await startOrder(entries, index, writer.held()));
}

/** Of the blobs that are held those of the layer, and what of large ones starts read. */
async function startOrder(
  entries: readonly LayerEntry[],
  index: Index,
  held: HeldContents,
): Promise<LayOrder> {
  const files = new ViewFiles([{ at: "/", index }]);
  const reads = new Reads(index, held);
  // All in one turn: what comes after what else is the same each time.
  const share = new LoopShare(Number.POSITIVE_INFINITY);
  const foreseen = new Foreseen(files, reads, share, TEXT_MAX_BYTES);
  for (const name of RUN_TIME) await foreseen.library(name, ["/lib"]);
  const inFolders = COMMON_FOLDERS.flatMap((at) => files.names(at).map((name) => `${at}/${name}`));
  for (const path of [...inFolders, ...COMMON_FILES]) {
    const file = files.file(path);
    if (file !== undefined) reads.bring(file, [{ offset: 0, end: file.size }]);
  }
  for (const prefix of PREFIXES) await foreseeAt(prefix, files, foreseen);
  // Others import its parts.
  if (reads.bytes < SCANT_SHARE * codeBytes(entries, held))
    for (const prefix of PREFIXES) await foreseeParts(prefix, files, foreseen);
  const { starts, system } = reads;
  return { starts, rest: [...system, ...ranked(entries, held)] };
}

/** Blobs, and of those that are cut the blocks. */
type Wanted = Map<Digest, Set<number> | undefined>;

/** Hears what is foreseen, in its order. */
class Reads implements Bringer {
  readonly #native: Wanted = new Map();
  readonly #other: Wanted = new Map();
  readonly #system: Wanted = new Map();
  /** Of what was read. */
  bytes = 0;
  readonly #index: Index;
  readonly #held: HeldContents;

  constructor(index: Index, held: HeldContents) {
    this.#index = index;
    this.#held = held;
  }

  /** Programs and libraries first: they are read by whatever lies in other layers, too. */
  get starts(): WantedContent[] {
    return [...this.#native, ...this.#other].map(([digest, blocks]) => ({ digest, blocks }));
  }

  /** Modules of a system's own Python, beside which environments bring theirs: only who runs it reads them. */
  get system(): Iterable<Digest> {
    return this.#system.keys();
  }

  async read(file: ViewFile, range: FileRange) {
    const { offset, end } = range;
    const digest = this.#note(file, [range]);
    // What extensions are linked with lies elsewhere, and to look at all of them is to expand most of their package again.
    const isExtension = file.path.endsWith(".so") && INSTALLED.test(file.path);
    return isExtension ? undefined : this.#held.read(digest, offset, end);
  }

  bring(file: ViewFile, ranges: readonly FileRange[]): void {
    this.#note(file, ranges);
  }

  #note({ row, path, size }: ViewFile, ranges: readonly FileRange[]): Digest {
    const digest = this.#index.blobDigest(row);
    const found = this.#groupOf(path);
    const isCut = size > BLOCK_DIGESTS_OVER_BYTES;
    const blocks = found.get(digest) ?? (isCut ? new Set<number>() : undefined);
    const before = blocks?.size ?? (found.has(digest) ? 1 : 0);
    found.set(digest, blocks);
    for (const { offset, end } of ranges) {
      const to = Math.min(end, size) / BLOCK_BYTES;
      for (let block = Math.floor(offset / BLOCK_BYTES); block < to; block++) blocks?.add(block);
    }
    const pieces = (blocks?.size ?? 1) - before;
    if (this.#held.has(digest)) this.bytes += pieces * (isCut ? BLOCK_BYTES : size);
    return digest;
  }

  #groupOf(path: string): Wanted {
    if (NATIVE.test(path)) return this.#native;
    return SYSTEM.test(path) ? this.#system : this.#other;
  }
}

/** Has all foreseen that starts of what is installed at a prefix may read, what most of them do first. */
async function foreseeAt(prefix: string, files: ViewFiles, foreseen: Foreseen): Promise<void> {
  const minors = PythonPath.minorsAt(files, prefix);
  if (minors.length === 0) await librariesAt(`${prefix}/lib`, files, foreseen);
  for (const minor of minors) {
    const program = `${prefix}/bin/python3.${minor}`;
    await foreseen.start({ program, path: [], cwd: "/", imports: [] });
    const path = PythonPath.at(files, prefix, minor);
    const installed = `${prefix}/lib/python3.${minor}/site-packages`;
    // Where wheels have the libraries that their extensions are linked with.
    for (const name of files
      .names(installed)
      .filter((each) => each.endsWith(".libs"))
      .sort())
      await librariesAt(`${installed}/${name}`, files, foreseen);
    const library = files.names(`${prefix}/lib/python3.${minor}`);
    const facts = library.flatMap((name) => BUILD_FACTS.exec(name)?.[0] ?? []);
    for (const name of [...COMMON_MODULES, ...facts, ...path.installed()])
      await foreseen.module(path, name);
  }
}

/** The same of the packages that are in installed ones. */
async function foreseeParts(prefix: string, files: ViewFiles, foreseen: Foreseen): Promise<void> {
  for (const minor of PythonPath.minorsAt(files, prefix)) {
    const path = PythonPath.at(files, prefix, minor);
    const parts = path.installed().flatMap((name) => path.packagesIn(name));
    for (const name of parts)
      if (!RARE.test(`/${name.replaceAll(".", "/")}/`)) await foreseen.module(path, name);
  }
}

/** Of the files that are code and are held, but for what is rarely read. */
function codeBytes(entries: readonly LayerEntry[], held: HeldContents): number {
  let bytes = 0;
  for (const entry of entries)
    if (entry.type === "file" && rankOf(entry.path) === Rank.code && held.has(entry.blob.digest))
      bytes += entry.blob.size;
  return bytes;
}

/** Who reads anything of a package of a few libraries reads these. */
async function librariesAt(folder: string, files: ViewFiles, foreseen: Foreseen): Promise<void> {
  const names = files.names(folder).filter((name) => SHARED.test(name));
  const found = new Set(names.map((name) => files.file(`${folder}/${name}`)?.path));
  if (found.size > LIBRARIES_MAX) return;
  for (const name of names.sort()) await foreseen.library(name, [folder]);
}

/** By what their paths tell, those of one kind in the order of their paths. */
function ranked(entries: readonly LayerEntry[], held: HeldContents): Digest[] {
  const found: { readonly rank: number; readonly path: string; readonly digest: Digest }[] = [];
  const codes = new Set<string>();
  for (const entry of entries) {
    if (entry.type !== "file" || !held.has(entry.blob.digest)) continue;
    const { path, blob } = entry;
    if (path.endsWith(".pyc")) codes.add(sourceOf(path));
    found.push({ rank: rankOf(path), path, digest: blob.digest });
  }
  const placed = found.map((each) =>
    codes.has(each.path) && each.rank < Rank.source ? { ...each, rank: Rank.source } : each,
  );
  placed.sort((a, b) => a.rank - b.rank || (a.path < b.path ? -1 : 1));
  return placed.map(({ digest }) => digest);
}

function rankOf(path: string): number {
  if (RARE.test(path)) return Rank.rare;
  return CODE.test(path) || path.endsWith(".py") ? Rank.code : Rank.data;
}

/** The text that byte code is of, where it stands beside it. */
function sourceOf(path: string): string {
  return path.replace(/__pycache__\/([^/]+)\.cpython-\d+(?:\.opt-\d)?\.pyc$/, "$1.py");
}
