// Owns: making a directory of the host into a view that the gofer serves without a daemon: its index
// and every blob are put into the cache, whole and sealed. Small trees only: it reads files whole, by
// means of lib's own writer and seal and nothing else of the control plane. Plane: control.
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { type Digest, showDigest } from "../../lib/base/digest.ts";
import { BLOCK_BYTES, BLOCK_DIGESTS_OVER_BYTES } from "../../lib/base/limits.ts";
import { setSeal } from "../../lib/cache/seal.ts";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { indexDigest, writeIndex } from "../../lib/layer/writer.ts";

/** Writes what `dir` holds into `cache` and the mount `id` into `state`; returns the mount's source. */
export function serveAsView(state: string, cache: string, id: string, dir: string): string {
  const index = writeIndex(IndexKind.snapshot, entriesOf(dir, "", cache));
  const digest = indexDigest(index);
  putSealed(path.join(cache, "indexes"), digest, index);
  fs.mkdirSync(path.join(cache, "partial"), { recursive: true });
  fs.mkdirSync(path.join(cache, "blobs"), { recursive: true });
  const mount = path.join(state, "mounts", id);
  fs.mkdirSync(mount, { recursive: true });
  const base = { snapshot: showDigest(digest), origin: "/nonexistent" };
  const text = JSON.stringify({ format: 1, kind: "view", cache, base, grafts: [] });
  fs.writeFileSync(path.join(mount, "mount.json"), text);
  return mount;
}

function* entriesOf(dir: string, below: string, cache: string): Generator<LayerEntry> {
  const names = fs.readdirSync(path.join(dir, below));
  for (const name of ["", ...names]) {
    if (name === "" && below !== "") continue;
    const inner = path.join(below, name);
    const full = path.join(dir, inner);
    const stat = fs.lstatSync(full);
    const common = {
      path: inner === "." ? "" : inner,
      mode: stat.mode & 0o7777,
      uid: 0,
      gid: 0,
      mtimeSec: Math.floor(stat.mtimeMs / 1000),
      mtimeNs: 0,
    };
    if (stat.isSymbolicLink()) {
      yield { ...common, type: "symlink", target: fs.readlinkSync(full) };
    } else if (stat.isDirectory()) {
      yield { ...common, type: "directory" };
      if (name !== "") yield* entriesOf(dir, inner, cache);
    } else {
      const bytes = fs.readFileSync(full);
      const digest = sha256(bytes);
      const blocks: Digest[] = [];
      if (bytes.length > BLOCK_DIGESTS_OVER_BYTES) {
        for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
          blocks.push(sha256(bytes.subarray(at, at + BLOCK_BYTES)));
        }
      }
      if (bytes.length > 0) putSealed(path.join(cache, "blobs"), digest, bytes);
      yield { ...common, type: "file", blob: { digest, size: bytes.length, blocks } };
    }
  }
}

function sha256(bytes: Uint8Array): Digest {
  return createHash("sha256").update(bytes).digest("hex") as Digest;
}

function putSealed(folder: string, digest: Digest, bytes: Uint8Array): void {
  const file = path.join(folder, digest.slice(0, 2), digest);
  if (fs.existsSync(file)) return;
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, bytes);
  fs.chmodSync(file, 0o444);
  const fd = fs.openSync(file, "r");
  setSeal(fd, digest);
  fs.closeSync(fd);
}
