// Values of options that are surely a slip: one that a single-valued option is given twice, where the last would have won in silence,
// and one that is missing, since a shell's variable was empty. Control plane.

import type { Command, Option } from "commander";
import { BurrowError } from "../base/error.ts";

/** Options whose empty value means that they are not given, as with their variables. */
const PLACES = ["--state", "--cache", "--store"];

/** Has `command` and every one below it refuse such values. BURROW_USAGE, naming the option. */
export function checkValues(command: Command): void {
  for (const option of command.options) {
    const name = option.long ?? option.flags;
    if (option.isBoolean()) continue;
    let isGiven = false;
    command.on(`option:${option.name()}`, (value: unknown) => {
      const fault = isGiven && keepsOne(option) ? "is given twice, and takes one value" : undefined;
      const why = fault ?? faultOf(command, option, String(value));
      if (why !== undefined) throw new BurrowError("BURROW_USAGE", `${name} ${why}`);
      isGiven = true;
    });
  }
  for (const child of command.commands) checkValues(child);
}

/** Lists collect by a function of theirs, as choices check by one. */
function keepsOne(option: Option): boolean {
  return option.parseArg === undefined || option.argChoices !== undefined;
}

function faultOf(command: Command, option: Option, value: string): string | undefined {
  if (value === "" && !PLACES.includes(option.long ?? ""))
    return "has an empty value: is a variable empty?";
  // A list may be of options: those of runsc.
  const isOption = keepsOne(option) && command.options.some(({ long }) => long === value);
  if (value !== "--" && !isOption) return undefined;
  return `has no value, ${value} comes next: is a variable empty?`;
}

/**
 * Has `command` and every one below it ask for options that it needs after it has looked for those that it doesn't know: a slip in a
 * name would otherwise be told as something else that is missing.
 */
export function checkRequired(command: Command): void {
  const required = command.options.filter((option) => option.mandatory);
  for (const option of required) option.mandatory = false;
  command.hook("preAction", (_, acting) => {
    if (acting !== command) return;
    for (const option of required) {
      if (command.getOptionValue(option.attributeName()) !== undefined) continue;
      command.error(`error: required option '${option.flags}' not specified`);
    }
  });
  for (const child of command.commands) checkRequired(child);
}
