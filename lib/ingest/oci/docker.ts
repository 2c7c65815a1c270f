// What docker save writes: manifest.json with, for each image, its config, its names and its layers' tars. moby
// image/spec/v1.2.md "Combined Image JSON + Filesystem Changeset Format". Control plane.

import { type Digest, parseDigest } from "../../base/digest.ts";
import { badArchive } from "../conda/errors.ts";
import { LAYERS_MAX, readConfig } from "./config.ts";
import { asObject, findDocument, isObject, isOurs, isText, type Json, listOf } from "./document.ts";
import type { ImageFiles } from "./files.ts";
import { type Image, type Seen, theOne } from "./image.ts";

/** Images of one archive, and names of one image. */
const IMAGES_MAX = 1_024;

export const DOCKER_MANIFEST = "manifest.json";

/** Whether a JSON value can be docker's manifest.json. */
export function isDockerManifest(value: unknown): boolean {
  const isEntry = (entry: unknown) =>
    isObject(entry) && isText(entry["Config"]) && Array.isArray(entry["Layers"]);
  return Array.isArray(value) && value.length > 0 && value.every(isEntry);
}

/** The image of an archive that runs here; `wanted` is one of its tags, where there are several images. */
export async function readDockerArchive(files: ImageFiles, wanted?: string): Promise<Image> {
  const { name } = files;
  const manifest = (await findDocument(files, DOCKER_MANIFEST))?.value;
  if (manifest === undefined) throw badArchive(name, "it is missing", DOCKER_MANIFEST);
  if (!isDockerManifest(manifest)) throw badArchive(name, "it lists no images", DOCKER_MANIFEST);
  const seen: Seen = { images: [], platforms: [], names: [] };
  for (const entry of listOf(manifest, isObject, IMAGES_MAX, name, DOCKER_MANIFEST)) {
    const names = listOf(entry["RepoTags"], isText, IMAGES_MAX, name, "RepoTags");
    seen.names.push(...names);
    const place = entry["Config"] as string;
    const named = digestIn(place);
    const isWanted = wanted === undefined || names.includes(wanted) || `sha256:${named}` === wanted;
    if (!isWanted) continue;
    const document = await findDocument(files, place, named === undefined ? {} : { digest: named });
    if (document === undefined) throw badArchive(name, "it is missing", place);
    const config = readConfig(asObject(document.value, name, place), name, place);
    if (!isOurs(config.platform)) seen.platforms.push(config.platform);
    else seen.images.push(imageOf(entry, names, document.digest, config, name));
  }
  return theOne(seen, name, wanted);
}

function imageOf(
  entry: Json,
  names: readonly string[],
  digest: Digest,
  config: Image["config"],
  archive: string,
): Image {
  const paths = listOf(entry["Layers"], isText, LAYERS_MAX, archive, `${DOCKER_MANIFEST}: Layers`);
  if (paths.length !== config.diffIds.length) {
    const counts = `${paths.length} layers, and its config ${config.diffIds.length}`;
    throw badArchive(archive, `an image has ${counts}`, DOCKER_MANIFEST);
  }
  const layers = paths.map((path, i) => {
    const blob = /^blobs\/sha256\/([0-9a-f]{64})$/.exec(path)?.[1];
    const named = blob === undefined ? {} : { digest: blob as Digest };
    return { path, diffId: config.diffIds[i]!, ...named };
  });
  return { names, digest, configDigest: digest, config, layers };
}

/** The digest that a config's name is made of, however it is written: "HEX.json", "sha256:HEX", "blobs/sha256/HEX". */
function digestIn(path: string): Digest | undefined {
  const hex = /(?:^|\/|sha256:)([0-9a-f]{64})(?:\.json)?$/.exec(path)?.[1];
  return hex === undefined ? undefined : parseDigest(hex);
}
