// What burrow explain finds out of one path: facts alone, for JSON and people. Control plane.

import { readdirSync } from "node:fs";
import { posix } from "node:path";
import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { S_IFDIR, S_IFIFO, S_IFMT, S_IFREG } from "../base/file-types.ts";
import { nameOf, showName } from "../base/name.ts";
import { type PackageRecord, recordPath } from "../ingest/conda/record.ts";
import { entriesOf } from "../layer/entries.ts";
import { Inode } from "../layer/format.ts";
import { readLocator } from "../store/known.ts";
import { storedBlob } from "./content.ts";
import type { ExplainedPlace, ExplainedView } from "./explain-view.ts";
import { contentAt } from "./layer-content.ts";
import type { Owner } from "./owners.ts";
import { readIndex } from "./read-index.ts";
import { type FollowedLink, type Found, findPath } from "./view-path.ts";
import { isHere } from "./warm-room.ts";

export interface Explained {
  /** As it was asked for. */
  readonly path: string;
  /** Without symlinks. */
  readonly resolved: string;
  /** Those that were followed, in order. */
  readonly links: readonly FollowedLink[];
  readonly type: "file" | "directory" | "fifo" | "other";
  /** Octal. */
  readonly mode: string;
  readonly uid: number;
  readonly gid: number;
  /** The snapshot that shows there; null for a directory that is only there for what is mounted below it. */
  readonly place: {
    readonly at: string;
    readonly snapshot: string;
    readonly origin: string;
  } | null;
  /** Null for directories, and in what is no environment. */
  readonly owner: (Omit<Owner, "layer"> & { readonly layer: string }) | null;
  /** Titles of those whose file gives way to it. */
  readonly hides: readonly string[];
  readonly prefix: PrefixPatch | null;
  /** Null but for files. */
  readonly content: Content | null;
  /** Of a directory in an environment: files and symlinks below it, by owner, the most first. */
  readonly below: readonly { readonly title: string; readonly files: number }[] | null;
}

/** What was written into a file when it was put under its prefix. */
export interface PrefixPatch {
  readonly written: string;
  readonly placeholder: string;
  readonly mode: "text" | "binary";
  /** Digest of the file in the package; null where the package doesn't say. */
  readonly before: string | null;
}

export interface Content {
  readonly bytes: number;
  readonly digest: string;
  /** With a digest of their own; 0: it is small. */
  readonly blocks: number;
  /** Hard links. */
  readonly names: number;
  readonly here: "whole" | "partly" | "no" | "empty";
  /** Null where the store can't say, and of plain files. */
  readonly stored: {
    readonly bytes: number;
    readonly packs: readonly string[];
    readonly deltas: number;
  } | null;
}

/** BURROW_NOT_FOUND, saying what on the way isn't there. */
export async function explainPath(view: ExplainedView, path: string): Promise<Explained> {
  const root = view.places[0]!.at;
  const asked = path.startsWith("/") ? path : posix.join(root, path);
  const found = findPath({ grafts: view.places, unknown: [] }, asked);
  if (found === "unknown") throw new BurrowError("BURROW_BAD_INDEX", `${path}: its index lies`);
  if ("missing" in found) throw notThere(view, path, found);
  const { resolved, place } = { resolved: found.path, place: found.inode?.graft };
  const common = {
    path,
    resolved,
    links: found.links,
    type: typeOf(found.mode),
    mode: (found.mode & 0o7777).toString(8),
    uid: found.uid,
    gid: found.gid,
    place: place === undefined ? null : shownPlace(place),
  };
  if (place === undefined) return { ...common, ...NOTHING };
  const below = nameOf(posix.relative(place.at, resolved));
  if (common.type === "directory")
    return { ...common, ...NOTHING, below: await sumBelow(view, place, below) };
  const owners = await view.owners(place);
  const claims = owners?.claimsOf(below) ?? [];
  const owner = claims.at(-1);
  return {
    ...common,
    below: null,
    owner: owner === undefined ? null : { ...owner, layer: showDigest(owner.layer) },
    hides: claims.slice(0, -1).map(({ title }) => title),
    prefix: owner?.kind === "package" ? ((await patchOf(view, place, owner, below)) ?? null) : null,
    content: common.type === "file" ? await contentOf(view, place, found) : null,
  };
}

const NOTHING = { owner: null, hides: [], prefix: null, content: null, below: null };

function typeOf(mode: number): Explained["type"] {
  const type = mode & S_IFMT;
  if (type === S_IFREG) return "file";
  if (type === S_IFDIR) return "directory";
  return type === S_IFIFO ? "fifo" : "other";
}

function shownPlace({ at, snapshot, origin }: ExplainedPlace) {
  return { at, snapshot: showDigest(snapshot), origin };
}

function notThere(
  view: ExplainedView,
  path: string,
  { missing, links }: { missing: string; links: readonly FollowedLink[] },
): BurrowError {
  const last = links.at(-1);
  const why =
    last === undefined ? "" : `; ${last.path} is a symlink to ${last.target}, and leads nowhere`;
  const places = view.places.map(({ at }) => at).join(", ");
  const advice = `the view shows snapshots at ${places}`;
  return new BurrowError("BURROW_NOT_FOUND", `${path}: there is no ${missing}${why}; ${advice}`);
}

async function sumBelow(view: ExplainedView, place: ExplainedPlace, below: string) {
  const owners = await view.owners(place);
  if (owners === undefined) return null;
  const counts = new Map<string, number>();
  const folder = below === "" ? "" : `${below}/`;
  for (const { path, type } of entriesOf(place.index)) {
    if (type === "directory" || !path.startsWith(folder)) continue;
    const title = owners.claimsOf(path).at(-1)?.title ?? "nobody";
    counts.set(title, (counts.get(title) ?? 0) + 1);
  }
  return [...counts]
    .map(([title, files]) => ({ title, files }))
    .sort((one, two) => two.files - one.files || (one.title < two.title ? -1 : 1));
}

/** What a package's own record says of a file's prefix; undefined when nothing was written into it, or the record can't be had. */
async function patchOf(
  view: ExplainedView,
  place: ExplainedPlace,
  { name, version, build, layer }: Owner,
  below: string,
): Promise<PrefixPatch | undefined> {
  const { store, origin } = place;
  const content = await view.attempt(origin, async () => {
    const [index, locator] = await Promise.all([
      readIndex(store, layer),
      readLocator(store, layer),
    ]);
    const path = recordPath({ name: name!, version: version!, build: build! });
    return await contentAt(store, index, locator, path);
  });
  if (content === undefined) return undefined;
  const record = JSON.parse(content.toString("utf8")) as PackageRecord;
  const listed = record.paths_data.paths.find(({ _path }) => _path === showName(below));
  if (listed?.prefix_placeholder === undefined) return undefined;
  return {
    written: place.at,
    placeholder: listed.prefix_placeholder,
    mode: listed.file_mode ?? "text",
    before: listed.sha256 === undefined ? null : `sha256:${listed.sha256}`,
  };
}

async function contentOf(
  view: ExplainedView,
  place: ExplainedPlace,
  found: Found<ExplainedPlace>,
): Promise<Content> {
  const { index } = place;
  const row = index.row(found.inode!.ino);
  const blob = index.field(row, Inode.a);
  const digest = index.blobDigest(blob);
  const bytes = index.sizeAt(row);
  const locator = await view.locator(place);
  const stored = locator?.kind === "packs" ? storedBlob(index, blob, locator) : undefined;
  return {
    bytes,
    digest: showDigest(digest),
    blocks: index.blockCount(blob),
    names: index.field(row, Inode.nlink),
    here: whereabouts(view, digest, bytes),
    stored:
      stored === undefined
        ? null
        : {
            bytes: stored.storedBytes,
            packs: [...new Set(stored.chunks.map(({ pack }) => showDigest(pack)))],
            deltas: stored.chunks.filter(({ isDelta }) => isDelta).length,
          },
  };
}

function whereabouts({ cache }: ExplainedView, digest: Digest, bytes: number): Content["here"] {
  if (bytes === 0) return "empty";
  if (cache === undefined) return "no";
  if (isHere(cache, digest, bytes)) return "whole";
  const partials = readdirSync(`${cache.root}/partial`);
  return partials.some((name) => name.startsWith(`${digest}.`)) ? "partly" : "no";
}
