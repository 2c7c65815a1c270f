// A conda package's metadata: info/index.json, paths.json or the older files and has_prefix, link.json. Checked field by field,
// since an archive is hostile until shown otherwise. CEP "Package format"; conda models. Control plane.

import { BurrowError } from "../../base/error.ts";
import { checkName, nameOf } from "../../base/name.ts";
import type { FileMode } from "./prefix.ts";

/** conda: the placeholder of packages that name none in has_prefix. */
const DEFAULT_PLACEHOLDER = "/opt/anaconda1anaconda2anaconda3";

export interface PathRecord {
  /** Path in the archive, latin1. */
  readonly path: string;
  readonly type: "hardlink" | "softlink" | "directory";
  readonly sha256?: string;
  readonly size?: number;
  readonly placeholder?: string;
  readonly mode?: FileMode;
}

export interface EntryPoint {
  readonly command: string;
  readonly module: string;
  readonly attribute: string;
}

export interface CondaMetadata {
  readonly name: string;
  readonly version: string;
  readonly build: string;
  readonly buildNumber: number;
  readonly subdir: string;
  readonly noarch: "python" | "generic" | undefined;
  readonly depends: readonly string[];
  readonly constrains: readonly string[];
  readonly license: string | undefined;
  /** What is linked, by archive path; undefined: everything, as in packages without paths.json and files. */
  readonly paths: ReadonlyMap<string, PathRecord> | undefined;
  readonly entryPoints: readonly EntryPoint[];
  /** index.json as it came. */
  readonly index: Readonly<Record<string, unknown>>;
}

type Fields = Readonly<Record<string, unknown>>;

class Reader {
  readonly #archive: string;
  readonly #files: ReadonlyMap<string, Buffer>;

  constructor(archive: string, files: ReadonlyMap<string, Buffer>) {
    this.#archive = archive;
    this.#files = files;
  }

  bad(file: string, why: string, cause?: unknown): BurrowError {
    return new BurrowError("BURROW_BAD_PACKAGE", why, {
      cause,
      context: { archive: this.#archive, file },
    });
  }

  json(file: string): Fields | undefined {
    const bytes = this.#files.get(file);
    if (bytes === undefined) return undefined;
    let value: unknown;
    try {
      value = JSON.parse(bytes.toString("utf8"));
    } catch (cause) {
      throw this.bad(file, "it is no JSON", cause);
    }
    if (isFields(value)) return value;
    throw this.bad(file, "it is no object");
  }

  lines(file: string): string[] | undefined {
    const text = this.#files.get(file)?.toString("utf8");
    return text
      ?.split(/\r?\n/)
      .map((line) => line.trim())
      .filter((line) => line !== "");
  }

  text(fields: Fields, name: string, file: string): string {
    const value = fields[name];
    if (typeof value === "string" && value !== "" && !/[\0/]/.test(value)) return value;
    throw this.bad(file, `${name} is no name`);
  }
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function texts(value: unknown): string[] {
  return Array.isArray(value)
    ? value.filter((each): each is string => typeof each === "string")
    : [];
}

/** The metadata in the files of info/. BURROW_BAD_PACKAGE naming archive and file. */
export function readCondaMetadata(
  archive: string,
  files: ReadonlyMap<string, Buffer>,
): CondaMetadata {
  const reader = new Reader(archive, files);
  const file = "info/index.json";
  const index = reader.json(file);
  if (index === undefined) throw reader.bad(file, "the package has no index.json");
  const link = reader.json("info/link.json");
  const noarch = noarchOf(index, link);
  const number = index["build_number"];
  const license = index["license"];
  return {
    name: reader.text(index, "name", file),
    version: reader.text(index, "version", file),
    build: typeof index["build"] === "string" ? reader.text(index, "build", file) : "0",
    buildNumber: typeof number === "number" ? number : 0,
    subdir: typeof index["subdir"] === "string" ? index["subdir"] : noarch ? "noarch" : "linux-64",
    noarch,
    depends: texts(index["depends"]),
    constrains: texts(index["constrains"]),
    license: typeof license === "string" ? license : undefined,
    paths: readPaths(reader) ?? readOldPaths(reader),
    entryPoints: noarch === "python" ? readEntryPoints(reader, link) : [],
    index,
  };
}

/** index.json says "python" or "generic"; the oldest say true and leave it to link.json. */
function noarchOf(index: Fields, link: Fields | undefined): "python" | "generic" | undefined {
  const linked = isFields(link?.["noarch"]) ? link["noarch"]["type"] : undefined;
  const value = linked ?? index["noarch"];
  if (value === "python") return "python";
  return value === "generic" || value === true ? "generic" : undefined;
}

function readPaths(reader: Reader): Map<string, PathRecord> | undefined {
  const file = "info/paths.json";
  const fields = reader.json(file);
  if (fields === undefined) return undefined;
  if (!Array.isArray(fields["paths"])) throw reader.bad(file, "paths is no list");
  const paths = new Map<string, PathRecord>();
  for (const value of fields["paths"] as unknown[]) {
    if (!isFields(value) || typeof value["_path"] !== "string")
      throw reader.bad(file, "a path has no _path");
    const path = nameOf(value["_path"]);
    const type = value["path_type"] ?? "hardlink";
    if (type !== "hardlink" && type !== "softlink" && type !== "directory") {
      throw reader.bad(file, `unknown path_type ${String(type)}`);
    }
    const { sha256, size_in_bytes: size, prefix_placeholder: placeholder, file_mode: mode } = value;
    paths.set(path, {
      path,
      type,
      ...(typeof sha256 === "string" ? { sha256: sha256.toLowerCase() } : {}),
      ...(typeof size === "number" ? { size } : {}),
      ...(typeof placeholder === "string" && placeholder !== ""
        ? { placeholder, mode: mode === "binary" ? "binary" : "text" }
        : {}),
    });
  }
  return paths;
}

/** Packages from before paths.json: info/files lists them, info/has_prefix says which hold the placeholder. */
function readOldPaths(reader: Reader): Map<string, PathRecord> | undefined {
  const files = reader.lines("info/files");
  const prefixes = new Map((reader.lines("info/has_prefix") ?? []).map((line) => hasPrefix(line)));
  if (files === undefined && prefixes.size === 0) return undefined;
  const paths = new Map<string, PathRecord>();
  for (const name of files ?? prefixes.keys()) {
    const path = nameOf(name);
    paths.set(path, { path, type: "hardlink", ...prefixes.get(name) });
  }
  return paths;
}

/** `path`, or `placeholder mode path`; each may be quoted. conda: gateways/disk/read.py read_has_prefix. */
function hasPrefix(line: string): [string, { placeholder: string; mode: FileMode }] {
  const words = [...line.matchAll(/"((?:\\.|[^"])*)"|(\S+)/g)].map(
    (match) => match[1] ?? match[2]!,
  );
  if (words.length < 3) return [words[0] ?? "", { placeholder: DEFAULT_PLACEHOLDER, mode: "text" }];
  const [placeholder = "", mode, path = ""] = words;
  return [path, { placeholder, mode: mode === "binary" ? "binary" : "text" }];
}

const ENTRY_POINT = /^\s*([^=\s]+)\s*=\s*([\w.]+)\s*:\s*([\w.]+)\s*(?:\[.*\])?\s*$/;

function readEntryPoints(reader: Reader, link: Fields | undefined): EntryPoint[] {
  const noarch = isFields(link?.["noarch"]) ? link["noarch"] : {};
  return texts(noarch["entry_points"]).map((text) => {
    const match = ENTRY_POINT.exec(text);
    // A command with a slash or ".." would be written elsewhere: rattler CVE-2026-47425.
    if (match === null || checkName(match[1]!) < 0) {
      throw reader.bad("info/link.json", `"${text.slice(0, 80)}" is no entry point`);
    }
    return { command: match[1]!, module: match[2]!, attribute: match[3]! };
  });
}
