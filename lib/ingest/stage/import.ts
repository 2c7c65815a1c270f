// A stage as a layer: its manifest's files as entries, and a locator of kind "files", so that they are read in place, by range,
// and checked like everything else. Nothing is copied. Control plane.

import { lstatSync, type Stats } from "node:fs";
import type { BlobRef } from "../../base/blob.ts";
import type { Digest } from "../../base/digest.ts";
import { BurrowError } from "../../base/error.ts";
import { BLOCK_DIGESTS_OVER_BYTES, METADATA_MAX_BYTES } from "../../base/limits.ts";
import { nameOf } from "../../base/name.ts";
import type { LayerEntry } from "../../layer/entry.ts";
import { digestOf } from "../../store/hash.ts";
import { encodeFileLocator, encodePinnedLocator } from "../../store/locator-writer.ts";
import { tenantDigest } from "../../store/object-pin.ts";
import { type OpenOptions, openOrigin } from "../../store/open.ts";
import { isS3 } from "../../store/s3-place.ts";
import { type Backend, classOf } from "../../store/store.ts";
import {
  checkStagePath,
  encodeManifest,
  MANIFEST_NAME,
  type Manifest,
  type ManifestFile,
  parseManifest,
} from "./manifest.ts";
import { importObjects, type Listing, type Naming } from "./objects.ts";
import { hashStream, type ScanOptions, scanStage } from "./scan.ts";

export interface ImportedStage {
  readonly entries: LayerEntry[];
  /** Bytes of the locator: keep it beside the index (cache.ts keepIndex). */
  readonly locator: Buffer;
  /** The version that is pinned: sha256 of the manifest; of a bucket's objects that of their locator. */
  readonly digest: Digest;
  /** Of one without a manifest: what was listed. */
  readonly listing?: Listing;
  /** Where the daemon reads the files: the origin of this stage's snapshot. */
  readonly origin: string;
  readonly bytes: number;
  /** A file of a directory that seems to have changed after its manifest was written: the manifest counts. */
  readonly changed: string | undefined;
}

const FILE_MODE = 0o644;
const DIRECTORY_MODE = 0o755;
const LINK_MODE = 0o777;
/** One read of a large file whose blocks a manifest does not give. */
const READ_BYTES = 4 * 1024 * 1024;

export interface StageOptions extends OpenOptions, ScanOptions {
  /**
   * How the objects of a bucket are named that has no manifest; missing: such a stage is refused. With a tenant also how files of other stages
   * are: by their content and the tenant.
   */
  readonly naming?: Naming;
  /** Called with the objects that were listed so far. */
  readonly onObjects?: (objects: number) => void;
}

/**
 * Imports a stage from a directory or an http(s) or s3 prefix. Without a manifest a directory is scanned and hashed, and a prefix of a
 * bucket listed; one on a web server must have a manifest, since HTTP can't list it and reading all of it would cost as much as fetching it.
 */
export async function importStage(
  source: string,
  options: StageOptions = {},
): Promise<ImportedStage> {
  const backend = openOrigin(source, options);
  try {
    const bytes = await manifestBytes(backend, source, options);
    if (bytes === undefined) return await importObjects(source, options.naming!, options);
    const manifest = parseManifest(bytes, source);
    const files: BlobRef[] = [];
    for (const file of manifest.files) files.push(await refOf(backend, file));
    const places = manifest.files.map(({ path }, i) => ({ path, ...files[i]! }));
    const owned = options.naming?.tenant ? tenantPlaces(places, options.naming) : undefined;
    return {
      entries: entriesOf(manifest, owned ?? files),
      locator: owned
        ? encodePinnedLocator(options.naming!.tenant, owned)
        : encodeFileLocator(places),
      digest: digestOf(bytes),
      origin: source,
      bytes: files.reduce((sum, file) => sum + file.size, 0),
      changed: isLocal(source) ? changedFile(source, manifest) : undefined,
    };
  } finally {
    backend.close();
  }
}

/** Files under names that are a tenant's own; an empty one is the same for all. */
function tenantPlaces(
  files: readonly (BlobRef & { readonly path: string })[],
  { key, tenant }: Naming,
) {
  return files.map(({ path, digest: sum, size, blocks }) => {
    const digest = size === 0 ? sum : tenantDigest(key, tenant, sum, size);
    return { path, digest, sum, size, blocks };
  });
}

function isLocal(source: string): boolean {
  return !/^(https?|s3):/.test(source);
}

/** The first file that is gone, of another size, or written later than both the manifest and the time it has there. */
function changedFile(directory: string, manifest: Manifest): string | undefined {
  const writtenMs = statOf(`${directory}/${MANIFEST_NAME}`)?.mtimeMs;
  if (writtenMs === undefined) return undefined; // scanned just now
  for (const { path, size, mtime } of manifest.files) {
    const stat = statOf(`${directory}/${path}`);
    const isLater = stat !== undefined && stat.mtimeMs > writtenMs;
    if (stat?.size !== size || (isLater && Math.floor(stat.mtimeMs / 1000) !== mtime)) return path;
  }
  return undefined;
}

function statOf(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}

/** undefined: there is none, and the source can be listed. */
async function manifestBytes(
  backend: Backend,
  source: string,
  options: StageOptions,
): Promise<Uint8Array | undefined> {
  try {
    return await backend.get(MANIFEST_NAME, { maxBytes: METADATA_MAX_BYTES });
  } catch (error) {
    if (classOf(error) !== "notFound") throw error;
    if (isLocal(source)) return encodeManifest(await scanStage(source, options));
    if (isS3(source) && options.naming !== undefined) return undefined;
    const advice = "make one where its files lie: burrow stage create DIR";
    throw new BurrowError("BURROW_NOT_FOUND", `the stage has no ${MANIFEST_NAME}; ${advice}`, {
      context: { source },
    });
  }
}

/** The blob of a file. A large one without block digests is read once, and must be what the manifest says. */
async function refOf(backend: Backend, file: ManifestFile): Promise<BlobRef> {
  const { sha256: digest, size } = file;
  if (size <= BLOCK_DIGESTS_OVER_BYTES) return { digest, size, blocks: [] };
  if (file.blocks !== undefined) return { digest, size, blocks: file.blocks };
  const ref = await hashStream(contentOf(backend, file));
  if (ref.digest === digest) return ref;
  throw new BurrowError(
    "BURROW_DIGEST_MISMATCH",
    "a file of the stage is not what its manifest says",
    {
      context: { path: file.path, source: backend.origin, expected: digest, actual: ref.digest },
    },
  );
}

async function* contentOf(backend: Backend, file: ManifestFile): AsyncIterable<Uint8Array> {
  for (let offset = 0; offset < file.size; offset += READ_BYTES) {
    const length = Math.min(READ_BYTES, file.size - offset);
    yield await backend.get(file.path, { range: { offset, length } });
  }
}

function entriesOf(manifest: Manifest, refs: readonly BlobRef[]): LayerEntry[] {
  const common = (path: string, mode: number, mtimeSec = 0) => {
    return { path: checkStagePath(path), mode, uid: 0, gid: 0, mtimeSec, mtimeNs: 0 };
  };
  return [
    ...manifest.directories.map(({ path, mode, mtime }) => {
      return { ...common(path, mode ?? DIRECTORY_MODE, mtime), type: "directory" } as const;
    }),
    ...manifest.files.map(({ path, mode, mtime }, i) => {
      return { ...common(path, mode ?? FILE_MODE, mtime), type: "file", blob: refs[i]! } as const;
    }),
    ...manifest.symlinks.map(({ path, target }) => {
      return { ...common(path, LINK_MODE), type: "symlink", target: nameOf(target) } as const;
    }),
  ];
}
