// burrow bundle: an OCI bundle for burrow-runsc, docker or containerd, whose mounts stay until they are removed. Control plane.

import { existsSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { isMountId } from "../gofer/mount.ts";
import { makeFolder } from "../store/folder.ts";
import { checkCommand } from "./command-defaults.ts";
import { type Context, contextOf } from "./context.ts";
import { ociSpec } from "./oci-spec.ts";
import { print, writeText } from "./output.ts";
import { addQueryOptions, checkQuery, prepare } from "./prepare.ts";
import { newRunId, removeMounts } from "./query.ts";
import type { QueryOptions } from "./query-settings.ts";

interface BundleOptions extends QueryOptions {
  id?: string;
  tty?: boolean;
}

const EXAMPLES = `
Its id is printed. Start it by: burrow-runsc --network=none run --bundle DIR ID   (the same
BURROW_STATE and BURROW_CACHE) When it is no longer used: burrow bundle-rm ID

An environment as --base makes a volume: STATE/mounts/ID, for bundles of other sandboxes to mount at
its prefix.

Examples:
  burrow bundle --base sha256:… --env sha256:… /tmp/query -- python3 -c 'import pandas'
  burrow bundle --base sha256:… --id numpy /tmp/numpy -- true`;

export function addBundle(program: Command): void {
  addQueryOptions(program.command("bundle"))
    .description("write an OCI bundle")
    .argument("<dir>", "folder for config.json; made when it is missing")
    .argument("[command...]", "after --; an image as base has one of its own")
    .option("--id <ID>", "name of its mounts (default: a new one)")
    .option("--tty", "the command has a terminal")
    .passThroughOptions()
    .addHelpText("after", EXAMPLES)
    .action(async (dir: string, command: string[], options: BundleOptions) => {
      await bundle(contextOf(options), dir, command, options);
    });
  program
    .command("bundle-rm")
    .description("remove the mounts of a bundle; its folder stays")
    .argument("<id>", "as burrow bundle printed it")
    .option("--state <DIR>", "as given to burrow bundle")
    .option("--json", "results on stdout and errors on stderr as JSON")
    .addHelpText("after", "\nExample:\n  burrow bundle-rm qmwpzjgqh-f389d9b7")
    .action((id: string, options: { state?: string; json?: boolean }) => {
      const context = contextOf(options);
      if (!isMountId(id)) {
        const advice = `burrow bundle printed it, and ${context.state}/mounts has all`;
        throw new BurrowError("BURROW_USAGE", `"${id}" is no mount id: ${advice}`);
      }
      if (!removeMounts(context, id)) {
        const where = { state: context.state };
        throw new BurrowError("BURROW_NOT_FOUND", `no mounts of ${id}`, { context: where });
      }
      if (context.isJson) print(true, { removed: id }, "");
    });
}

async function bundle(
  context: Context,
  dir: string,
  command: string[],
  options: BundleOptions,
): Promise<void> {
  const id = options.id ?? newRunId();
  if (!isMountId(id)) throw new BurrowError("BURROW_USAGE", `--id: "${id}" is no mount id`);
  // Behind the folder, a "--" is passed on as a word.
  const words = command[0] === "--" ? command.slice(1) : command;
  await checkCommand(words, options.base);
  await checkQuery(context, options);
  const path = join(resolve(dir), "config.json");
  if (existsSync(path))
    throw new BurrowError("BURROW_USAGE", `${path} exists; name another folder`);
  const isNew = makeFolder(resolve(dir), 0o777);
  const leave = (error: unknown): never => {
    if (isNew) rmSync(resolve(dir), { recursive: true, force: true });
    throw error;
  };
  const takesVolume = options.env === undefined;
  const prepared = await prepare(context, id, { ...options, takesVolume }, words).catch(leave);
  try {
    const spec = ociSpec(prepared.spec(words, options.tty === true));
    writeText(path, `${JSON.stringify(spec, null, 2)}\n`);
  } catch (error) {
    removeMounts(context, id);
    leave(error);
  }
  const snapshots = prepared.snapshots.map(showDigest);
  print(context.isJson, { id, bundle: resolve(dir), snapshots, mounts: prepared.mounts }, id);
}
