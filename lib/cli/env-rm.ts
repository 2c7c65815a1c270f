// burrow env rm: takes environments off the store's list. What they are made of stays: others may share it. Control plane.

import { unlinkSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { objectPath } from "../store/layout.ts";
import { ioError } from "../store/node-error.ts";
import { addCommonOptions, type Context, contextOf } from "./context.ts";
import { findDigest, listedStore } from "./digests.ts";
import { readEnvironment } from "./environment.ts";
import { print } from "./output.ts";

const HELP = `
env ls and env show no longer have it. Its layers and files stay in the store, where other
environments share them, and so does its snapshot, until "burrow store gc" removes what nothing
refers to: a sandbox that runs on it goes on. env create makes the same again, without reading its
packages anew.

Example:
  burrow env rm sha256:…`;

/** Adds the command to "env". */
export function addEnvRemove(env: Command): void {
  addCommonOptions(env.command("rm"))
    .argument("<snapshot...>", "digests that env ls prints, or their first digits")
    .description("take environments off the list; what they are made of stays in the store")
    .addHelpText("after", HELP)
    .action(async (texts: string[], options) => {
      const context = contextOf(options);
      const digests = await findAll(context, texts);
      for (const digest of digests) remove(context, digest);
      const removed = digests.map(showDigest);
      print(context.isJson, { removed }, removed.join("\n"));
      if (!context.isJson) process.stderr.write("its space is freed by burrow store gc\n");
    });
}

/** All of them, before any is removed. BURROW_NOT_FOUND for what is no environment. */
async function findAll(context: Context, texts: readonly string[]): Promise<Digest[]> {
  if (!context.store.startsWith("/")) {
    const what = "only the environments of a directory's store can be removed";
    const advice = "elsewhere delete environments/AB/DIGEST by other means";
    throw new BurrowError("BURROW_UNSUPPORTED", `${what}; ${advice}`, {
      context: { store: context.store },
    });
  }
  const store = await listedStore(context);
  const digests = new Set<Digest>();
  for (const text of texts) {
    const digest = await findDigest(context, text);
    await readEnvironment(store, digest);
    digests.add(digest);
  }
  return [...digests];
}

function remove(context: Context, digest: Digest): void {
  const path = join(context.store, objectPath("environments", digest));
  try {
    unlinkSync(path);
  } catch (error) {
    throw ioError("can't remove an environment", path, error);
  }
}
