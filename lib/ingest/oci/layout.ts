// OCI image layouts: from index.json, through nested indexes, to the manifest for this platform and the layers that it names.
// OCI image-spec image-layout.md, image-index.md, manifest.md. Control plane.

import { showDigest } from "../../base/digest.ts";
import { BurrowError } from "../../base/error.ts";
import { badArchive } from "../conda/errors.ts";
import { LAYERS_MAX, readConfig } from "./config.ts";
import {
  blobPath,
  type Descriptor,
  descriptorOf,
  isObject,
  isOurs,
  isText,
  type Json,
  listOf,
  type Platform,
  readDocument,
} from "./document.ts";
import type { ImageFiles } from "./files.ts";
import { type Image, type ImageLayer, type Seen, theOne } from "./image.ts";

const INDEX_TYPES = new Set([
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
]);
const MANIFEST_TYPES = new Set([
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.v2+json",
]);
const CONFIG_TYPES = new Set([
  "application/vnd.oci.image.config.v1+json",
  "application/vnd.docker.container.image.v1+json",
]);
const LAYER_TYPES =
  /^application\/vnd\.(oci\.image\.layer\.v1\.tar(\+gzip|\+zstd)?|docker\.image\.rootfs\.diff\.tar(\.gzip|\.zstd)?)$/;
/** Layers that are to be had from their owner alone: "non-distributable", and docker's "foreign" ones. */
const FOREIGN_TYPES = /\.(nondistributable|foreign)\./;

/** An index in an index is common (several platforms); one more is seen. */
const DEPTH_MAX = 4;
/** Entries of one index, and documents that are read on the way to one image. */
const ENTRIES_MAX = 1_024;
const DOCUMENTS_MAX = 512;

/** The image of a layout that runs here; `wanted` is its name, where there are several. */
export async function readLayout(files: ImageFiles, wanted?: string): Promise<Image> {
  const { name } = files;
  const layout = await readDocument(files, "oci-layout");
  if (layout["imageLayoutVersion"] !== "1.0.0") {
    const what = `image layouts of version ${String(layout["imageLayoutVersion"])} aren't supported`;
    throw new BurrowError("BURROW_UNSUPPORTED", what, { context: { archive: name } });
  }
  return await new LayoutReader(files).read(wanted);
}

class LayoutReader {
  readonly #files: ImageFiles;
  readonly #seen: Seen = { images: [], platforms: [], names: [] };
  #documents = 0;

  constructor(files: ImageFiles) {
    this.#files = files;
  }

  async read(wanted: string | undefined): Promise<Image> {
    const { name } = this.#files;
    const index = await readDocument(this.#files, "index.json");
    for (const descriptor of this.#entriesOf(index, "index.json")) {
      const names = namesOf(descriptor);
      this.#seen.names.push(...names);
      const own = showDigest(descriptor.digest);
      if (wanted !== undefined && wanted !== own && !names.includes(wanted)) continue;
      const image = await this.#imageOf(descriptor, names, 1);
      if (image !== undefined) this.#seen.images.push(image);
    }
    return theOne(this.#seen, name, wanted);
  }

  #entriesOf(index: Json, where: string): Descriptor[] {
    const { name } = this.#files;
    const what = `${where}: manifests`;
    const manifests = listOf(index["manifests"], isObject, ENTRIES_MAX, name, what);
    return manifests.map((value) => descriptorOf(value, name, where));
  }

  /** The image that a descriptor of an index leads to; undefined when it is none, or for another platform. */
  async #imageOf(
    descriptor: Descriptor,
    names: readonly string[],
    depth: number,
  ): Promise<Image | undefined> {
    const { mediaType, platform } = descriptor;
    const isIndex = INDEX_TYPES.has(mediaType);
    if (!isIndex && !MANIFEST_TYPES.has(mediaType)) return undefined;
    if (platform !== undefined && !isOurs(platform)) {
      this.#note(platform);
      return undefined;
    }
    if (!isIndex) return await this.#readManifest(descriptor, names);
    if (depth > DEPTH_MAX) throw this.#bad(`indexes lie over ${DEPTH_MAX} deep`, descriptor);
    const index = await this.#document(descriptor);
    const entries = this.#entriesOf(index, blobPath(descriptor.digest));
    // Stable: of entries for the same machine the first.
    entries.sort((left, right) => levelOf(left.platform) - levelOf(right.platform));
    for (const entry of entries) {
      const image = await this.#imageOf(entry, names, depth + 1);
      if (image !== undefined) return image;
    }
    return undefined;
  }

  /** Manifests of builders' attestations are for "unknown/unknown". */
  #note(platform: Platform): void {
    if (platform.os !== "unknown") this.#seen.platforms.push(platform);
  }

  async #document({ digest, sizeBytes }: Descriptor): Promise<Json> {
    if (++this.#documents > DOCUMENTS_MAX) {
      throw badArchive(this.#files.name, `its indexes lead to over ${DOCUMENTS_MAX} documents`);
    }
    return await readDocument(this.#files, blobPath(digest), { digest, sizeBytes });
  }

  #bad(why: string, { digest }: Descriptor): BurrowError {
    return badArchive(this.#files.name, why, blobPath(digest));
  }

  async #readManifest(
    descriptor: Descriptor,
    names: readonly string[],
  ): Promise<Image | undefined> {
    const { name } = this.#files;
    const where = blobPath(descriptor.digest);
    const manifest = await this.#document(descriptor);
    const type = manifest["mediaType"];
    if (manifest["schemaVersion"] !== 2 || (type !== undefined && type !== descriptor.mediaType)) {
      throw this.#bad("it is not the manifest that its descriptor says", descriptor);
    }
    const configured = descriptorOf(manifest["config"], name, `${where}: config`);
    // An artifact: a signature, a chart, a list of what is in another image.
    if (!CONFIG_TYPES.has(configured.mediaType)) return undefined;
    const place = blobPath(configured.digest);
    const config = readConfig(await this.#document(configured), name, place);
    if (!isOurs(config.platform)) {
      this.#note(config.platform);
      return undefined;
    }
    const listed = listOf(manifest["layers"], isObject, LAYERS_MAX, name, `${where}: layers`);
    if (listed.length !== config.diffIds.length) {
      const counts = `${listed.length} layers, and its config ${config.diffIds.length}`;
      throw this.#bad(`it has ${counts}`, descriptor);
    }
    const layers = listed.map((value, i) =>
      layerOf(descriptorOf(value, name, where), config.diffIds[i]!, name),
    );
    return { names, digest: descriptor.digest, configDigest: configured.digest, config, layers };
  }
}

function layerOf(descriptor: Descriptor, diffId: ImageLayer["diffId"], name: string): ImageLayer {
  const { mediaType, digest, sizeBytes } = descriptor;
  const path = blobPath(digest);
  if (LAYER_TYPES.test(mediaType)) return { path, diffId, digest, sizeBytes };
  let why = `a layer is of the unknown type ${mediaType}`;
  if (mediaType.endsWith("+encrypted")) why = "a layer is encrypted";
  else if (FOREIGN_TYPES.test(mediaType)) why = "a layer is foreign: its bytes are kept elsewhere";
  throw new BurrowError("BURROW_UNSUPPORTED", why, { context: { archive: name, entry: path } });
}

/** docker's full name first, then the tag or name that others write. */
function namesOf({ annotations }: Descriptor): string[] {
  const keys = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
  return keys
    .map((key) => annotations[key])
    .filter((value) => isText(value) && value !== "") as string[];
}

/** What runs on every machine before what needs a newer one: x86-64 has levels, "v1" (or none said) to "v4". */
function levelOf(platform: Platform | undefined): number {
  const level = /^v([2-9])$/.exec(platform?.variant ?? "");
  return level === null ? 1 : Number(level[1]);
}
