// Wheels of an environment: one more layer each at the top of its stack, laid out for the environment's own Python as pip would,
// without dependencies. Control plane.

import { createHash } from "node:crypto";
import { createReadStream, statSync } from "node:fs";
import { basename, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import type { PythonTarget } from "../ingest/conda/noarch.ts";
import { importWheel } from "../ingest/wheel/import.ts";
import { normalName, wheelName } from "../ingest/wheel/tags.ts";
import { finishLayer } from "../preload/start-order.ts";
import type { KnownBlobs } from "../store/known.ts";
import { openPackWriter } from "../store/pack-writer.ts";
import type { WritableBackend } from "../store/store.ts";
import { type EnvironmentWheel, findImport, noteImport } from "./environment.ts";
import { type ProgressLine, showBytes } from "./output.ts";
import { WHEEL_LAYOUT } from "./wheel.ts";

/** Whether a word names a wheel. */
export function isWheel(text: string): boolean {
  return text.endsWith(".whl");
}

/** BURROW_USAGE, BURROW_NOT_FOUND and BURROW_BAD_PACKAGE for what can be no wheel of this machine: by name alone. */
export function checkWheel(file: string): void {
  if (/^https?:\/\//.test(file))
    throw new BurrowError("BURROW_USAGE", `${file} is no file here: download it first`);
  wheelName(basename(file));
  if (statSync(file, { throwIfNoEntry: false })?.isFile() === true) return;
  throw new BurrowError("BURROW_NOT_FOUND", `there is no wheel ${file}`);
}

/** What wheels are laid out for: a prefix, its Python, and the conda packages that are there. */
export interface WheelPlace {
  readonly prefix: string;
  readonly python: PythonTarget | undefined;
  readonly packages: readonly string[];
}

/**
 * A layer for each wheel, in their order. BURROW_USAGE where the environment has no Python, or the project already: conda's files and
 * the wheel's would be mixed. Otherwise see importWheel.
 */
export async function importWheels(
  store: WritableBackend,
  known: KnownBlobs,
  files: readonly string[],
  place: WheelPlace,
  progress: ProgressLine,
): Promise<EnvironmentWheel[]> {
  const names = new Map(place.packages.map((name) => [normalName(name), `conda's ${name}`]));
  const wheels: EnvironmentWheel[] = [];
  for (const file of files) {
    const name = basename(file);
    const { project, version } = wheelName(name);
    if (place.python === undefined || !place.packages.includes("python"))
      throw new BurrowError("BURROW_USAGE", `${name} needs an environment with a Python in it`);
    const other = names.get(normalName(project));
    if (other !== undefined)
      throw new BurrowError("BURROW_USAGE", `${name}: the environment has ${other}; leave one out`);
    names.set(normalName(project), name);
    const sha256 = await hashOf(file);
    const target = { prefix: place.prefix, python: place.python, sha256 };
    const layer = await layerOf(store, known, file, target, progress);
    const url = pathToFileURL(resolve(file)).href;
    wheels.push({ name: project, version, url, sha256, layer: showDigest(layer) });
  }
  return wheels;
}

interface Target {
  readonly prefix: string;
  readonly python: PythonTarget;
  readonly sha256: string;
}

async function layerOf(
  store: WritableBackend,
  known: KnownBlobs,
  file: string,
  { prefix, python, sha256 }: Target,
  progress: ProgressLine,
): Promise<Digest> {
  const name = basename(file);
  const { version, sitePackages } = python;
  const key = ["environment's wheel", WHEEL_LAYOUT, sha256, name, version, sitePackages, prefix];
  const found = await findImport(store, key);
  if (found !== undefined) return found.layer;
  progress.update(name);
  const writer = await openPackWriter(store, { known });
  const options = { sink: writer, prefix, pythonVersion: version, sitePackages };
  const { entries } = await importWheel(file, options);
  const { digest } = await finishLayer(writer, entries);
  await noteImport(store, key, digest, {});
  progress.line(`${name}: ${showBytes(writer.counts.contentBytes)} of content`);
  return digest;
}

async function hashOf(file: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const bytes of createReadStream(file, { highWaterMark: 1 << 20 }))
    hash.update(bytes as Buffer);
  return hash.digest("hex");
}
