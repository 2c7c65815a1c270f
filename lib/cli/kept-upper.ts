// A kept upper: a folder with what sandboxes changed of one view, used by one at a time: view.json says of which view, `owner` who
// uses it. docs/format/upper.md. Control plane.

import { existsSync, readFileSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { type Digest, parseDigest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { makeFolder } from "../store/folder.ts";
import { ioError } from "../store/node-error.ts";
import { hasEnded, ownOwner } from "../sys/owner.ts";
import { writeText } from "./output.ts";
import type { Source } from "./query.ts";

const FORMAT = 1;

/** A snapshot of the view and the path that it is seen at. */
export interface Place extends Source {
  readonly at: string;
}

interface ViewFile {
  readonly format: number;
  readonly places: readonly { at: string; snapshot: string; origin: string }[];
}

export interface ClaimedUpper {
  /** What the gofer is given. */
  readonly directory: string;
  [Symbol.dispose](): void;
}

function usage(what: string): BurrowError {
  return new BurrowError("BURROW_USAGE", what);
}

/** Takes the folder for this process, as the upper of a view; made where there is none. BURROW_USAGE for another view's, BURROW_BUSY. */
export function claimUpper(folder: string, places: readonly Place[]): ClaimedUpper {
  const path = resolve(folder);
  const isThere = existsSync(join(path, "view.json"));
  if (!isThere) makeFolder(path, 0o700);
  const claimed = claim(path);
  try {
    if (isThere) checkSame(path, readPlaces(path), places);
    else writePlaces(path, places);
    makeFolder(join(path, "upper"), 0o700);
  } catch (error) {
    claimed[Symbol.dispose]();
    throw error;
  }
  return { directory: join(path, "upper"), ...claimed };
}

/** The folder as a run left it, and the places of its view. BURROW_NOT_FOUND, BURROW_BUSY. */
export function openKept(folder: string): ClaimedUpper & { places: Place[] } {
  const path = resolve(folder);
  const places = readPlaces(path);
  return { places, directory: join(path, "upper"), ...claim(path) };
}

function claim(path: string): { [Symbol.dispose](): void } {
  const owner = join(path, "owner");
  const mine = ownOwner();
  if (existsSync(owner) && !hasEnded(readFileSync(owner, "utf8").trim())) {
    const what = `${path} is used by another sandbox`;
    throw new BurrowError("BURROW_BUSY", `${what}: an upper has one at a time`);
  }
  rmSync(owner, { force: true });
  writeText(owner, `${mine}\n`, 0o600);
  return { [Symbol.dispose]: () => rmSync(owner, { force: true }) };
}

function writePlaces(path: string, places: readonly Place[]): void {
  const view: ViewFile = {
    format: FORMAT,
    places: places.map(({ at, snapshot, origin }) => ({
      at,
      snapshot: showDigest(snapshot),
      origin,
    })),
  };
  writeText(join(path, "view.json"), `${JSON.stringify(view, null, 2)}\n`, 0o600);
}

function readPlaces(path: string): Place[] {
  const file = join(path, "view.json");
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ENOENT")
      throw ioError("can't read", file, cause);
    const advice = "burrow run --upper makes one";
    throw new BurrowError("BURROW_NOT_FOUND", `${path} holds no upper: ${advice}`, { cause });
  }
  try {
    const view = JSON.parse(text) as ViewFile;
    if (view.format !== FORMAT) throw new Error(`its format is ${String(view.format)}`);
    return view.places.map(({ at, snapshot, origin }) => {
      const digest = parseDigest(snapshot);
      if (digest === undefined || !at.startsWith("/")) throw new Error("a place is none");
      return { at, snapshot: digest, origin: String(origin) };
    });
  } catch (cause) {
    throw new BurrowError("BURROW_USAGE", `${file} says of no view`, { cause });
  }
}

/** The numbers in an upper mean the inodes of its own view alone. */
function checkSame(path: string, old: readonly Place[], now: readonly Place[]): void {
  const digests = (places: readonly Place[]): string =>
    places.map(({ at, snapshot }) => `${at} ${snapshot as Digest}`).join("\n");
  if (digests(old) === digests(now)) return;
  const shown = old.map(({ at, snapshot }) => `${showDigest(snapshot).slice(0, 19)} at ${at}`);
  throw usage(`${path} is the upper of another view: of ${shown.join(", ")}`);
}
