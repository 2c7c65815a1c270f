// burrow completion bash: what Tab offers, written from the commands themselves. Control plane.

import type { Command } from "commander";

const EXAMPLES = `
Commands, options and their choices; everything else is completed as file names.

Examples:
  burrow completion bash > /etc/bash_completion.d/burrow
  eval "$(burrow completion bash)"`;

export function addCompletion(program: Command): void {
  const completion = program.command("completion").description("completion for shells");
  completion
    .command("bash")
    .description("print a script for bash")
    .addHelpText("after", EXAMPLES)
    .action(() => {
      process.stdout.write(bashScript(program));
    });
}

/** A bash script that completes a program's words. Names of commands and options hold no character that bash reads. */
function bashScript(program: Command): string {
  const commands = [...walk(program, "")];
  const paths = commands.flatMap(({ path }) => (path === "" ? [] : [`"${path}"`]));
  const words = commands.map(({ path, command }) => {
    const names = command.commands.map((each) => each.name());
    const options = command.createHelp().visibleOptions(command);
    const flags = options.flatMap(({ long }) => long ?? []);
    return `    "${path}") names="${names.join(" ")}" flags="${flags.join(" ")}" ;;`;
  });
  const choices = commands.flatMap(({ path, command }) =>
    command.options.flatMap(({ long, argChoices }) =>
      argChoices === undefined ? [] : [`    "${path} ${long}") names="${argChoices.join(" ")}" ;;`],
    ),
  );
  const name = program.name();
  return `# Completion of ${name} for bash, printed by: ${name} completion bash
_${name}() {
  local current=\${COMP_WORDS[COMP_CWORD]} last=\${COMP_WORDS[COMP_CWORD - 1]} path="" names="" flags="" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    [[ \${COMP_WORDS[i]} == -- ]] && return
    case "$path \${COMP_WORDS[i]}" in ${paths.join("|")}) path+=" \${COMP_WORDS[i]}" ;; esac
  done
  case "$path" in
${words.join("\n")}
  esac
  case "$path $last" in
${choices.join("\n")}
  esac
  [[ $current == -* ]] && names=$flags
  mapfile -t COMPREPLY < <(compgen -W "$names" -- "$current")
}
complete -o default -F _${name} ${name}
`;
}

interface Placed {
  /** "" for the program, " env create" for a command of it. */
  readonly path: string;
  readonly command: Command;
}

function* walk(command: Command, path: string): Generator<Placed> {
  yield { path, command };
  for (const child of command.commands) yield* walk(child, `${path} ${child.name()}`);
}
