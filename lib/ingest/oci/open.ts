// What a path is: an image, in which form, or none; and the image in it. Control plane.

import { createReadStream } from "node:fs";
import { open, stat } from "node:fs/promises";
import { BurrowError } from "../../base/error.ts";
import { readError } from "../conda/errors.ts";
import { type Compression, decompressed, kindOf, MAGIC_BYTES } from "../decompress.ts";
import { plainPath, Refusal } from "../entry-tree.ts";
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

/** Those of them that few other trees have. */
const TELLING_NAME = /^(oci-layout|blobs\/sha256(\/.*)?|(sha256:)?[0-9a-f]{64}([./].*)?)$/;

/** Headers at the start of a tar, and the name in one. POSIX.1-2017 pax, "ustar Interchange Format". */
const HEAD_BYTES = 2_048;
const BLOCK_BYTES = 512;
const NAME_BYTES = 100;

/**
 * The files of an image and the form that they have; undefined when the path is no image. Without `form` that is told by what is there:
 * a layout before docker's, since newer archives are both. With it every file is taken for an image. BURROW_UNSUPPORTED for one
 * that is compressed as a whole. The caller disposes of the files.
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
  const compression = await compressionOf(path, name);
  if (compression !== "none") {
    if (!isKnown && !(await startsAsImage(path, compression, name))) return undefined;
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

async function compressionOf(path: string, name: string): Promise<Compression> {
  try {
    await using file = await open(path, "r");
    const start = Buffer.alloc(MAGIC_BYTES);
    const { bytesRead } = await file.read(start, 0, MAGIC_BYTES, 0);
    return kindOf(start.subarray(0, bytesRead));
  } catch (cause) {
    throw readError(cause, name);
  }
}

/** Whether the first name in a compressed tar is one that tells an image. */
async function startsAsImage(path: string, kind: Compression, name: string): Promise<boolean> {
  const head: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of decompressed(createReadStream(path), kind, name)) {
      head.push(chunk as Buffer);
      bytes += (chunk as Buffer).length;
      if (bytes >= HEAD_BYTES) break;
    }
  } catch {
    // Damaged: whoever reads it as a tree says so.
  }
  const blocks = Buffer.concat(head);
  for (let at = 0; at + NAME_BYTES <= Math.min(blocks.length, HEAD_BYTES); at += BLOCK_BYTES) {
    const text = blocks.toString("latin1", at, at + NAME_BYTES).replace(/\0.*$/s, "");
    const member = plainPath(text);
    if (member instanceof Refusal) return false;
    // Before them come folders, which have no content: the root's own and this.
    if (member !== "" && member !== "blobs") return TELLING_NAME.test(member);
  }
  return false;
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
