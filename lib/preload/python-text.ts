// Python's text: which modules it imports when it is run, as far as that can be seen without running it. Statements of functions are
// left out (they run later, if at all), and those that only a type checker sees. Text of anybody: what can't be read imports nothing.
// Control plane.

import { FORESEEN_IMPORTS_MAX, FORESEEN_NAME_MAX_CHARS } from "../base/limits.ts";

/** `import a.b` is {level 0, module "a.b", names []}; `from .c import d` {1, "c", ["d"]}. */
export interface PythonImport {
  /** Leading dots: 0 is absolute. */
  readonly level: number;
  readonly module: string;
  /** What is taken from it: its submodules, perhaps. */
  readonly names: readonly string[];
}

/** Longer statements are data, no imports. */
const STATEMENT_MAX_CHARS = 16 * 1024;
const WORD = String.raw`[\p{L}_][\p{L}\p{N}_]*`;
// Statements have single spaces alone: a pattern with more, or with blanks of other kinds, would try each way to part them.
const DOTTED = String.raw`${WORD}(?: ?\. ?${WORD})*`;
const NAME = new RegExp(`^(${DOTTED})(?: as ${WORD})?$`, "u");
const FROM = new RegExp(`^from ?([. ]*)(${DOTTED})? ?\\bimport\\b ?\\(?([^)]*)\\)?$`, "u");
/** What begins a block that isn't run when the module is. */
const NOT_RUN = /^(?:async )?def\b|^(?:el)?if (?:typing ?\. ?|t ?\. ?)?TYPE_CHECKING$/;
/** What Python takes for one; others are in no statement that it takes. Python/tokenizer.c */
const BLANKS = " \t\f\r\n";

/** Imports of a module's text, in order. Never throws. */
export function importsOfText(text: string): PythonImport[] {
  const found: PythonImport[] = [];
  let skippedIndent = Number.POSITIVE_INFINITY;
  let left = FORESEEN_IMPORTS_MAX;
  for (const { indent, statement } of statementsOf(text)) {
    if (indent > skippedIndent) continue;
    skippedIndent = Number.POSITIVE_INFINITY;
    if (NOT_RUN.test(statement)) {
      skippedIndent = indent;
      continue;
    }
    const imports = importsOf(statement);
    for (const { names } of imports) left -= 1 + names.length;
    if (left < 0) break;
    found.push(...imports);
  }
  return found;
}

function importsOf(statement: string): PythonImport[] {
  if (statement.startsWith("import")) {
    const rest = statement.slice("import".length);
    if (!rest.startsWith(" ")) return [];
    const modules = rest.split(",").map(nameIn);
    return modules.flatMap((module) =>
      module === undefined ? [] : [{ level: 0, module: compact(module), names: [] }],
    );
  }
  if (!statement.startsWith("from")) return [];
  const match = FROM.exec(statement);
  if (match === null) return [];
  const [, dots = "", module = "", list = ""] = match;
  const level = compact(dots).length;
  if (level === 0 && module === "") return [];
  if (module.length > FORESEEN_NAME_MAX_CHARS) return [];
  const names = list.split(",").map(nameIn);
  return [{ level, module: compact(module), names: names.filter((name) => name !== undefined) }];
}

/** What `NAME` or `NAME as OTHER` names; undefined of what no file is named by. */
function nameIn(text: string): string | undefined {
  const name = NAME.exec(text.trim())?.[1];
  return name === undefined || name.length > FORESEEN_NAME_MAX_CHARS ? undefined : name;
}

function compact(text: string): string {
  return text.replaceAll(" ", "");
}

interface Statement {
  /** Characters before the line's first; of a statement behind a ":" or ";", one more than that of what comes before. */
  readonly indent: number;
  readonly statement: string;
}

/** Simple statements and the heads of compound ones, without comments and what is in strings; of blanks one space. */
function* statementsOf(text: string): Iterable<Statement> {
  let indent = 0;
  let isLineStart = true;
  let isBehindHead = false;
  let depth = 0;
  let statement = "";
  /** That it ends with a blank: to look at its end would put its parts together each time. */
  let endsBlank = false;
  const length = text.length;
  for (let at = 0; at <= length; ) {
    const char = at < length ? text[at]! : "\n";
    if (isLineStart) {
      indent = 0;
      while (text[at + indent] === " " || text[at + indent] === "\t") indent++;
      at += indent;
      isLineStart = false;
      isBehindHead = false;
      continue;
    }
    if (char === "#") {
      const end = text.indexOf("\n", at);
      at = end < 0 ? length : end;
      continue;
    }
    if (char === '"' || char === "'") {
      at = stringEnd(text, at);
      if (statement.length < STATEMENT_MAX_CHARS) statement += '""';
      endsBlank = false;
      continue;
    }
    if (char === "\\" && /^\\\r?\n/.test(text.slice(at, at + 3))) {
      at = text.indexOf("\n", at) + 1;
      if (!endsBlank) statement += " ";
      endsBlank = true;
      continue;
    }
    if (char === "(" || char === "[" || char === "{") depth++;
    if ((char === ")" || char === "]" || char === "}") && depth > 0) depth--;
    at++;
    const isEnd = (char === "\n" && depth === 0) || at > length;
    if (isEnd || (depth === 0 && (char === ";" || char === ":"))) {
      const trimmed = statement.trim();
      if (trimmed !== "") yield { indent: indent + (isBehindHead ? 1 : 0), statement: trimmed };
      statement = "";
      endsBlank = false;
      isBehindHead ||= char === ":";
      isLineStart = char === "\n";
    } else if (statement.length < STATEMENT_MAX_CHARS) {
      const isBlank = BLANKS.includes(char);
      if (!isBlank) statement += char;
      else if (!endsBlank) statement += " ";
      endsBlank = isBlank;
    }
  }
}

/** Behind the string that begins at an offset; an unfinished one ends with its line, or the text. */
function stringEnd(text: string, at: number): number {
  const quote = text[at]!;
  const isLong = text.startsWith(quote.repeat(3), at);
  const mark = isLong ? quote.repeat(3) : quote;
  for (let i = at + mark.length; i < text.length; i++) {
    if (text[i] === "\\") i++;
    else if (text.startsWith(mark, i)) return i + mark.length;
    else if (!isLong && text[i] === "\n") return i;
  }
  return text.length;
}
