// burrow: the command line. One file a command; this one wires them and turns errors into exit codes. Control plane.

import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { BurrowError } from "../base/error.ts";
import { addBundle } from "./bundle.ts";
import { addDaemon } from "./daemon.ts";
import { addDoctor } from "./doctor.ts";
import { addEnv } from "./env.ts";
import { addLayer } from "./layer.ts";
import { ExitCode, report } from "./output.ts";
import { addRun } from "./run.ts";
import { addStage } from "./stage.ts";

function version(): string {
  const text = readFileSync(new URL("../../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

function makeProgram(): Command {
  const program = new Command("burrow")
    .description("run commands in gVisor sandboxes over lazily fetched conda layers")
    .version(version())
    .exitOverride()
    .configureOutput({ outputError: () => {} }) // codeOf() prints it
    .enablePositionalOptions();
  addRun(program);
  addBundle(program);
  addEnv(program);
  addLayer(program);
  addStage(program);
  addDaemon(program);
  addDoctor(program);
  return program;
}

/** Whether errors are wanted as JSON: --json among burrow's own words. */
function wantsJson(): boolean {
  const end = process.argv.indexOf("--");
  return process.argv.slice(2, end < 0 ? undefined : end).includes("--json");
}

/** The exit code for what a command threw, after it was printed. */
function codeOf(error: unknown): number {
  if (!(error instanceof CommanderError)) return report(error, wantsJson());
  if (error.exitCode === 0) return ExitCode.ok;
  if (error.code === "commander.help") return ExitCode.usage; // the help was printed in its place
  const text = error.message.replace(/^error: |\.$/g, "").replaceAll("\n", " ");
  const help = "burrow COMMAND --help says more";
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

watchOutput();
try {
  await makeProgram().parseAsync(process.argv);
} catch (error) {
  process.exitCode = codeOf(error);
}
