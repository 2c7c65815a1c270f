// The arguments that runsc gives its gofer, read leniently: unknown flags are ignored, since every revision has its own and
// global flags come in any order. reference: gofer launch contract of 2022, 2024 and 2026 revisions. Control plane.

import type { SpecialFiles } from "../tree/host-special.ts";

/** What a mount's lower and upper layers are. runsc: container.go GoferMountConf. */
export interface MountConf {
  readonly lower: string;
  readonly upper: string;
}

export interface GoferArguments {
  readonly bundle: string;
  /** One per root and bind mount in spec order; undefined for revisions before 2023, which have none. */
  readonly mountConfs: readonly MountConf[] | undefined;
  /** How many files it may have open (2024 and later). */
  readonly fdLimit: number | undefined;
  /**
   * The sandbox may want a file there to mount a file on: revisions with --rpc-fd (2024-11 and later). Those before make up a directory for
   * either.
   */
  readonly wantsFiles: boolean;
  /**
   * The sandbox works on host directories that the gofer gives it. Revisions that have mount confs have it on unless they are told
   * otherwise; those before the confs are taken not to have it.
   */
  readonly isDirect: boolean;
  /** --host-fifo and --host-uds: what special files of host directories it may open and make. */
  readonly special: SpecialFiles;
}

/** Reads `--name=value` and `--name value` of the flags we know. */
export function parseGoferArguments(argv: readonly string[]): GoferArguments {
  const value = (name: string): string | undefined => {
    for (const [i, word] of argv.entries()) {
      const bare = word.replace(/^--?/, "");
      if (bare === word) continue;
      if (bare === name) return argv[i + 1];
      if (bare.startsWith(`${name}=`)) return bare.slice(name.length + 1);
    }
    return undefined;
  };
  const confs = value("gofer-mount-confs");
  const isDirect = confs !== undefined && !isFalse(value("directfs"));
  const limit = Number(value("fdlimit"));
  const fdLimit = Number.isSafeInteger(limit) && limit > 0 ? limit : undefined;
  // 2022 takes the older name for all, too.
  const sockets = value("fsgofer-host-uds") === "true" ? "all" : (value("host-uds") ?? "none");
  const special = {
    opensFifos: value("host-fifo") === "open",
    connectsSockets: sockets === "open" || sockets === "all",
    bindsSockets: sockets === "create" || sockets === "all",
  };
  const bundle = value("bundle") ?? ".";
  const wantsFiles = value("rpc-fd") !== undefined;
  return { bundle, mountConfs: parseMountConfs(confs), fdLimit, wantsFiles, isDirect, special };
}

/** As Go's strconv.ParseBool has it. */
function isFalse(text: string | undefined): boolean {
  return text !== undefined && /^(0|f|F|false|FALSE|False)$/.test(text);
}

/** "lower:upper[:size=…],…": container.go GoferMountConfFlags. Bind entries only: no comma in a size. */
function parseMountConfs(text: string | undefined): MountConf[] | undefined {
  if (text === undefined || text === "") return undefined;
  return text.split(",").map((entry) => {
    const [lower = "none", upper = "none"] = entry.split(":");
    return { lower, upper };
  });
}
