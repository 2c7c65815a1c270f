// burrow: the command line. One file a command; this one wires them and turns errors into exit codes. Control plane.

import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { addBundle } from "./bundle.ts";
import { addDaemon } from "./daemon.ts";
import { addDoctor } from "./doctor.ts";
import { addEnv } from "./env.ts";
import { addLayer } from "./layer.ts";
import { ExitCode, report } from "./output.ts";
import { addRun } from "./run.ts";

function version(): string {
  const text = readFileSync(new URL("../../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

function makeProgram(): Command {
  const program = new Command("burrow")
    .description("run commands in gVisor sandboxes over lazily fetched conda layers")
    .version(version())
    .showHelpAfterError("(burrow COMMAND --help says more)")
    .exitOverride()
    .enablePositionalOptions();
  addRun(program);
  addBundle(program);
  addEnv(program);
  addLayer(program);
  addDaemon(program);
  addDoctor(program);
  return program;
}

/** The exit code for what a command threw. */
function codeOf(error: unknown): number {
  if (!(error instanceof CommanderError)) return report(error, process.argv.includes("--json"));
  return error.exitCode === 0 ? ExitCode.ok : ExitCode.usage;
}

try {
  await makeProgram().parseAsync(process.argv);
} catch (error) {
  process.exitCode = codeOf(error);
}
