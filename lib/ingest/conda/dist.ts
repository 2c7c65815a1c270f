// Names of package archives: "NAME-VERSION-BUILD.conda", at the end of URLs and paths. Pure. Any plane.

export const ARCHIVE_SUFFIX = /\.(conda|tar\.bz2)$/;

/** What an archive's name says; nothing that the archive need agree with. */
export interface Dist {
  readonly name: string;
  readonly version: string;
  readonly build: string;
}

/** The parts of the archive's name in a URL or path; undefined when it is no such name. */
export function distOf(place: string): Dist | undefined {
  const file = place.slice(place.lastIndexOf("/") + 1).replace(ARCHIVE_SUFFIX, "");
  const match = /^(.+)-([^-]+)-([^-]+)$/.exec(file);
  return match ? { name: match[1]!, version: match[2]!, build: match[3]! } : undefined;
}

/** The file's name in a URL or path. */
export function nameOfArchive(place: string): string {
  const path = URL.canParse(place) ? new URL(place).pathname : place;
  const name = path.slice(path.lastIndexOf("/") + 1);
  try {
    const decoded = decodeURIComponent(name);
    return decoded.includes("/") ? name : decoded;
  } catch {
    return name;
  }
}
