// The file that says where else a store lies: mirrors of an origin, in order, and a tier before them. docs/origins.md has an example
// and is the normative text. It is this node's own, so what it says is believed; but a slip in it is named. Control plane.

import fs from "node:fs";
import { BurrowError } from "../base/error.ts";

/** Where an origin is read. */
export interface OriginPlan {
  /** In the order in which they are asked, the origin itself among them. */
  readonly places: readonly string[];
  readonly tier: { readonly at: string; readonly isFilled: boolean } | undefined;
}

/** By the origin as snapshots name it. */
export type OriginTable = ReadonlyMap<string, OriginPlan>;

const FORMAT = 1;
const FILE_MAX_BYTES = 1024 * 1024;
/** A read may go round all of them. */
const MIRRORS_MAX = 8;
/** Each origin lies where its name says, and nowhere else. */
export const NO_MIRRORS: OriginTable = new Map();

let read: { readonly path: string; readonly table: OriginTable } | undefined;

/** The table that $BURROW_ORIGINS names, read once; empty when it names none. BURROW_USAGE. */
export function environmentOrigins(): OriginTable {
  const path = process.env["BURROW_ORIGINS"] ?? "";
  if (path === "") return NO_MIRRORS;
  if (read?.path !== path) read = { path, table: readOrigins(path) };
  return read.table;
}

/** The table in a file. BURROW_USAGE, with the file and what is wrong in it. */
export function readOrigins(path: string): OriginTable {
  try {
    // A daemon that is started for a command lives elsewhere than that.
    if (!path.startsWith("/")) throw wrong("its path must be absolute");
    if (fs.statSync(path).size > FILE_MAX_BYTES) throw wrong(`it is over ${FILE_MAX_BYTES} bytes`);
    return parseOrigins(JSON.parse(fs.readFileSync(path, "utf8")));
  } catch (cause) {
    throw new BurrowError("BURROW_USAGE", "the file of origins can't be used", {
      cause,
      context: { file: path },
    });
  }
}

/** The table in what such a file holds. BURROW_USAGE. */
export function parseOrigins(value: unknown): OriginTable {
  const file = fieldsOf(value, "the file", ["format", "origins"]);
  if (file["format"] !== FORMAT) throw wrong(`"format" is ${FORMAT}`);
  const origins = fieldsOf(file["origins"] ?? {}, '"origins"');
  return new Map(
    Object.entries(origins).map(([name, plan]) => [placeName(name), planOf(name, plan)]),
  );
}

/** How a place is written: of a directory without slashes at its end. */
export function placeName(at: string): string {
  return at.startsWith("/") && at !== "/" ? at.replace(/\/+$/, "") : at;
}

function planOf(name: string, value: unknown): OriginPlan {
  const what = `"${checkPlace(name, "an origin")}"`;
  const fields = fieldsOf(value, what, ["mirrors", "tier"]);
  const mirrors = fields["mirrors"] ?? [];
  if (!Array.isArray(mirrors)) throw wrong(`"mirrors" of ${what} is a list`);
  const own = placeName(name);
  const listed = mirrors.map((at: unknown) => placeName(checkPlace(at, `a mirror of ${what}`)));
  const places = listed.includes(own) ? listed : [own, ...listed];
  if (new Set(places).size < places.length) throw wrong(`a mirror of ${what} is there twice`);
  if (places.length > MIRRORS_MAX) throw wrong(`${what} has more than ${MIRRORS_MAX} places`);
  return { places, tier: tierOf(fields["tier"], what, places) };
}

function tierOf(value: unknown, what: string, places: readonly string[]): OriginPlan["tier"] {
  if (value === undefined) return undefined;
  const fields = fieldsOf(value, `"tier" of ${what}`, ["at", "fill"]);
  const at = placeName(checkPlace(fields["at"], `"at" of the tier of ${what}`));
  if (places.includes(at)) throw wrong(`the tier of ${what} is one of its mirrors`);
  const canFill = !/^https?:/.test(at);
  const isFilled = fields["fill"] ?? canFill;
  if (typeof isFilled !== "boolean") throw wrong(`"fill" of the tier of ${what} is true or false`);
  if (isFilled && !canFill) {
    throw wrong(`the tier of ${what} can't be filled over HTTP: such a cache fills itself`);
  }
  return { at, isFilled };
}

/** An object, of these fields alone where they are given. */
function fieldsOf(
  value: unknown,
  what: string,
  known?: readonly string[],
): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw wrong(`${what} is an object`);
  }
  const unknown = known && Object.keys(value).find((key) => !known.includes(key));
  if (unknown === undefined) return value as Readonly<Record<string, unknown>>;
  throw wrong(`${what} has the fields ${known!.join(", ")}, and no "${unknown}"`);
}

function checkPlace(at: unknown, what: string): string {
  const isPlace = typeof at === "string" && /^(\/|https?:\/\/|s3:\/\/)/.test(at);
  if (!isPlace) throw wrong(`${what} is an absolute path or an http(s) or s3 URL`);
  const { username = "", password = "" } = URL.canParse(at) ? new URL(at) : {};
  if (username === "" && password === "") return at;
  throw wrong(`${what} has a user or password, which would get into logs`);
}

function wrong(message: string): BurrowError {
  return new BurrowError("BURROW_USAGE", message);
}
