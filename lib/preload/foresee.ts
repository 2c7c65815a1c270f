// Foresee: what a command will read when it starts, by looking at its files as its interpreter and the dynamic linker will: Python's start,
// the modules that its program imports and those that these import, shared libraries by DT_NEEDED. What is looked at is what will be read,
// so looking costs no byte that isn't wanted; only what is imported under a condition is fetched in vain. docs/design/0024-foresight.md.
// Control plane.

import {
  FORESEEN_ALL_IMPORTS_MAX,
  FORESEEN_ALL_NEEDS_MAX,
  FORESEEN_ALL_TEXT_MAX_BYTES,
  FORESEEN_FILES_MAX,
  FORESEEN_LIBRARY_MAX_BYTES,
  FORESEEN_NAME_MAX_CHARS,
  FORESEEN_PROGRAM_MAX_BYTES,
  FORESEEN_TEXT_MAX_BYTES,
} from "../base/limits.ts";
import type { LoopShare } from "../store/loop-share.ts";
import { ELF_TEXT_MAX_BYTES, elfHead, elfNeeds, elfText, type FileRange } from "./elf-start.ts";
import { importsOfCode } from "./python-code.ts";
import { PythonPath } from "./python-path.ts";
import { importsOfText, type PythonImport } from "./python-text.ts";
import type { Start } from "./start.ts";
import type { ViewFile, ViewFiles } from "./view-files.ts";

/** Has files here. Of both nobody else may be hurt by what fails. */
export interface Bringer {
  /** A range of a file, as far as the file goes; undefined where it can't be had. */
  read(file: ViewFile, range: FileRange): Promise<Buffer | undefined>;
  /** Ranges that are wanted, too, and looked at by nobody here. */
  bring(file: ViewFile, ranges: readonly FileRange[]): void;
}

/** Paths that are looked at in one part of a turn. */
const LOOKS_AT_ONCE = 16;
const ELF_HEAD_BYTES = 4_096;
const DYNAMIC_MAX_BYTES = 16 * 1_024;
/** Directories of RPATH and RUNPATH that a library is looked for in, and their characters in all: builds have a handful. */
const FOLDERS_MAX = 64;
const FOLDERS_MAX_CHARS = 8_192;
/** Where ld.so looks when nothing else is said: ld.so(8), and Debian's directories. */
const LIBRARY_FOLDERS = ["x86_64", "aarch64"]
  .flatMap((arch) => [`/lib/${arch}-linux-gnu`, `/usr/lib/${arch}-linux-gnu`])
  .concat("/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib");
/** What the C library and its linker read for most programs. */
const COMMON = [
  "/etc/ld.so.cache",
  "/usr/lib/locale/C.utf8/LC_CTYPE",
  "/usr/lib/x86_64-linux-gnu/gconv/gconv-modules.cache",
];
const SHEBANG = /^#!\s*(\S+)(?:[ \t]+(\S+))?/;
const PYTHON = /^python(?:3(?:\.\d+)?)?$/;
/** Interpreters of interpreters, at most: as Linux. execve(2) */
const SHEBANGS_MAX = 4;

/** Has what a start will read brought, in about the order in which it will; resolves when nothing is left to be looked at. Rejects never. */
export async function foresee(
  start: Start,
  files: ViewFiles,
  bringer: Bringer,
  share: LoopShare,
): Promise<void> {
  await new Foreseen(files, bringer, share).start(start);
}

/** What is read of a view, looked for bit by bit: no file twice. */
export class Foreseen {
  readonly #files: ViewFiles;
  readonly #bringer: Bringer;
  readonly #share: LoopShare;
  readonly #seen = new Set<string>();
  readonly #modules = new Set<string>();
  /** Bytes that may yet be looked at; names that may yet be found in them, of modules and of libraries. */
  #textLeft: number;
  #importsLeft = FORESEEN_ALL_IMPORTS_MAX;
  #needsLeft = FORESEEN_ALL_NEEDS_MAX;

  constructor(
    files: ViewFiles,
    bringer: Bringer,
    share: LoopShare,
    textBytes = FORESEEN_ALL_TEXT_MAX_BYTES,
  ) {
    this.#textLeft = textBytes;
    this.#files = files;
    this.#bringer = bringer;
    this.#share = share;
  }

  /** What a start reads. */
  async start(start: Start): Promise<void> {
    const program = await this.#find(start, start.program);
    if (program === undefined) return;
    for (const path of COMMON) this.#bringAll(path);
    await this.#run(start, program, SHEBANGS_MAX);
  }

  /** A program at a path, or by its name in PATH. */
  async #find(start: Start, program: string): Promise<string | undefined> {
    const folders = program.includes("/")
      ? [parentOf(absolute(start.cwd, program))]
      : start.path.map((folder) => absolute(start.cwd, folder));
    return await this.#firstFile(folders, baseOf(program));
  }

  async #run(start: Start, program: string, scriptsLeft: number): Promise<void> {
    const file = this.#files.file(program);
    if (file === undefined) return;
    if (PYTHON.test(baseOf(program)) || PYTHON.test(baseOf(file.path))) {
      await Promise.all([this.#elf(file, program, [], true), this.#python(start, program)]);
      return;
    }
    const head = await this.#bringer.read(file, { offset: 0, end: ELF_HEAD_BYTES });
    const [, interpreter, argument] = SHEBANG.exec(head?.toString("latin1", 0, 512) ?? "") ?? [];
    if (interpreter === undefined) return await this.#elf(file, program, [], true);
    if (scriptsLeft === 0) return;
    const isEnv = baseOf(interpreter) === "env" && argument !== undefined;
    const found = await this.#find(start, isEnv ? argument : interpreter);
    if (found === undefined) return;
    const next = PYTHON.test(baseOf(found)) ? { ...start, script: program, imports: [] } : start;
    await this.#run(next, found, scriptsLeft - 1);
  }

  async #python(start: Start, program: string): Promise<void> {
    const real = this.#files.file(program)?.path ?? program;
    const path = PythonPath.of(this.#files, program, real) ?? PythonPath.of(this.#files, real);
    if (path === undefined) return;
    const script = start.script === undefined ? undefined : absolute(start.cwd, start.script);
    path.prepend(
      script === undefined ? start.cwd : parentOf(this.#files.file(script)?.path ?? script),
    );
    for (const each of path.configuration) this.#bringAll(each);
    const startUp = path.startModules.map((name) => this.module(path, name));
    const own = start.imports.map((name) => this.module(path, name));
    await Promise.all([...startUp, ...own, this.#script(path, script)]);
  }

  async #script(path: PythonPath, script: string | undefined): Promise<void> {
    const file = script === undefined ? undefined : this.#files.file(script);
    if (file === undefined) return;
    const content = await this.#whole(file);
    if (content === undefined) return;
    await this.#imports(path, this.#counted(await this.#importsOfText(content)), "");
  }

  /** A module by its absolute name, and the packages that it is in. */
  async module(path: PythonPath, name: string): Promise<void> {
    if (this.#modules.has(name) || this.#modules.size >= FORESEEN_FILES_MAX) return;
    if (name.length > FORESEEN_NAME_MAX_CHARS) return;
    this.#modules.add(name);
    const dot = name.lastIndexOf(".");
    const parent = dot < 0 ? undefined : this.module(path, name.slice(0, dot));
    const found = await this.#share.run(() => path.find(name));
    const own = found === undefined ? undefined : this.#look(path, name, found);
    await Promise.all([parent, own]);
  }

  async #look(path: PythonPath, name: string, { read, source, isPackage }: FoundModule) {
    const file = this.#files.file(read);
    if (file === undefined || this.#isSeen(file)) return;
    if (read.endsWith(".so")) return await this.#elf(file, read, [], false, true);
    const content = await this.#whole(file);
    // It is read, whether it can be looked at or not.
    if (content === undefined) return this.#bringer.bring(file, [{ offset: 0, end: file.size }]);
    const parent = name.slice(0, Math.max(0, name.lastIndexOf(".")));
    const found = await this.#importsOf(read, source, content);
    await this.#imports(path, this.#counted(found), isPackage ? name : parent);
  }

  /** The first of them, as many as may yet be found: thousands of files that wait for each other each hold their own. */
  #counted(found: readonly PythonImport[]): readonly PythonImport[] {
    const end = found.findIndex(({ names }) => {
      this.#importsLeft -= 1 + names.length;
      return this.#importsLeft < 0;
    });
    return end < 0 ? found : found.slice(0, end);
  }

  #importsOfText(text: Buffer): Promise<PythonImport[]> {
    return this.#share.run(() => importsOfText(text.toString()));
  }

  async #importsOf(read: string, source: string, content: Buffer): Promise<PythonImport[]> {
    if (!read.endsWith(".pyc")) return await this.#importsOfText(content);
    const found = await this.#share.run(() => importsOfCode(content));
    if (found !== undefined || source === read) return found ?? [];
    // Code of a version that can't be read here: its text is.
    const file = this.#files.file(source);
    const text = file && (await this.#whole(file));
    return text === undefined ? [] : await this.#importsOfText(text);
  }

  async #imports(path: PythonPath, found: readonly PythonImport[], home: string): Promise<void> {
    const named = ({ level, module, names }: PythonImport) => {
      const from = level === 0 ? module : relative(home, level, module);
      if (from === undefined) return [];
      // What a module that is no package gives is none.
      const isPackage = path.find(from)?.isPackage !== false;
      return [from, ...(isPackage ? names.map((each) => `${from}.${each}`) : [])];
    };
    const all = await Promise.all(found.map((each) => this.#share.run(() => named(each))));
    await Promise.all(all.flat().map((name) => this.module(path, name)));
  }

  /** A program or library, and what it is linked with; `isKnown`: it was seen to be new already. */
  async #elf(
    file: ViewFile,
    path: string,
    paths: readonly string[],
    isProgram: boolean,
    isKnown = false,
  ) {
    if (!isKnown && this.#isSeen(file)) return;
    const { names, folders } = await this.#linked(file, path, isProgram);
    const searched = firstOf([...new Set([...folders, ...paths])]);
    await Promise.all(names.map((name) => this.library(name, searched)));
  }

  /** What a program or library is linked with, and where it says that this is looked for. No byte of it is held after that. */
  async #linked(file: ViewFile, path: string, isProgram: boolean): Promise<Linked> {
    const mostBytes = isProgram ? FORESEEN_PROGRAM_MAX_BYTES : FORESEEN_LIBRARY_MAX_BYTES;
    const isWhole = file.size <= mostBytes;
    if (isWhole) this.#bringer.bring(file, [{ offset: 0, end: file.size }]);
    const start = await this.#bringer.read(file, { offset: 0, end: ELF_HEAD_BYTES });
    const head = start && elfHead(start);
    if (head?.dynamic === undefined) return NOTHING_LINKED;
    const { offset, end } = head.dynamic;
    const range = { offset, end: Math.min(end, offset + DYNAMIC_MAX_BYTES) };
    const dynamic = await this.#bringer.read(file, range);
    if (dynamic === undefined) return NOTHING_LINKED;
    const needs = elfNeeds(head, dynamic);
    if (!isWhole) this.#bringer.bring(file, needs.loaded);
    const needed = needs.needed.slice(0, this.#needsLeft);
    this.#needsLeft -= needed.length;
    const [own = "", ...names] = await Promise.all(
      [needs.paths, ...needed].map((each) => this.#text(file, each)),
    );
    const origin = [parentOf(path), parentOf(file.path)];
    const said = own.split(":").filter((each) => each !== "");
    const folders = said.flatMap((each) =>
      origin.map((at) => each.replace(/\$\{?ORIGIN\}?/, () => at)),
    );
    const interpreter = await this.#text(file, head.interpreter, ELF_TEXT_MAX_BYTES);
    if (interpreter !== "") this.#bringAll(interpreter);
    return { names, folders: firstOf(folders) };
  }

  /** A shared library by its name, looked for in `paths` and where the linker does. */
  async library(name: string, paths: readonly string[]): Promise<void> {
    if (name === "" || name.includes("/")) return;
    const path = await this.#firstFile([...paths, ...LIBRARY_FOLDERS], name);
    if (path === undefined) return;
    await this.#elf(this.#files.file(path)!, path, paths, false);
  }

  async #text(file: ViewFile, range: FileRange | undefined, mostBytes = Infinity): Promise<string> {
    if (range === undefined || range.end - range.offset > mostBytes) return "";
    const bytes = await this.#bringer.read(file, range);
    return bytes === undefined ? "" : elfText(bytes);
  }

  async #whole(file: ViewFile): Promise<Buffer | undefined> {
    if (file.size > FORESEEN_TEXT_MAX_BYTES || file.size > this.#textLeft) return undefined;
    this.#textLeft -= file.size;
    return await this.#bringer.read(file, { offset: 0, end: file.size });
  }

  #bringAll(path: string): void {
    const file = this.#files.file(path);
    if (file !== undefined && file.size <= FORESEEN_LIBRARY_MAX_BYTES && !this.#isSeen(file))
      this.#bringer.bring(file, [{ offset: 0, end: file.size }]);
  }

  /** The first of `folders` that has a file of this name: its path there. */
  async #firstFile(folders: readonly string[], name: string): Promise<string | undefined> {
    for (let i = 0; i < folders.length; i += LOOKS_AT_ONCE) {
      const isFile = (path: string) => this.#files.file(path) !== undefined;
      const tried = () => folders.slice(i, i + LOOKS_AT_ONCE).map((each) => `${each}/${name}`);
      const found = await this.#share.run(() => tried().find(isFile));
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** Whether a file was come by before, or there have been too many. */
  #isSeen({ snapshot, row }: ViewFile): boolean {
    const key = `${snapshot} ${row}`;
    if (this.#seen.has(key) || this.#seen.size >= FORESEEN_FILES_MAX) return true;
    this.#seen.add(key);
    return false;
  }
}

/** Of an ELF file: names of libraries, and directories in which they are looked for. */
interface Linked {
  readonly names: readonly string[];
  readonly folders: readonly string[];
}

const NOTHING_LINKED: Linked = { names: [], folders: [] };

/** As many directories as are looked in. */
function firstOf(folders: readonly string[]): string[] {
  let chars = 0;
  return folders.slice(0, FOLDERS_MAX).filter((each) => {
    chars += each.length;
    return chars <= FOLDERS_MAX_CHARS;
  });
}

type FoundModule = NonNullable<ReturnType<PythonPath["find"]>>;

/** The module that a relative import in package `home` names; undefined beyond the top. */
function relative(home: string, level: number, module: string): string | undefined {
  const names = home === "" ? [] : home.split(".");
  if (level > names.length) return undefined;
  const base = names.slice(0, names.length - level + 1);
  return [...base, ...(module === "" ? [] : [module])].join(".");
}

function absolute(cwd: string, path: string): string {
  return path.startsWith("/") ? path : `${cwd === "/" ? "" : cwd}/${path}`;
}

function baseOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf("/")));
}
