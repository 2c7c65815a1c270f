// Match specs, as far as they are looked at before the solver reads them: which package and channel they name, and that they hold
// nothing which the solver takes for a path, silently ignores or can't survive. Pure. Control plane.

import { BurrowError } from "../../base/error.ts";

export interface MatchSpec {
  /** Lower case, as packages are named. */
  readonly name: string;
  /** What stood before "::". */
  readonly channel?: string;
  /** The spec without its channel. */
  readonly text: string;
}

/** Longest spec; a version constraint of a real package has at most a few hundred characters. */
const SPEC_MAX_CHARS = 4096;
const SPEC = /^(?:([^\s[\]=<>!~]+)::)?([A-Za-z0-9_][A-Za-z0-9_.-]*)(?=$|[\s=<>!~[;])/;
/** What may stand in brackets: other keys (url, fn, subdir, channel) are refused or ignored by the solver. */
const KEYS: ReadonlySet<string> = new Set(["version", "build", "build_number", "md5", "sha256"]);

/** Reads a spec of a user. BURROW_USAGE for what is none; the solver judges its versions. */
export function parseMatchSpec(spec: string): MatchSpec {
  const text = spec.trim();
  const refuse = (why: string): never => {
    throw new BurrowError("BURROW_USAGE", `"${text.slice(0, 200)}" is no spec: ${why}`);
  };
  if (text.length > SPEC_MAX_CHARS) refuse("it is too long");
  if (/[\0-\x1f\x7f]/.test(text)) refuse("it has control characters");
  const match = SPEC.exec(text);
  if (match === null) return refuse("it must start with a package's name, as in 'numpy>=1.24'");
  const [, channel, name] = match;
  const rest = text.slice(match[0].length);
  if (rest.includes("::")) refuse("a channel stands before the name, as in conda-forge::numpy");
  if (rest.includes(";")) refuse("conditions are not supported");
  for (const key of bracketKeys(rest)) {
    if (!KEYS.has(key)) refuse(`[${key}=…] is not supported; these are: ${[...KEYS].join(", ")}`);
  }
  const bare = `${name}${rest}`;
  return { name: name!.toLowerCase(), text: bare, ...(channel === undefined ? {} : { channel }) };
}

/** The keys in "[…]", with what is quoted left out. */
function bracketKeys(text: string): string[] {
  const at = text.indexOf("[");
  if (at < 0) return [];
  const inner = text.slice(at).replace(/'[^']*'|"[^"]*"/g, "");
  return [...inner.matchAll(/[[,]\s*([A-Za-z_]\w*)\s*=/g)].map((found) => found[1]!);
}

/** The package that a dependency in repodata names, lower case; undefined when it names none. */
export function dependencyName(depends: string): string | undefined {
  const text = depends.trim();
  const bare = text.slice(text.lastIndexOf("::") < 0 ? 0 : text.lastIndexOf("::") + 2);
  return /^[A-Za-z0-9_][A-Za-z0-9_.-]*/.exec(bare)?.[0].toLowerCase();
}
