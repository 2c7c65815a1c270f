// The errors of conda packages, each naming the archive or package and what in it is wrong. Control plane.

import { BurrowError } from "../../base/error.ts";
import { showName } from "../../base/name.ts";

/** Error of an archive that can't be believed, naming it and the entry. */
export function badArchive(
  archive: string,
  why: string,
  entry?: string,
  cause?: unknown,
): BurrowError {
  return new BurrowError("BURROW_BAD_ARCHIVE", why, {
    context: entry === undefined ? { archive } : { archive, entry: showName(entry) },
    ...(cause === undefined ? {} : { cause }),
  });
}

/** The error for an archive that the file system doesn't give us. */
export function readError(cause: unknown, archive: string): BurrowError {
  const isMissing = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
  const code = isMissing ? "BURROW_NOT_FOUND" : "BURROW_IO";
  return new BurrowError(code, "can't read the archive", { cause, context: { archive } });
}

/** Error of a package that is not what it says, naming it and the file. */
export function badPackage(name: string, why: string, file?: string, cause?: unknown): BurrowError {
  return new BurrowError("BURROW_BAD_PACKAGE", why, {
    context: file === undefined ? { package: name } : { package: name, file },
    ...(cause === undefined ? {} : { cause }),
  });
}
