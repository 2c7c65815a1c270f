// burrow: the command line. One file a command; this one wires them and turns errors into exit codes. Control plane.

import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { BurrowError } from "../base/error.ts";
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
import { ExitCode, report } from "./output.ts";
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

function makeProgram(): Command {
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

/** The command that the words name, as far as they name one: "burrow env create". */
function commandOf(program: Command, words: readonly string[]): string {
  const [word, ...others] = words;
  const child = program.commands.find((command) => command.name() === word);
  return `${program.name()}${child === undefined ? "" : ` ${commandOf(child, others)}`}`;
}

/** Of words that ask for help with a command that there is not: those up to it, so that it is said; else all. */
function answerable(program: Command, words: readonly string[]): readonly string[] {
  let command = program;
  for (const [i, word] of words.entries()) {
    if (command.commands.length === 0 || word === "help" || word.startsWith("-")) return words;
    const child = command.commands.find((one) => [one.name(), ...one.aliases()].includes(word));
    if (child === undefined) return words.slice(0, i + 1);
    command = child;
  }
  return words;
}

/** "help WORDS" as "WORDS --help": the library's own knows the first word only. */
function helpWords(words: readonly string[]): readonly string[] {
  const isHelp = words[0] === "help" && words.length > 1 && !words[1]!.startsWith("-");
  return isHelp ? [...words.slice(1), "--help"] : words;
}

/** Whether errors are wanted as JSON: --json among burrow's own words. */
function wantsJson(): boolean {
  const end = process.argv.indexOf("--");
  return process.argv.slice(2, end < 0 ? undefined : end).includes("--json");
}

/** The exit code for what a command threw, after it was printed. */
function codeOf(program: Command, error: unknown): number {
  if (!(error instanceof CommanderError)) return report(error, wantsJson());
  if (error.exitCode === 0) return ExitCode.ok;
  if (error.code === "commander.help") return ExitCode.usage; // the help was printed in its place
  const text = error.message.replace(/^error: |\.$/g, "").replaceAll("\n", " ");
  const help = `${commandOf(program, process.argv.slice(2))} --help says more`;
  return report(new BurrowError("BURROW_USAGE", `${text}; ${help}`), wantsJson());
}

/** A reader that went away ends us as it ends other programs; a full disk is an error like any other. */
function watchOutput(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(ExitCode.brokenPipe);
    process.exitCode = report(error, wantsJson());
  });
  process.stderr.on("error", () => {});
}

/** A command that waits for what never comes must not pass for one that is done: Node.js just ends then, with 0. */
function watchEnd(): { done(): void } {
  const complain = () => {
    if ((process.exitCode ?? ExitCode.ok) !== ExitCode.ok) return;
    process.exitCode = report(new Error("it waits for what never comes"), wantsJson());
  };
  // What ends itself by process.exit() doesn't come by here.
  process.once("beforeExit", complain);
  return { done: () => process.off("beforeExit", complain) };
}

async function main(): Promise<void> {
  watchOutput();
  const end = watchEnd();
  const program = makeProgram();
  try {
    await program.parseAsync(answerable(program, helpWords(process.argv.slice(2))), {
      from: "user",
    });
  } catch (error) {
    process.exitCode = codeOf(program, error);
  }
  end.done();
}

void main();
