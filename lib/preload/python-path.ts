// PythonPath: where an installed Python finds its modules, in a view: its library, site-packages, and which file it will read for a
// module's name. Control plane.
//
// Sources: CPython Modules/getpath.py (prefix by its landmark), Lib/site.py (site-packages; Debian's dist-packages), Lib/importlib/
// _bootstrap_external.py FileFinder (packages, then extensions, then source), Tools/build/freeze_modules.py (what 3.11 has in the program).

import { FORESEEN_NAME_MAX_CHARS } from "../base/limits.ts";
import type { ViewFiles } from "./view-files.ts";

/** The file that is read for a module. */
export interface PythonModule {
  /** Byte code where there is some, else the source; or an extension (.so). */
  readonly read: string;
  readonly source: string;
  readonly isPackage: boolean;
}

/** Names that are looked for: each costs some lookups, and a text may hold any number. */
const SEARCHED_MAX = 65_536;
/** Files that site reads of one directory. */
const CONFIGURATION_MAX = 64;
const LIBRARY = /^python3\.(\d{1,3})$/;
const FROZEN_SINCE = 11;
const FROZEN = new Set(
  "zipimport abc codecs io _collections_abc _sitebuiltins genericpath ntpath posixpath os site stat importlib.util importlib.machinery runpy".split(
    " ",
  ),
);
/** Imported before a program's first line. */
const START =
  "io abc codecs encodings encodings.aliases encodings.utf_8 site sitecustomize usercustomize";

export class PythonPath {
  readonly startModules: readonly string[] = START.split(" ");
  readonly #files: ViewFiles;
  readonly #minor: number;
  readonly #library: string;
  #roots: string[];
  readonly #found = new Map<string, PythonModule | undefined>();
  /** By directory: its names, by what comes before the first dot. */
  readonly #stems = new Map<string, Map<string, string[]>>();

  private constructor(files: ViewFiles, prefix: string, minor: number) {
    this.#files = files;
    this.#minor = minor;
    this.#library = `${prefix}/lib/python3.${minor}`;
    const third = [`${this.#library}/site-packages`, `${prefix}/lib/python3/dist-packages`];
    const local = `/usr/local/lib/python3.${minor}`;
    this.#roots = [
      this.#library,
      `${this.#library}/lib-dynload`,
      ...third,
      `${local}/dist-packages`,
    ].filter((each) => files.names(each).length > 0);
  }

  /** Of the interpreter at a path, whose own name may tell its version, else `real`, what it is a link to; undefined where its library isn't beside it. */
  static of(files: ViewFiles, program: string, real = program): PythonPath | undefined {
    const prefix = program.replace(/\/[^/]*\/[^/]*$/, "");
    const minors = PythonPath.minorsAt(files, prefix).filter(
      (minor) => files.file(`${prefix}/lib/python3.${minor}/os.py`) !== undefined,
    );
    const named = [program, real].map((each) => Number(/python3\.(\d{1,3})$/.exec(each)?.[1]));
    const newest = minors.sort((a, b) => a - b).at(-1);
    const minor = named.find((each) => minors.includes(each)) ?? newest;
    return minor === undefined ? undefined : new PythonPath(files, prefix, minor);
  }

  /** Of the versions that have something at a prefix what comes behind "3.", in byte order. */
  static minorsAt(files: ViewFiles, prefix: string): number[] {
    const names = files.names(`${prefix}/lib`);
    return names
      .flatMap((name) => LIBRARY.exec(name)?.[1] ?? [])
      .sort()
      .map(Number);
  }

  /** Of what is installed at a prefix for a version, whether its library is there or not. */
  static at(files: ViewFiles, prefix: string, minor: number): PythonPath {
    return new PythonPath(files, prefix, minor);
  }

  /** Names of the modules and packages that a program can import and that the library hasn't, in byte order. */
  installed(): string[] {
    const own = this.#roots.filter((root) => /\/(?:site|dist)-packages$/.test(root));
    const stems = own.flatMap((root) => [...this.#stemsOf(root).keys()]);
    return [...new Set(stems)].sort().filter((name) => this.find(name) !== undefined);
  }

  /** Names of the packages that lie in an installed one, in byte order. */
  packagesIn(name: string): string[] {
    const { isPackage, source } = this.find(name) ?? { isPackage: false, source: "" };
    if (!isPackage) return [];
    const stems = [...this.#stemsOf(source.slice(0, source.lastIndexOf("/"))).keys()];
    const names = stems.sort().map((stem) => `${name}.${stem}`);
    return names.filter((each) => this.find(each)?.isPackage === true);
  }

  /** The directory of the program, where modules are looked for first. */
  prepend(folder: string): void {
    this.#roots = [folder, ...this.#roots];
  }

  /** Files that site reads. */
  get configuration(): string[] {
    return this.#roots.flatMap((root) =>
      this.#files
        .names(root)
        .filter((name) => name.endsWith(".pth"))
        .slice(0, CONFIGURATION_MAX)
        .map((name) => `${root}/${name}`),
    );
  }

  /** What is read for a module; undefined of what is built in, or isn't there, or has no file. */
  find(module: string): PythonModule | undefined {
    const known = this.#found.get(module);
    if (known !== undefined || this.#found.has(module)) return known;
    if (this.#found.size >= SEARCHED_MAX || module.length > FORESEEN_NAME_MAX_CHARS)
      return undefined;
    const found = this.#search(module);
    this.#found.set(module, found);
    return found;
  }

  #search(module: string): PythonModule | undefined {
    if (this.#minor >= FROZEN_SINCE && FROZEN.has(module)) return undefined;
    const names = module.split(".");
    const last = names.pop()!;
    const below = names.map((name) => `/${name}`).join("");
    for (const root of this.#roots) {
      const found = this.#findIn(`${root}${below}`, last);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #findIn(folder: string, name: string): PythonModule | undefined {
    const names = this.#stemsOf(folder).get(name);
    if (names === undefined) return undefined;
    if (names.includes(name)) {
      const found = this.#fileIn(`${folder}/${name}`, "__init__");
      if (found !== undefined) return { ...found, isPackage: true };
    }
    return this.#fileIn(folder, name);
  }

  #fileIn(folder: string, name: string): PythonModule | undefined {
    const names = this.#stemsOf(folder).get(name) ?? [];
    const extension = names.find((each) => this.#isExtension(each.slice(name.length)));
    const as = (read: string, source = read) => ({ read, source, isPackage: false });
    if (extension !== undefined) return as(`${folder}/${extension}`);
    const source = `${folder}/${name}.py`;
    if (!names.includes(`${name}.py`)) {
      return names.includes(`${name}.pyc`) ? as(`${folder}/${name}.pyc`) : undefined;
    }
    const code = `${folder}/__pycache__/${name}.cpython-3${this.#minor}.pyc`;
    return as(this.#files.file(code) === undefined ? source : code, source);
  }

  /** importlib.machinery.EXTENSION_SUFFIXES, of any machine. */
  #isExtension(suffix: string): boolean {
    if (suffix === ".so" || suffix === ".abi3.so") return true;
    return suffix.startsWith(`.cpython-3${this.#minor}-`) && suffix.endsWith(".so");
  }

  #stemsOf(folder: string): Map<string, string[]> {
    const known = this.#stems.get(folder);
    if (known !== undefined) return known;
    const stems = new Map<string, string[]>();
    for (const name of this.#files.names(folder)) {
      const dot = name.indexOf(".", 1);
      const stem = dot < 0 ? name : name.slice(0, dot);
      const names = stems.get(stem);
      if (names === undefined) stems.set(stem, [name]);
      else names.push(name);
    }
    this.#stems.set(folder, stems);
    return stems;
  }
}
