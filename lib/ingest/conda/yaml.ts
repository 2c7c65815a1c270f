// YAML of users' files, read without surprises: no aliases beyond what a lock needs, no types of our own making, one document.
// Control plane.

import { BurrowError } from "../../base/error.ts";

export type YamlMap = Readonly<Record<string, unknown>>;

/** Aliases may not multiply: a lock repeats a channel's name, no more. */
const ALIASES_MAX = 100;

/**
 * Lines and items of lists in line: a parsed one takes about 2 kB and 20 us, and the largest lock seen has 54,409. What goes past it
 * would be the end of the process for want of memory.
 */
export const YAML_ITEMS_MAX = 500_000;
const NEWLINE = 0x0a;
const COMMA = 0x2c;

/** The map that a text is. BURROW_BAD_LOCK, with the line, for what is none. */
export async function parseYamlMap(text: string, where: string): Promise<YamlMap> {
  checkItems(text, where);
  // Imported when there is YAML: every command would wait for it.
  const { isScalar, LineCounter, parseDocument, visit } = await import("yaml");
  const lineCounter = new LineCounter();
  // The library's own look for double keys compares each with all before it.
  const settings = { schema: "core", uniqueKeys: false, logLevel: "error", lineCounter } as const;
  const document = parseDocument(text, settings);
  const [error] = document.errors;
  if (error !== undefined) throw badLock(where, `it is no YAML: ${error.message.split("\n")[0]}`);
  visit(document, {
    Map(_, { items }) {
      const seen = new Set<unknown>();
      for (const { key } of items) {
        if (!isScalar(key) || seen.size < seen.add(key.value).size) continue;
        const { line } = lineCounter.linePos(key.range?.[0] ?? 0);
        throw badLock(
          where,
          `it has the key "${String(key.value).slice(0, 60)}" twice: line ${line}`,
        );
      }
    },
  });
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: ALIASES_MAX });
  } catch (cause) {
    throw badLock(where, "it is no YAML that can be read", cause);
  }
  if (isMap(value)) return value;
  throw badLock(where, "it is no lock and no environment file");
}

function checkItems(text: string, where: string): void {
  let items = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === NEWLINE || code === COMMA) items++;
  }
  if (items > YAML_ITEMS_MAX)
    throw badLock(where, `it has over ${YAML_ITEMS_MAX} lines and items of lists`);
}

export function isMap(value: unknown): value is YamlMap {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A list of maps; undefined for anything else. */
export function mapsOf(value: unknown): readonly YamlMap[] | undefined {
  return Array.isArray(value) && value.every(isMap) ? value : undefined;
}

export function textsOf(value: unknown): readonly string[] | undefined {
  return Array.isArray(value) && value.every((one) => typeof one === "string") ? value : undefined;
}

/** The error of a lock or environment file that can't be used. */
export function badLock(where: string, why: string, cause?: unknown): BurrowError {
  return new BurrowError("BURROW_BAD_LOCK", `${where}: ${why}`, {
    context: { source: where },
    ...(cause === undefined ? {} : { cause }),
  });
}
