// What a command is started with where nobody said: by the image that the base was made of, else by what suits any root. Control plane.

import { existsSync } from "node:fs";
import { basename, resolve } from "node:path";
import { BurrowError } from "../base/error.ts";
import { isImage } from "../ingest/oci/open.ts";
import { isDigestOrFile } from "./digests.ts";
import type { ImageFacts } from "./image-facts.ts";

export interface CommandDefaults {
  readonly command: readonly string[];
  readonly cwd: string;
  readonly uid: number;
  readonly gid: number;
  readonly env: Readonly<Record<string, string>>;
}

/** nobody and nogroup of most systems. */
const NOBODY = { uid: 65_534, gid: 65_534 };
/** Where programs are where nothing says so. */
export const SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * The defaults over a base and, where there is one, an environment's prefix. An image's own variables win over Burrow's, and the
 * environment's PATH goes before the image's. BURROW_USAGE for an image's user that its /etc/passwd doesn't have, unless one is given.
 */
export function commandDefaults(
  facts: ImageFacts | undefined,
  prefix: string | undefined,
  hasUser: boolean,
): CommandDefaults {
  const own = Object.fromEntries((facts?.env ?? []).map(splitVariable));
  const path = own["PATH"] || SYSTEM_PATH;
  const common = { HOME: "/tmp", LANG: "C.UTF-8", PYTHONDONTWRITEBYTECODE: "1", TMPDIR: "/tmp" };
  const env = { PATH: path, ...common, ...own };
  const activated =
    prefix === undefined
      ? { PATH: path }
      : {
          PATH: `${prefix}/bin:${path}`,
          CONDA_PREFIX: prefix,
          CONDA_DEFAULT_ENV: prefix,
          CONDA_SHLVL: "1",
        };
  return {
    command: [...(facts?.entrypoint ?? []), ...(facts?.cmd ?? [])],
    cwd: facts?.workingDir || "/",
    ...idsOf(facts, hasUser),
    env: { ...env, ...activated },
  };
}

/** An image that names no user is run as nobody, as everything else is. */
function idsOf(facts: ImageFacts | undefined, hasUser: boolean): { uid: number; gid: number } {
  if (facts === undefined || hasUser || facts.user === "") return NOBODY;
  if (facts.ids !== null) return { uid: facts.ids[0], gid: facts.ids[1] };
  const what = `the image's user "${facts.user}" is not in its /etc/passwd or /etc/group`;
  throw new BurrowError("BURROW_USAGE", `${what}: say --user UID[:GID]`);
}

function splitVariable(text: string): [string, string] {
  const at = text.indexOf("=");
  return [text.slice(0, at), text.slice(at + 1)];
}

const NO_COMMAND = "missing required argument 'command', and the base says none";

/** BURROW_USAGE when there is no command, and no image that could have one. A digest's is seen later: see commandOf. */
export async function checkCommand(command: readonly string[], base: string): Promise<void> {
  if (command.length > 0 || isDigestOrFile(base)) return;
  if (existsSync(base) && (await isImage(base, basename(resolve(base))))) return;
  throw new BurrowError("BURROW_USAGE", NO_COMMAND);
}

/** The command that was given, or the base's. BURROW_USAGE when there is neither. */
export function commandOf(
  command: readonly string[],
  defaults: CommandDefaults,
): readonly string[] {
  if (command.length > 0) return command;
  if (defaults.command.length > 0) return defaults.command;
  throw new BurrowError("BURROW_USAGE", NO_COMMAND);
}
