// What burrow env create is given: packages, a lock of some format, an environment.yml or specs; each becomes a list of packages,
// those that need it by a solve. Control plane.

import { statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { BurrowError } from "../base/error.ts";
import { type Channel, channelsOf, DEFAULT_CHANNEL_ALIAS } from "../ingest/conda/channel.ts";
import { distOf } from "../ingest/conda/dist.ts";
import { isPython } from "../ingest/conda/environment.ts";
import { isEnvironmentFile, parseEnvironmentFile } from "../ingest/conda/environment-file.ts";
import { type ExplicitPackage, parseExplicit } from "../ingest/conda/explicit.ts";
import { isCondaLock, parseCondaLock } from "../ingest/conda/lock-conda.ts";
import { isPixiLock, parsePixiLock } from "../ingest/conda/lock-pixi.ts";
import { pythonTarget } from "../ingest/conda/noarch.ts";
import { plainUrl } from "../ingest/conda/record.ts";
import { solve } from "../ingest/conda/solve.ts";
import { showVirtual, virtualPackages } from "../ingest/conda/virtual.ts";
import { parseYamlMap } from "../ingest/conda/yaml.ts";
import { errnoOf } from "../store/node-error.ts";
import { onInterrupt } from "./interrupt.ts";
import { counted, type ProgressLine, showBytes } from "./output.ts";
import { readText } from "./text-file.ts";

export interface InputOptions {
  /** Channels to solve with, in their priority; instead of those of an environment.yml. */
  readonly channel?: readonly string[];
  /** Which environment of a pixi.lock. */
  readonly environment?: string;
}

const ADVICE = "give one lock, or packages (.conda, .tar.bz2), or specs to solve";

/** A file whose comments go on for longer is known by its name. */
const FIRST_LINES_MAX = 1000;

/** Whether an argument is a package itself, and no lock. */
export function isPackage(text: string): boolean {
  return /\.(conda|tar\.bz2)(#.*)?$/.test(text);
}

/** Whether a word is meant as a file and not as a spec: no spec has a slash or such an end. */
export function isFile(text: string): boolean {
  if (text.includes("::")) return false;
  if (text.includes("/") || /\.(txt|ya?ml|lock)$/.test(text)) return true;
  return statSync(text, { throwIfNoEntry: false })?.isFile() === true;
}

/** The packages that the arguments come to. `cache` is the node's: repodata is kept below it. */
export async function packagesOf(
  words: readonly string[],
  options: InputOptions,
  cache: string,
  progress: ProgressLine,
): Promise<ExplicitPackage[]> {
  const isSolved = !words.some((word) => isPackage(word) || isFile(word));
  if (isSolved) {
    const { channel = [], ...others } = options;
    refuse(others, "specs");
    return await solved(words, channel, ".", cache, progress);
  }
  if (words.every(isPackage)) {
    refuse(options, "packages");
    return parseExplicit(`@EXPLICIT\n${words.join("\n")}`, "arguments").map((item) => placed(item));
  }
  if (words.length > 1) {
    const other = words.find((text) => !isPackage(text));
    throw new BurrowError("BURROW_USAGE", `${other} is no package file or URL: ${ADVICE}`);
  }
  return await fromFile(words[0]!, options, cache, progress);
}

/** BURROW_USAGE where a list has a Python of another version than `python`: what is noarch would lie where that doesn't look. */
export function checkPython(items: readonly ExplicitPackage[], python: string | undefined): void {
  const item = items.find(isPython);
  const own = item && distOf(item.url)?.version;
  if (python === undefined || own === undefined) return;
  if (pythonTarget(python).version === pythonTarget(own).version) return;
  const advice = "--python is for lists without a python package";
  throw new BurrowError(
    "BURROW_USAGE",
    `--python ${python}: the list has Python ${own}; ${advice}`,
  );
}

/** What has no meaning for what was given. */
function refuse(options: Partial<InputOptions>, given: string): void {
  for (const key of ["channel", "environment"] as const) {
    if (options[key] === undefined) continue;
    throw new BurrowError("BURROW_USAGE", `--${key} has no meaning for ${given}`);
  }
}

async function fromFile(
  path: string,
  options: InputOptions,
  cache: string,
  progress: ProgressLine,
): Promise<ExplicitPackage[]> {
  let text: string;
  try {
    text = await readText(path);
  } catch (cause) {
    if (cause instanceof BurrowError) throw cause;
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) {
      const what = `${path} is a directory: give a file, or a channel by --channel`;
      throw new BurrowError("BURROW_USAGE", what);
    }
    if (errnoOf(cause).code === "ENOENT")
      throw new BurrowError("BURROW_NOT_FOUND", `there is no file ${path}`);
    throw new BurrowError("BURROW_NOT_FOUND", `can't read the lock ${path}`, { cause });
  }
  const folder = dirname(resolve(path));
  const place = (items: readonly ExplicitPackage[]) => items.map((item) => placed(item, folder));
  if (!isYaml(text, path)) {
    refuse(options, "a lock");
    return place(parseExplicit(text, path));
  }
  const file = await parseYamlMap(text, path);
  const { environment, ...others } = options;
  if (isPixiLock(file)) {
    refuse(others, "a lock");
    return place(parsePixiLock(file, path, environment));
  }
  if (isCondaLock(file)) {
    refuse(options, "a lock");
    return place(parseCondaLock(file, path));
  }
  if (!isEnvironmentFile(file)) {
    const kinds = "an @EXPLICIT list, conda-lock.yml, pixi.lock or environment.yml";
    throw new BurrowError("BURROW_BAD_LOCK", `${path} is none of these: ${kinds}`);
  }
  refuse(environment === undefined ? {} : { environment }, "an environment.yml");
  const { channels, specs, warnings } = parseEnvironmentFile(file, path);
  for (const warning of warnings) progress.line(`${path}: ${warning}`);
  if (options.channel !== undefined)
    return await solved(specs, options.channel, ".", cache, progress);
  if (channels.length === 0) {
    const what = `${path} names no channels: add "channels:" to it, or give --channel`;
    throw new BurrowError("BURROW_BAD_LOCK", what);
  }
  return await solved(specs, channels, folder, cache, progress);
}

/** Whether a file is to be read as YAML and not as an @EXPLICIT list: by its first line, or its name where that says nothing. */
function isYaml(text: string, path: string): boolean {
  const lines = text.replace(/^\ufeff/, "").split("\n", FIRST_LINES_MAX);
  const first = lines.map((line) => line.trim()).find((line) => line !== "" && !/^#/.test(line));
  if (first === "@EXPLICIT") return false;
  return /\.(ya?ml|lock)$/.test(path) || /^(---|\{|["']?[\w-]+["']?\s*:(\s|$))/.test(first ?? "");
}

/** A package with its path from `folder`. The URL of a file, which gets into the layer, is the same wherever the file lies. */
function placed(item: ExplicitPackage, folder = "."): ExplicitPackage {
  if (item.path === undefined) return item;
  const url = `file:///${encodeURI(basename(item.path))}`;
  return { ...item, url, path: resolve(folder, item.path) };
}

async function solved(
  specs: readonly string[],
  names: readonly string[],
  folder: string,
  cache: string,
  progress: ProgressLine,
): Promise<ExplicitPackage[]> {
  const alias = process.env["CONDA_CHANNEL_ALIAS"] || DEFAULT_CHANNEL_ALIAS;
  const channels: Channel[] = names.flatMap((name) => channelsOf(name, { alias, folder }));
  if (channels.length === 0) {
    const what =
      specs.length === 1 ? `"${specs[0]}" is no file, and as a spec it needs` : "specs need";
    throw new BurrowError(
      "BURROW_USAGE",
      `${what} a channel: --channel DIR, URL or name; or ${ADVICE}`,
    );
  }
  for (const { path, url, name } of channels) {
    if (path !== undefined || !names.includes(name)) continue;
    if (statSync(resolve(folder, name), { throwIfNoEntry: false })?.isDirectory())
      progress.line(`${name} is ${plainUrl(url)}; the directory here is ./${name}`);
  }
  const virtual = virtualPackages();
  let step = "";
  // A signal then ends us by exit(), on which the solver is ended too: without, it would think on alone.
  const stopWatching = onInterrupt(() => {});
  let items: ExplicitPackage[];
  try {
    items = await solve(specs, channels, {
      cache: join(cache, "repodata"),
      virtual,
      onStep: (text) => {
        step = text;
        progress.update(text);
      },
      onBytes: (bytes) => progress.update(`${step}: ${showBytes(bytes)}`),
    });
  } finally {
    stopWatching();
  }
  if (items.length === 0) throw new BurrowError("BURROW_USAGE", "the specs ask for no package");
  progress.line(`solved: ${counted(items.length, "package")}, for ${showVirtual(virtual)}`);
  return items.map((item) => placed(item));
}
