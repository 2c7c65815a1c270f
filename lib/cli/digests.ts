// Digests as people give them: whole, or their first digits where the store can be listed. Control plane.

import { existsSync } from "node:fs";
import { basename } from "node:path";
import { type Digest, parseDigest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import type { DeltaStore } from "../store/deltas.ts";
import { isStore, openOrigin, openStore } from "../store/open.ts";
import type { Context } from "./context.ts";

/** The first digits of a digest: enough of them to be no accident, as `burrow env show` prints them or fewer. */
const BEGINNING = /^(?:sha256:)?([0-9a-f]{6,63})$/i;

/** A store that can be listed. BURROW_UNSUPPORTED over HTTP, BURROW_NOT_FOUND when there is none: looking makes none. */
export async function listedStore(context: Context): Promise<DeltaStore> {
  const where = { context: { store: context.store } };
  if (/^https?:/.test(context.store)) {
    throw new BurrowError(
      "BURROW_UNSUPPORTED",
      "an HTTP store can't be listed: name its directory or its place on S3",
      where,
    );
  }
  if (!(await isStore(openOrigin(context.store)))) throw noStore(context);
  return await openStore(context.store);
}

export function noStore({ store }: Context): BurrowError {
  const advice = "burrow layer import and burrow env create make one";
  const what = `there is no store; ${advice}`;
  return new BurrowError("BURROW_NOT_FOUND", what, { context: { store } });
}

/** Whether the text is meant as a digest or the beginning of one: no path and no spec begins so. */
export function isDigestLike(text: string): boolean {
  return parseDigest(text) !== undefined || /^sha256:/i.test(text);
}

/** The same where digests and files alone are taken: the digits will do, unless there is a file of that name. */
export function isDigestOrFile(text: string): boolean {
  return isDigestLike(text) || (BEGINNING.test(text) && !existsSync(text));
}

/** The first digits that a text gives of a digest. BURROW_USAGE for what is none. */
export function digitsOf(text: string): string {
  const digits = parseDigest(text) ?? BEGINNING.exec(text)?.[1]?.toLowerCase();
  if (digits !== undefined) return digits;
  const advice = "say its 64 hex digits, or the first 6 or more, with or without sha256:";
  throw new BurrowError("BURROW_USAGE", `"${text}" is no digest; ${advice}`);
}

/** The digest that an argument means. BURROW_USAGE for what is none or means several, BURROW_NOT_FOUND for what means nothing. */
export async function findDigest(context: Context, text: string): Promise<Digest> {
  const whole = parseDigest(text);
  if (whole !== undefined) return whole;
  const digits = digitsOf(text);
  if (/^https?:/.test(context.store)) {
    const what = "an HTTP store can't be listed: name a whole digest";
    throw new BurrowError("BURROW_UNSUPPORTED", what, { context: { store: context.store } });
  }
  const store = await listedStore(context);
  const all: Digest[] = [];
  for await (const path of store.list(`indexes/${digits.slice(0, 2)}`)) {
    const digest = parseDigest(basename(path));
    if (digest !== undefined) all.push(digest);
  }
  const where = { store: context.store };
  const found = theOne(text, all, where);
  if (found !== undefined) return found;
  throw new BurrowError("BURROW_NOT_FOUND", `no layer or snapshot ${text}`, { context: where });
}

/** The digest among all that a text is, or is the beginning of; undefined: none. BURROW_USAGE for what is no digest or means several. */
export function theOne(
  text: string,
  all: Iterable<Digest>,
  where: Readonly<Record<string, string>>,
): Digest | undefined {
  const digits = digitsOf(text);
  const found = [...all].filter((digest) => digest.startsWith(digits));
  if (found.length < 2) return found[0];
  const names = found.map(showDigest).join(", ");
  const what = `${text} is the beginning of several: ${names}`;
  throw new BurrowError("BURROW_USAGE", what, { context: where });
}
