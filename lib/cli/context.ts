// Context: where this node keeps things, from options and environment, shared by all commands. Control plane.

import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { BurrowError } from "../base/error.ts";
import { DEFAULT_CACHE, DEFAULT_STATE } from "../gofer/mount.ts";
import { makeFolder } from "../store/folder.ts";
import { ioError } from "../store/node-error.ts";

export interface Context {
  /** Mounts and runs of this node. $BURROW_STATE. */
  readonly state: string;
  /** The cache directory of one daemon. $BURROW_CACHE. */
  readonly cache: string;
  /** Origin of layers and snapshots: a directory, or an http(s) or s3 URL. $BURROW_STORE. */
  readonly store: string;
  readonly isJson: boolean;
}

/** Options that every command takes. */
export function addCommonOptions(command: Command): Command {
  return addOptions(command, "a directory, or an http(s) or s3 URL, of layers");
}

/** The same for a command that lists a store or writes to it. */
export function addListedOptions(command: Command): Command {
  return addOptions(command, "a directory or an s3 URL, of layers");
}

function addOptions(command: Command, store: string): Command {
  return command
    .option(
      "--state <DIR>",
      `mounts and runs of this node ($BURROW_STATE; default ${DEFAULT_STATE})`,
    )
    .option("--cache <DIR>", `the node's cache ($BURROW_CACHE; default ${DEFAULT_CACHE})`)
    .option("--store <STORE>", `${store} ($BURROW_STORE; default STATE/store)`)
    .option("--json", "results on stdout and errors on stderr as JSON");
}

/** For options that may be given several times. */
export const collect = (value: string, all: string[] = []) => [...all, value];

interface CommonOptions {
  state?: string;
  cache?: string;
  store?: string;
  json?: boolean;
}

/** An option, else its variable: empty is as good as unset, as the launcher has it. */
function setting(option: string | undefined, variable: string): string | undefined {
  return option || process.env[variable] || undefined;
}

export function contextOf(options: CommonOptions): Context {
  const state = resolve(setting(options.state, "BURROW_STATE") ?? DEFAULT_STATE);
  const cache = resolve(setting(options.cache, "BURROW_CACHE") ?? DEFAULT_CACHE);
  const store = setting(options.store, "BURROW_STORE") ?? `${state}/store`;
  return { state, cache, store: asOrigin(store), isJson: options.json === true };
}

/** An origin as mounts record it: URLs as they are, directories absolute. BURROW_USAGE for a URL of another kind. */
export function asOrigin(text: string): string {
  if (/^(https?|s3):\/\//.test(text)) return text;
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1];
  if (scheme === undefined) return resolve(text);
  if (scheme === "file" && URL.canParse(text) && new URL(text).host === "")
    return resolve(fileURLToPath(text));
  throw new BurrowError("BURROW_USAGE", `${text}: give a directory or an http(s) or s3 URL`);
}

export function makeFolders(...folders: readonly string[]): void {
  for (const folder of folders) {
    try {
      makeFolder(folder, 0o755);
    } catch (error) {
      throw ioError(
        "can't make a folder (--state, --cache and --store name others)",
        folder,
        error,
      );
    }
  }
}
