// The commands of burrow, one file each, wired to a program. Control plane.

import { readFileSync } from "node:fs";
import { Command } from "commander";
import { addAnnotate } from "./annotate.ts";
import { addBundle } from "./bundle.ts";
import { addCache } from "./cache.ts";
import { addCompletion } from "./completion.ts";
import { addDaemon } from "./daemon.ts";
import { addDoctor } from "./doctor.ts";
import { addEnv } from "./env.ts";
import { addEnvCompile } from "./env-compile.ts";
import { addEnvRemove } from "./env-rm.ts";
import { addExplain } from "./explain.ts";
import { addGofer } from "./gofer.ts";
import { addGroupHelp } from "./group-help.ts";
import { knowOrigins } from "./known-origins.ts";
import { addLayer } from "./layer.ts";
import { addLayerDiff } from "./layer-diff.ts";
import { addLayerKeep } from "./layer-keep.ts";
import { addMount } from "./mount.ts";
import { checkRequired, checkValues } from "./option-values.ts";
import { addPreload } from "./preload.ts";
import { addProfile } from "./profile.ts";
import { addRun } from "./run.ts";
import { addServe } from "./serve.ts";
import { addStage } from "./stage.ts";
import { addStore } from "./store.ts";
import { addTop } from "./top.ts";
import { addTrace } from "./trace.ts";

function version(): string {
  const text = readFileSync(new URL("../../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

const EXAMPLES = `
"burrow COMMAND --help" has options and examples. To begin with:
  burrow doctor
  base=$(burrow layer import --snapshot rootfs.tar)
  env=$(burrow env create explicit.txt)
  burrow run --base $base --env $env --stage data=/srv/orders -- python3 /stage/data/query.py`;

/** The program with all its commands; a wrong word throws a CommanderError, of which nothing was printed. */
export function makeProgram(): Command {
  const program = new Command("burrow")
    .description("run commands in gVisor sandboxes over lazily fetched conda layers")
    .version(version())
    .exitOverride()
    .configureOutput({ outputError: () => {} }) // codeOf() prints it
    .enablePositionalOptions()
    .addHelpText("after", EXAMPLES);
  addRun(program);
  addBundle(program);
  addAnnotate(program);
  addServe(program);
  addMount(program);
  addExplain(program);
  const env = addEnv(program);
  addEnvCompile(env);
  addEnvRemove(env);
  addPreload(program);
  addProfile(program);
  addTrace(program);
  addTop(program);
  const layer = addLayer(program);
  addLayerDiff(layer);
  addLayerKeep(layer);
  addStage(program);
  addStore(program);
  addCache(program);
  addDaemon(program);
  addGofer(program);
  addDoctor(program);
  addCompletion(program);
  addGroupHelp(program);
  program.hook("preAction", (_, command) => knowOrigins(command));
  checkValues(program);
  checkRequired(program);
  return program;
}
