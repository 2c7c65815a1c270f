// What a package says of itself in info/: index.json, paths.json (or the older files and has_prefix) and link.json. Everything
// is checked field by field and nothing is believed of the bytes: import.ts holds them against it. Control plane.

import type { BurrowError } from "../../base/error.ts";
import { ARCHIVE_ENTRIES_MAX } from "../../base/limits.ts";
import { nameOf } from "../../base/name.ts";
import { plainPath, Refusal } from "../entry-tree.ts";
import { hasOver } from "../marks.ts";
import { badPackage } from "./errors.ts";
import type { FileMode, Placeholder } from "./prefix.ts";

/** The files of info/ that decide how a package is linked. */
export const METADATA_FILES: ReadonlySet<string> = new Set([
  "info/index.json",
  "info/paths.json",
  "info/files",
  "info/has_prefix",
  "info/link.json",
  "info/package_metadata.json",
]);

export interface IndexJson {
  readonly name: string;
  readonly version: string;
  readonly build: string;
  readonly buildNumber: number;
  readonly subdir: string;
  readonly depends: readonly string[];
  readonly constrains: readonly string[];
  readonly license?: string;
  readonly licenseFamily?: string;
  /** How one archive serves all platforms; undefined for a package of one platform. */
  readonly noarch?: "python" | "generic";
  /** Of a python package that says where it looks for packages (free-threaded builds do). Latin1. */
  readonly sitePackages?: string;
}

export type PathType = "hardlink" | "softlink" | "directory" | "unknown";

/** One path that the package wants linked. */
export interface ListedPath {
  /** Plain latin1 path as in the archive. */
  readonly path: string;
  readonly type: PathType;
  readonly sha256?: string;
  readonly size?: number;
  readonly placeholder?: Placeholder;
}

export interface PackageMetadata {
  readonly index: IndexJson;
  /** In the package's order, each path once. */
  readonly paths: readonly ListedPath[];
  /** Entry points "NAME = MODULE:FUNCTION" of a noarch: python package. */
  readonly entryPoints: readonly string[];
}

/** conda's default of before 2016, for has_prefix lines that name none. conda/base/constants.py PREFIX_PLACEHOLDER. */
const OLD_PLACEHOLDER = "/opt/anaconda1anaconda2anaconda3";
const HEX_64 = /^[0-9a-f]{64}$/;
const FIELD = /^[^\s/\0-\x1f\x7f]+$/;

type Json = Readonly<Record<string, unknown>>;

/** Whether these files are enough to link by; more may still come, but no package needs others. */
export function isComplete(files: ReadonlyMap<string, Uint8Array>): boolean {
  return files.has("info/index.json") && (files.has("info/paths.json") || files.has("info/files"));
}

/** Reads the metadata out of the bytes of METADATA_FILES. BURROW_BAD_PACKAGE naming the package and the file. */
export function readMetadata(
  files: ReadonlyMap<string, Uint8Array>,
  archive: string,
): PackageMetadata {
  const reader = new Reader(files, archive);
  const index = reader.index();
  return { index, paths: reader.paths(), entryPoints: reader.entryPoints() };
}

/** The facts of info/index.json alone. BURROW_BAD_PACKAGE. */
export function readIndexJson(bytes: Uint8Array, archive: string): IndexJson {
  return new Reader(new Map([["info/index.json", bytes]]), archive).index();
}

class Reader {
  readonly #files: ReadonlyMap<string, Uint8Array>;
  readonly #archive: string;

  constructor(files: ReadonlyMap<string, Uint8Array>, archive: string) {
    this.#files = files;
    this.#archive = archive;
  }

  index(): IndexJson {
    const file = "info/index.json";
    const json = this.#json(file);
    if (json === undefined) throw this.#bad(file, "the package has none");
    const text = (key: string) => this.#text(json, key, file);
    const build = json["build"] === undefined ? text("build_string") : text("build");
    const strings = (key: string) => this.#strings(json, key, file);
    const noarch = json["noarch"];
    const number = json["build_number"] ?? 0;
    if (typeof number !== "number" || !Number.isSafeInteger(number) || number < 0) {
      throw this.#bad(file, "its build_number is no number");
    }
    const site = json["python_site_packages_path"];
    return {
      name: text("name"),
      version: text("version"),
      build,
      buildNumber: number,
      subdir: this.#subdir(json, file),
      depends: strings("depends"),
      constrains: strings("constrains"),
      ...(typeof json["license"] === "string" ? { license: json["license"] } : {}),
      ...(typeof json["license_family"] === "string"
        ? { licenseFamily: json["license_family"] }
        : {}),
      ...this.#noarch(noarch),
      ...(typeof site === "string" ? { sitePackages: this.#path(site, file) } : {}),
    };
  }

  /** Old packages have platform and arch instead. conda/models/records.py SubdirField. */
  #subdir(json: Json, file: string): string {
    if (typeof json["subdir"] === "string") return this.#text(json, "subdir", file);
    if (json["noarch"]) return "noarch";
    if (typeof json["platform"] !== "string") return "linux-64";
    const platform = this.#text(json, "platform", file);
    const arch = typeof json["arch"] === "string" ? this.#text(json, "arch", file) : "x86_64";
    return `${platform}-${arch === "x86_64" ? "64" : arch === "x86" ? "32" : arch}`;
  }

  /** true is what generic was called before it had a name. conda/models/enums.py NoarchType. */
  #noarch(value: unknown): { noarch?: "python" | "generic" } {
    if (value === undefined || value === null || value === false) return {};
    if (value === "python") return { noarch: value };
    if (value === "generic" || value === true) return { noarch: "generic" };
    throw this.#bad("info/index.json", `noarch "${String(value)}" is not known`);
  }

  paths(): ListedPath[] {
    const json = this.#json("info/paths.json");
    const listed = json === undefined ? this.#oldPaths() : this.#pathsJson(json);
    const known = new Map<string, ListedPath>();
    for (const one of listed) {
      if (known.has(one.path)) throw this.#bad("its list of files", "a path twice", one.path);
      known.set(one.path, one);
    }
    return listed.filter(({ path }) => path !== "info" && !path.startsWith("info/"));
  }

  #pathsJson(json: Json): ListedPath[] {
    const file = "info/paths.json";
    const version = json["paths_version"] ?? 1;
    if (version !== 1) throw this.#bad(file, `its version is ${String(version)}, not 1`);
    const paths = json["paths"];
    if (!Array.isArray(paths)) throw this.#bad(file, "it has no list of paths");
    return paths.map((value: unknown) => {
      if (!isObject(value)) throw this.#bad(file, "a path that is no object");
      const path = this.#path(value["_path"], file);
      const type = value["path_type"] ?? "hardlink";
      if (type !== "hardlink" && type !== "softlink" && type !== "directory") {
        throw this.#bad(file, `path_type "${String(type)}" is not known`, path);
      }
      const { sha256, size_in_bytes: size } = value;
      if (sha256 !== undefined && sha256 !== null && !isHash(sha256)) {
        throw this.#bad(file, "a sha256 that is none", path);
      }
      if (size !== undefined && size !== null && !isSize(size)) {
        throw this.#bad(file, "a size that is none", path);
      }
      return {
        path,
        type,
        ...(isHash(sha256) ? { sha256 } : {}),
        ...(isSize(size) ? { size } : {}),
        ...this.#placeholder(value["prefix_placeholder"], value["file_mode"], file, path),
      };
    });
  }

  #placeholder(
    text: unknown,
    mode: unknown,
    file: string,
    path: string,
  ): { placeholder?: Placeholder } {
    if (text === undefined || text === null || text === "") return {};
    if (typeof text !== "string" || text.includes("\0") || text.includes("\n")) {
      throw this.#bad(file, "a prefix_placeholder that is none", path);
    }
    if (!isMode(mode ?? "text")) {
      throw this.#bad(file, `file_mode "${String(mode)}" is not known`, path);
    }
    return { placeholder: { text, mode: isMode(mode) ? mode : "text" } };
  }

  /** Packages from before conda-build 2: a list of paths, and one of those with a placeholder. */
  #oldPaths(): ListedPath[] {
    if (!this.#files.has("info/files")) throw this.#bad("info/files", "the package has none");
    const placeholders = new Map<string, Placeholder>();
    for (const line of this.#lines("info/has_prefix")) {
      const words = wordsOf(line);
      const isLong = words.length === 3 && isMode(words[1]);
      if (!isLong && words.length !== 1) throw this.#bad("info/has_prefix", "a line that is none");
      const [text, mode, name] = isLong ? words : [OLD_PLACEHOLDER, "text", words[0]];
      const path = this.#path(name, "info/has_prefix");
      const placeholder = this.#placeholder(text, mode, "info/has_prefix", path).placeholder;
      if (placeholder !== undefined) placeholders.set(path, placeholder);
    }
    const paths = new Set(this.#lines("info/files").map((line) => this.#path(line, "info/files")));
    return [...paths].map((path) => {
      const placeholder = placeholders.get(path);
      return { path, type: "unknown", ...(placeholder === undefined ? {} : { placeholder }) };
    });
  }

  entryPoints(): string[] {
    const file = this.#files.has("info/link.json")
      ? "info/link.json"
      : "info/package_metadata.json";
    const noarch = this.#json(file)?.["noarch"];
    return isObject(noarch) ? this.#strings(noarch, "entry_points", file) : [];
  }

  #lines(file: string): string[] {
    const bytes = this.#files.get(file);
    if (bytes === undefined) return [];
    if (hasOver(ARCHIVE_ENTRIES_MAX, bytes, "\n")) throw this.#bad(file, "it has too many lines");
    const lines = Buffer.from(bytes).toString("utf8").split("\n");
    return lines.map((line) => line.trim()).filter((line) => line !== "" && !line.startsWith("#"));
  }

  #json(file: string): Json | undefined {
    const bytes = this.#files.get(file);
    if (bytes === undefined) return undefined;
    // "[[[[…" or "{},{},…" of some MiB would become GiB of objects: a few hundred bytes of archive.
    if (hasOver(ARCHIVE_ENTRIES_MAX, bytes, "{", "["))
      throw this.#bad(file, "it has too many values");
    let value: unknown;
    try {
      value = JSON.parse(
        Buffer.from(bytes)
          .toString("utf8")
          .replace(/^\ufeff/, ""),
      );
    } catch (cause) {
      throw this.#bad(file, "it is no JSON", undefined, cause);
    }
    if (!isObject(value)) throw this.#bad(file, "it is no JSON object");
    return value;
  }

  /** A field that goes into file names and reports. */
  #text(json: Json, key: string, file: string): string {
    const value = json[key];
    if (typeof value === "string" && FIELD.test(value) && !/^\.{1,2}$/.test(value)) return value;
    throw this.#bad(file, `its ${key} is missing or not allowed`);
  }

  #strings(json: Json, key: string, file: string): string[] {
    const value = json[key] ?? [];
    if (!Array.isArray(value)) throw this.#bad(file, `its ${key} is no list`);
    return value.map((one: unknown) => {
      if (typeof one !== "string") throw this.#bad(file, `its ${key} has what is no text`);
      return one;
    });
  }

  #path(value: unknown, file: string): string {
    const path =
      typeof value === "string" ? plainPath(nameOf(value)) : new Refusal("it is no text");
    if (typeof path === "string" && path !== "") return path;
    const why = path instanceof Refusal ? path.why : "it is empty";
    throw this.#bad(file, `a path is not allowed: ${why}`, String(value));
  }

  #bad(file: string, why: string, path?: string, cause?: unknown): BurrowError {
    return badPackage(this.#archive, `${file}: ${why}`, path, cause);
  }
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isHash(value: unknown): value is string {
  return typeof value === "string" && HEX_64.test(value);
}

function isSize(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function isMode(value: unknown): value is FileMode {
  return value === "text" || value === "binary";
}

/** A line's words as a shell would part them: quotes hold blanks together. */
function wordsOf(line: string): string[] {
  const words = line.match(/"[^"]*"|'[^']*'|[^\s"']+/g) ?? [];
  return words.map((word) => (/^["']/.test(word) ? word.slice(1, -1) : word));
}
