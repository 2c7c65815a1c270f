// PackageRecord: what conda-meta/NAME.json says of an installed package, as conda and mamba read it: which files it owns and what
// they were before the prefix went in. The same package, URL and prefix give the same bytes: it holds no times. Control plane.

import { showName } from "../../base/name.ts";
import type { IndexJson, ListedPath } from "./metadata.ts";

export interface RecordPath {
  readonly _path: string;
  readonly path_type: "hardlink" | "softlink" | "directory" | "unix_python_entry_point";
  readonly sha256?: string;
  readonly sha256_in_prefix?: string;
  readonly size_in_bytes?: number;
  readonly prefix_placeholder?: string;
  readonly file_mode?: "text" | "binary";
}

export interface PackageRecord {
  readonly name: string;
  readonly version: string;
  readonly build: string;
  readonly build_number: number;
  readonly channel: string;
  readonly subdir: string;
  readonly fn: string;
  readonly url: string;
  readonly md5: string;
  readonly sha256: string;
  readonly size: number;
  readonly depends: readonly string[];
  readonly constrains: readonly string[];
  readonly license?: string;
  readonly license_family?: string;
  readonly noarch?: "python" | "generic";
  readonly python_site_packages_path?: string;
  readonly files: readonly string[];
  readonly paths_data: { readonly paths_version: 1; readonly paths: readonly RecordPath[] };
  readonly link: { readonly type: 1 };
}

export interface ArchiveFacts {
  readonly url: string;
  readonly fileName: string;
  readonly sha256: string;
  readonly md5: string;
  readonly size: number;
}

export function makeRecord(
  index: IndexJson,
  archive: ArchiveFacts,
  paths: readonly RecordPath[],
): PackageRecord {
  const url = plainUrl(archive.url);
  return {
    name: index.name,
    version: index.version,
    build: index.build,
    build_number: index.buildNumber,
    channel: channelOf(url, index.subdir),
    subdir: index.subdir,
    fn: archive.fileName,
    url,
    md5: archive.md5,
    sha256: archive.sha256,
    size: archive.size,
    depends: index.depends,
    constrains: index.constrains,
    ...(index.license === undefined ? {} : { license: index.license }),
    ...(index.licenseFamily === undefined ? {} : { license_family: index.licenseFamily }),
    ...(index.noarch === undefined ? {} : { noarch: index.noarch }),
    ...(index.sitePackages === undefined
      ? {}
      : { python_site_packages_path: showName(index.sitePackages) }),
    files: paths.map(({ _path }) => _path),
    paths_data: { paths_version: 1, paths },
    link: { type: 1 },
  };
}

/** The bytes of a record's file. */
export function recordBytes(record: PackageRecord): Buffer {
  return Buffer.from(`${JSON.stringify(record, null, 2)}\n`);
}

/** Where a record lies below the prefix; latin1, since its parts have no other characters than a file name may. */
export function recordPath({
  name,
  version,
  build,
}: Pick<IndexJson, "name" | "version" | "build">): string {
  return `conda-meta/${Buffer.from(`${name}-${version}-${build}.json`).toString("latin1")}`;
}

/** A listed path as the record has it. `type` is what it is in the prefix; `digest` its content's there. */
export function recordPathOf(
  listed: ListedPath,
  path: string,
  type: RecordPath["path_type"],
  found?: { readonly sha256: string; readonly sha256InPrefix: string; readonly size: number },
): RecordPath {
  return {
    _path: showName(path),
    path_type: type,
    ...(found === undefined
      ? {}
      : {
          sha256: found.sha256,
          sha256_in_prefix: found.sha256InPrefix,
          size_in_bytes: found.size,
        }),
    ...(listed.placeholder === undefined
      ? {}
      : {
          prefix_placeholder: listed.placeholder.text,
          file_mode: listed.placeholder.mode,
        }),
  };
}

/**
 * A URL without what may be secret: the user's name and password, an access token (the first "/t/TOKEN/", as with conda
 * wherever it stands), and what follows "?" or "#".
 */
export function plainUrl(url: string): string {
  if (!URL.canParse(url)) return url;
  const parsed = new URL(url);
  parsed.username = "";
  parsed.password = "";
  parsed.search = "";
  parsed.hash = "";
  const isRemote = /^https?:$/.test(parsed.protocol);
  if (isRemote) parsed.pathname = parsed.pathname.replace(/\/t\/[^/]+\//, "/");
  return parsed.href;
}

/** The channel of a package's URL: all before "/SUBDIR/FILE", or before "/FILE" when it is not laid out so. */
function channelOf(url: string, subdir: string): string {
  const folder = url.slice(0, Math.max(0, url.lastIndexOf("/")));
  return folder.endsWith(`/${subdir}`) ? folder.slice(0, -subdir.length - 1) : folder;
}
