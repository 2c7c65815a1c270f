// A kept upper: a folder with what sandboxes, or who wrote to a mount, changed of one view, used by one at a time: view.json says of which view, `owner` is
// locked by who uses it. docs/format/upper.md. Control plane.

import {
  closeSync,
  constants,
  existsSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  writeSync,
} from "node:fs";
import { join, resolve } from "node:path";
import { type Digest, parseDigest, showDigest } from "../base/digest.ts";
import { errnoName } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import type { Name } from "../base/name.ts";
import { openUpperDirectory } from "../gofer/trees.ts";
import { makeFolder } from "../store/folder.ts";
import { ioError } from "../store/node-error.ts";
import { lockFile } from "../sys/lock.ts";
import { ownOwner } from "../sys/owner.ts";
import { replaceText } from "./output.ts";
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
  /** What the server is given. */
  readonly directory: string;
  /** The lock, which is held as long as somebody has this open: who has a server outlive this process gives it a copy. Borrowed. */
  readonly lockFd: number;
  [Symbol.dispose](): void;
}

function usage(what: string): BurrowError {
  return new BurrowError("BURROW_USAGE", what);
}

/** Takes the folder for this process, as the upper of a view; made where there is none. BURROW_USAGE for another view's, BURROW_BUSY. */
export function claimUpper(folder: string, places: readonly Place[]): ClaimedUpper {
  const path = resolve(folder);
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) makeUpper(path);
  else if (!stat.isDirectory()) throw usage(`--upper: ${path} is no directory`);
  const claimed = claim(path);
  try {
    const directory = join(path, "upper");
    const found = lstatSync(directory, { throwIfNoEntry: false });
    if (found?.isDirectory() === false) throw usage(`--upper: ${directory} is no directory`);
    if (existsSync(join(path, "view.json"))) checkSame(path, readPlaces(path), places);
    else if (found === undefined) {
      checkWhiteouts(path);
      writePlaces(path, places);
    } else throw usage(`--upper: ${directory} is there, and no view.json says what it changes`);
    makeFolder(directory, 0o700);
  } catch (error) {
    claimed[Symbol.dispose]();
    throw error;
  }
  return { directory: join(path, "upper"), ...claimed };
}

function makeUpper(path: string): void {
  try {
    makeFolder(path, 0o700);
  } catch (cause) {
    throw ioError("--upper: can't make the folder", path, cause);
  }
}

/** Refuses a folder that can't hold whiteouts, as one on overlayfs: nothing from below could be removed or moved. BURROW_UNSUPPORTED. */
function checkWhiteouts(folder: string): void {
  const upper = openUpperDirectory(folder);
  const [old, moved] = [`.whiteout-${process.pid}` as Name, `.moved-${process.pid}` as Name];
  const root = upper.rootIno;
  let failed = upper.whiteout(root, old);
  if (failed === 0) failed = upper.renameLeavingWhiteout(root, old, root, moved);
  for (const name of [old, moved]) upper.unlink(root, name, false);
  upper.dispose();
  if (failed === 0) return;
  const advice = "say a folder on ext4, xfs, btrfs or tmpfs, for instance";
  throw new BurrowError(
    "BURROW_UNSUPPORTED",
    `the file system of ${folder} has no whiteouts (${errnoName(failed)}): ${advice}`,
  );
}

/** The folder as a run left it, and the places of its view. BURROW_NOT_FOUND, BURROW_BUSY. */
export function openKept(folder: string): ClaimedUpper & { places: Place[] } {
  const path = resolve(folder);
  const places = readPlaces(path);
  return { places, directory: join(path, "upper"), ...claim(path) };
}

/**
 * Those of the view's places where something was made, changed or removed: by the names in the upper, which nobody uses now. What is on
 * the way to another's place is no change of its own. Attributes of a place's own root don't count.
 */
export function changedPlaces(directory: string, places: readonly Place[]): Place[] {
  const ats = places.map(({ at }) => at);
  const changed = new Set<string>();
  const look = (folder: string, place: string) => {
    for (const entry of readdirSync(join(directory, "tree", folder), { withFileTypes: true })) {
      const path = join(folder, entry.name);
      const leadsOn = ats.some((at) => at === path || at.startsWith(`${path}/`));
      if (!leadsOn || !entry.isDirectory()) changed.add(place);
      else look(path, ats.includes(path) ? path : place);
    }
  };
  look("/", "/");
  return places.filter(({ at }) => changed.has(at));
}

function claim(path: string): Omit<ClaimedUpper, "directory"> {
  const owner = join(path, "owner");
  const { O_RDWR, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
  let fd = -1;
  let isOurs: boolean;
  try {
    fd = openSync(owner, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600);
    isOurs = lockFile(fd);
    if (isOurs) {
      ftruncateSync(fd, 0);
      writeSync(fd, `${ownOwner()}\n`, 0);
    }
  } catch (cause) {
    if (fd >= 0) closeSync(fd);
    throw ioError("can't take the upper", owner, cause);
  }
  if (isOurs) return { lockFd: fd, [Symbol.dispose]: () => closeSync(fd) };
  closeSync(fd);
  const what = `${path} is used by another sandbox or mount`;
  throw new BurrowError("BURROW_BUSY", `${what}: an upper has one at a time`);
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
  replaceText(join(path, "view.json"), `${JSON.stringify(view, null, 2)}\n`, 0o600);
}

function readPlaces(path: string): Place[] {
  const file = join(path, "view.json");
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ENOENT")
      throw ioError("can't read", file, cause);
    const advice = "burrow run --upper or burrow mount --upper makes one";
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
