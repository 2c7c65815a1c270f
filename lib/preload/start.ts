// Start: what is known of a command before it runs that tells what it will read: its program, and of Python which script or modules. Names
// alone: text of a command stays with who gave it. docs/format/mount.md. Control plane.

import { importsOfText } from "./python-text.ts";

export interface Start {
  /** As execve's caller has it: a path, or a name to be found in `path`. */
  readonly program: string;
  /** Directories of PATH. */
  readonly path: readonly string[];
  readonly cwd: string;
  /** Of Python: the file that it runs. */
  readonly script?: string;
  /** Of Python: modules that the command itself imports, by absolute names. */
  readonly imports: readonly string[];
}

/** Bounds of what mount.json may have. */
export const START_TEXT_MAX_CHARS = 4_096;
export const START_LIST_MAX = 1_024;

const PYTHON = /^python(?:3(?:\.\d+)?)?$/;
/** Options of Python that take an argument, but -c and -m, which end them: man python3. */
const WITH_ARGUMENT = "WXQ";

/** Of a command's words; undefined of none, or of what no mount.json may hold. */
export function startOf(
  words: readonly string[],
  environment: { readonly PATH?: string | undefined },
  cwd: string,
): Start | undefined {
  const [program = "", ...others] = words;
  if (program === "" || program.length > START_TEXT_MAX_CHARS) return undefined;
  const path = (environment.PATH ?? "").split(":").filter((each) => each !== "");
  const base = program.slice(program.lastIndexOf("/") + 1);
  const python = PYTHON.test(base) ? pythonStart(others) : { imports: [] };
  const fits = (each: string) => each !== "" && each.length <= START_TEXT_MAX_CHARS;
  return {
    program,
    path: path.filter(fits).slice(0, START_LIST_MAX),
    cwd: fits(cwd) ? cwd : "/",
    ...(python.script !== undefined && fits(python.script) ? { script: python.script } : {}),
    imports: python.imports.filter(fits).slice(0, START_LIST_MAX),
  };
}

/** By Python's own words: -c TEXT, -m MODULE, or a script. */
function pythonStart(words: readonly string[]): { script?: string; imports: string[] } {
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    if (word === "-" || word === "--") return { imports: [] };
    if (word.startsWith("--")) {
      if (word === "--check-hash-based-pycs") i++;
      continue;
    }
    if (!word.startsWith("-")) return { script: word, imports: [] };
    const at = [...word].findIndex((each, k) => k > 0 && `cm${WITH_ARGUMENT}`.includes(each));
    if (at < 0) continue;
    const option = word[at]!;
    const argument = word.slice(at + 1) || (words[++i] ?? "");
    if (option === "c") return { imports: importedBy(argument) };
    if (option === "m") return { imports: ["runpy", argument, `${argument}.__main__`] };
  }
  return { imports: [] };
}

function importedBy(text: string): string[] {
  const found = importsOfText(text).filter(({ level }) => level === 0);
  return [
    ...new Set(
      found.flatMap(({ module, names }) => [module, ...names.map((n) => `${module}.${n}`)]),
    ),
  ];
}
