// Known origins: a command reads a store where the node's daemon does. It takes the file of origins that $BURROW_ORIGINS names, else the one
// that the daemon was started with. Control plane.

import { accessSync, constants } from "node:fs";
import { resolve } from "node:path";
import type { Command } from "commander";
import { daemonStatus } from "../cache/client.ts";
import { contextOf } from "./context.ts";

const VARIABLE = "BURROW_ORIGINS";
/** Commands that read a store which may have mirrors. */
const READERS: ReadonlySet<string> = new Set([
  "burrow run",
  "burrow bundle",
  "burrow annotate",
  "burrow preload",
  "burrow mount",
  "burrow serve",
  "burrow explain",
  "profile show",
  "layer show",
  "layer diff",
  "env show",
  "env compile",
]);

/** Before a command's action: has $BURROW_ORIGINS name the file by its whole path, for this process and a daemon that it starts. */
export async function knowOrigins(command: Command): Promise<void> {
  const isReader = READERS.has(`${command.parent?.name()} ${command.name()}`);
  await knowOriginsOf(isReader ? contextOf(command.opts()).cache : undefined);
}

/** The same for who reads stores beside a cache's daemon; of no cache: what the variable says, made whole. */
export async function knowOriginsOf(cache: string | undefined): Promise<void> {
  const given = process.env[VARIABLE] || undefined;
  if (given !== undefined) process.env[VARIABLE] = resolve(given);
  if (given !== undefined || cache === undefined) return;
  // What it can't say or we can't read is missed only where a store is down, and said there.
  const file = (await daemonStatus(cache).catch(() => undefined))?.originsFile;
  if (file !== undefined && isReadable(file)) process.env[VARIABLE] = file;
}

function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK);
    return true;
  } catch {
    return false;
  }
}
