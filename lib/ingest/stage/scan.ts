// From a directory to a manifest: every file is read and hashed once. What a stage can't hold is an error that names it; nothing
// is left out quietly. Control plane.

import { createHash, randomBytes } from "node:crypto";
import fs, { type Dirent } from "node:fs";
import type { BlobRef } from "../../base/blob.ts";
import type { Digest } from "../../base/digest.ts";
import { BurrowError } from "../../base/error.ts";
import { BLOCK_BYTES, BLOCK_DIGESTS_OVER_BYTES } from "../../base/limits.ts";
import { regroup } from "../../store/blocks.ts";
import { digestOf } from "../../store/hash.ts";
import {
  checkStagePath,
  encodeManifest,
  MANIFEST_NAME,
  type Manifest,
  type ManifestDirectory,
  type ManifestFile,
  type ManifestSymlink,
} from "./manifest.ts";

export interface ScanOptions {
  /** Called with each file when it was read. */
  readonly onFile?: (file: ManifestFile) => void;
}

/** Writes the manifest of a directory into it, replacing an older one: the digest that pins this version. */
export async function createManifest(
  directory: string,
  options: ScanOptions = {},
): Promise<{ digest: Digest; manifest: Manifest }> {
  const manifest = await scanStage(directory, options);
  const bytes = encodeManifest(manifest);
  const aside = `${directory}/.${MANIFEST_NAME}.${randomBytes(8).toString("hex")}`;
  try {
    fs.writeFileSync(aside, bytes, { flag: "wx", mode: 0o644, flush: true } as fs.WriteFileOptions);
    fs.renameSync(aside, `${directory}/${MANIFEST_NAME}`);
  } catch (cause) {
    fs.rmSync(aside, { force: true });
    throw new BurrowError("BURROW_IO", "can't write the stage's manifest", {
      cause,
      context: { directory },
    });
  }
  return { digest: digestOf(bytes), manifest };
}

/** The manifest that createManifest would write. */
export async function scanStage(directory: string, options: ScanOptions = {}): Promise<Manifest> {
  const files: ManifestFile[] = [];
  const symlinks: ManifestSymlink[] = [];
  const directories: ManifestDirectory[] = [];
  const walk = async (path: string): Promise<void> => {
    for (const dirent of readdir(directory, path)) {
      const child = path === "" ? nameOf(dirent, path) : `${path}/${nameOf(dirent, path)}`;
      if (child === MANIFEST_NAME) continue;
      checkPath(child, directory);
      const full = `${directory}/${child}`;
      if (dirent.isSymbolicLink()) {
        symlinks.push({ path: child, target: targetOf(full, directory) });
      } else if (dirent.isDirectory()) {
        const stat = fs.lstatSync(full);
        directories.push({ path: child, mode: stat.mode & 0o7777, mtime: seconds(stat) });
        await walk(child);
      } else if (dirent.isFile()) {
        const file = await fileAt(full, child);
        files.push(file);
        options.onFile?.(file);
      } else {
        throw refused("a stage holds files, directories and symlinks only", child, directory);
      }
    }
  };
  await walk("");
  return { files, symlinks, directories };
}

/** Digest and blocks of content as it comes. */
export async function hashStream(chunks: AsyncIterable<Uint8Array>): Promise<BlobRef> {
  const whole = createHash("sha256");
  const blocks: Digest[] = [];
  let size = 0;
  for await (const piece of regroup(chunks, BLOCK_BYTES)) {
    whole.update(piece);
    blocks.push(digestOf(piece));
    size += piece.length;
  }
  const digest = whole.digest("hex") as Digest;
  return { digest, size, blocks: size > BLOCK_DIGESTS_OVER_BYTES ? blocks : [] };
}

async function fileAt(full: string, path: string): Promise<ManifestFile> {
  const before = fs.lstatSync(full);
  const { digest, size, blocks } = await hashStream(fs.createReadStream(full));
  const after = fs.lstatSync(full);
  if (size !== before.size || after.mtimeMs !== before.mtimeMs || after.ino !== before.ino) {
    throw refused("a file changed while it was read", path, full);
  }
  const shown = { path, size, sha256: digest, mode: before.mode & 0o7777, mtime: seconds(before) };
  return blocks.length === 0 ? shown : { ...shown, blocks };
}

function readdir(directory: string, path: string): Dirent<Buffer>[] {
  const full = path === "" ? directory : `${directory}/${path}`;
  try {
    const options = { withFileTypes: true, encoding: "buffer" } as const;
    return (fs.readdirSync(full, options) as unknown as Dirent<Buffer>[]).sort((a, b) =>
      Buffer.compare(a.name, b.name),
    );
  } catch (cause) {
    throw new BurrowError("BURROW_IO", "can't read the stage", {
      cause,
      context: { directory: full },
    });
  }
}

/** A manifest is JSON: a name that is no UTF-8 can't be written in it. */
function nameOf(dirent: Dirent<Buffer>, path: string): string {
  const name = dirent.name.toString("utf8");
  if (Buffer.from(name, "utf8").equals(dirent.name)) return name;
  throw refused("a file name is no UTF-8", `${path}/${dirent.name.toString("latin1")}`, path);
}

function targetOf(full: string, directory: string): string {
  const bytes = fs.readlinkSync(full, { encoding: "buffer" });
  const target = bytes.toString("utf8");
  if (Buffer.from(target, "utf8").equals(bytes)) return target;
  throw refused("a symlink's target is no UTF-8", full, directory);
}

function checkPath(path: string, directory: string): void {
  try {
    checkStagePath(path);
  } catch (cause) {
    throw refused("a path can't be in a stage", path, directory, cause);
  }
}

function seconds(stat: fs.Stats): number {
  return Math.floor(stat.mtimeMs / 1000);
}

function refused(message: string, path: string, directory: string, cause?: unknown): BurrowError {
  return new BurrowError("BURROW_BAD_PACKAGE", message, { cause, context: { path, directory } });
}
