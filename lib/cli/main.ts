// burrow: the command line: runs a command and turns errors into exit codes. Control plane.

import { type Command, CommanderError } from "commander";
import { BurrowError } from "../base/error.ts";
import { ExitCode, report } from "./output.ts";
import { makeProgram } from "./program.ts";

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
