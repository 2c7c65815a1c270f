// What a path is: an image, in which form, or none; and the image in it. Control plane.

import { open, stat } from "node:fs/promises";
import { BurrowError } from "../../base/error.ts";
import { readError } from "../conda/errors.ts";
import { kindOf, MAGIC_BYTES } from "../decompress.ts";
import { DOCKER_MANIFEST, isDockerManifest, readDockerArchive } from "./docker.ts";
import { findDocument, isObject } from "./document.ts";
import { type ImageFiles, openFolder } from "./files.ts";
import type { Image } from "./image.ts";
import { readLayout } from "./layout.ts";
import { openTar } from "./tar-files.ts";

export type ImageForm = "oci" | "docker-archive";

/** Names in the tars of docker, podman, skopeo, buildah, crane and jib. A root file system has others soon. */
const IMAGE_NAME =
  /^(oci-layout|index\.json|manifest\.json|repositories|config\.json|blobs(\/.*)?|(sha256:)?[0-9a-f]{64}([./].*)?)$/;

/**
 * The files of an image and the form that they have; undefined when the path is no image. Without `form` that is told by what is there:
 * a layout before docker's, since newer archives are both. With it every file is taken for an image. The caller disposes of the files.
 */
export async function openImage(
  path: string,
  name: string,
  form?: ImageForm,
): Promise<{ files: ImageFiles; form: ImageForm } | undefined> {
  const files = await openFiles(path, name, form !== undefined);
  if (files === undefined) return undefined;
  let found: ImageForm | undefined;
  try {
    found = form ?? (await formOf(files));
  } finally {
    if (found === undefined) await files[Symbol.asyncDispose]();
  }
  return found && { files, form: found };
}

/** Whether a path is an image by its content. */
export async function isImage(path: string, name: string): Promise<boolean> {
  const opened = await openImage(path, name);
  await opened?.files[Symbol.asyncDispose]();
  return opened !== undefined;
}

/** The image that runs here; see readLayout and readDockerArchive. */
export async function readImage(
  files: ImageFiles,
  form: ImageForm,
  wanted?: string,
): Promise<Image> {
  return form === "oci" ? await readLayout(files, wanted) : await readDockerArchive(files, wanted);
}

async function openFiles(
  path: string,
  name: string,
  isKnown: boolean,
): Promise<ImageFiles | undefined> {
  const kind = await stat(path).catch((cause: unknown) => {
    throw readError(cause, name);
  });
  if (kind.isDirectory()) return await openFolder(path, name);
  if (!kind.isFile()) return undefined;
  if (await isCompressed(path, name)) {
    if (!isKnown) return undefined;
    const why = "an image is read in place: decompress the archive first";
    throw new BurrowError("BURROW_UNSUPPORTED", why, { context: { archive: name } });
  }
  if (isKnown) return await openTar(path, { name });
  try {
    return await openTar(path, { name, isExpected: (member) => IMAGE_NAME.test(member) });
  } catch (error) {
    // Whoever reads it as a tree says what is wrong with it.
    if (error instanceof BurrowError && error.code === "BURROW_BAD_ARCHIVE") return undefined;
    throw error;
  }
}

async function isCompressed(path: string, name: string): Promise<boolean> {
  try {
    await using file = await open(path, "r");
    const start = Buffer.alloc(MAGIC_BYTES);
    const { bytesRead } = await file.read(start, 0, MAGIC_BYTES, 0);
    return kindOf(start.subarray(0, bytesRead)) !== "none";
  } catch (cause) {
    throw readError(cause, name);
  }
}

async function formOf(files: ImageFiles): Promise<ImageForm | undefined> {
  const layout = await findQuietly(files, "oci-layout");
  if (isObject(layout) && "imageLayoutVersion" in layout) return "oci";
  return isDockerManifest(await findQuietly(files, DOCKER_MANIFEST)) ? "docker-archive" : undefined;
}

/** Of a directory that may be anything, a file that can't be taken for a document says only that it is no image. */
async function findQuietly(files: ImageFiles, path: string): Promise<unknown> {
  try {
    return (await findDocument(files, path))?.value;
  } catch (error) {
    if (error instanceof BurrowError && error.code === "BURROW_BAD_ARCHIVE") return undefined;
    throw error;
  }
}
