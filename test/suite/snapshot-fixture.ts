// The fixture of the tree tests as a snapshot with its blobs in a cache of its own: a lower tree without a daemon. Control plane.

import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Digest } from "../../lib/base/digest.ts";
import { MISS } from "../../lib/base/errno.ts";
import { BLOCK_DIGESTS_OVER_BYTES } from "../../lib/base/limits.ts";
import type { Name } from "../../lib/base/name.ts";
import { BlobReader } from "../../lib/cache/blocks.ts";
import { CACHE_FOLDERS } from "../../lib/cache/layout.ts";
import { Mailbox } from "../../lib/cache/mailbox.ts";
import { putSealed } from "../../lib/cache/seal.ts";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { Index } from "../../lib/layer/index.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { blockDigests } from "../../lib/store/blocks.ts";
import { LocalObjects } from "../../lib/store/objects.ts";
import { SnapshotTree } from "../../lib/tree/snapshot.ts";
import type { Ino, OpenResult } from "../../lib/tree/tree.ts";
import { contentOf, type FixtureEntry, modeOf } from "./tree-fixture.ts";

/** A snapshot of which the next so many opens and reads must wait for bytes. */
export class LateTree extends SnapshotTree {
  lateOpens = 0;
  lateReads = 0;
  /** Files that were opened: whose bytes somebody wanted. */
  opens = 0;
  lookups = 0;
  /** Several trees stand on it, one after the other, each of which would dispose of it. */
  isShared = false;

  override lookup(dir: Ino, name: Name): number {
    this.lookups++;
    return super.lookup(dir, name);
  }

  override open(ino: Ino, flags: number, out: OpenResult): number {
    if (this.lateOpens > 0) {
      this.lateOpens--;
      return MISS;
    }
    this.opens++;
    return super.open(ino, flags, out);
  }

  override read(ino: Ino, handle: number, offset: number, out: Uint8Array): number {
    if (this.lateReads === 0) return super.read(ino, handle, offset, out);
    this.lateReads--;
    return MISS;
  }

  override dispose(): void {
    if (!this.isShared) super.dispose();
  }
}

export interface SnapshotFixture {
  readonly tree: LateTree;
  readonly index: Index;
  /** Removes the cache, after tree.dispose(). */
  dispose(): void;
}

function entryOf(entry: FixtureEntry, all: readonly FixtureEntry[]): LayerEntry {
  const { path } = entry;
  const time = { mtimeSec: 1_600_000_000, mtimeNs: 7 };
  const owner = { uid: process.getuid!(), gid: process.getgid!(), ...time };
  if (entry.type === "directory") return { ...owner, path, mode: modeOf(entry), type: "directory" };
  if (entry.type === "symlink") {
    return { ...owner, path, mode: 0o777, type: "symlink", target: entry.target! };
  }
  const file = all.find((other) => other.path === (entry.target ?? path))!;
  const bytes = contentOf(file);
  const digest = createHash("sha256").update(bytes).digest("hex") as Digest;
  const blocks = bytes.length > BLOCK_DIGESTS_OVER_BYTES ? blockDigests(bytes) : [];
  const blob = { digest, size: bytes.length, blocks };
  return { ...owner, path, mode: modeOf(file), type: "file", blob, linkGroup: file.path };
}

export function snapshotOf(fixture: readonly FixtureEntry[]): SnapshotFixture {
  const cache = mkdtempSync(join(tmpdir(), "burrow-lower-"));
  for (const folder of CACHE_FOLDERS) mkdirSync(join(cache, folder), { recursive: true });
  for (const entry of fixture) {
    if (entry.type === "file") putSealed(cache, "blobs", contentOf(entry));
  }
  const objects = LocalObjects.open(join(cache, "blobs"));
  if (typeof objects === "number") throw new Error(`blobs: errno ${-objects}`);
  const index = new Index(
    writeIndex(
      IndexKind.snapshot,
      fixture.map((entry) => entryOf(entry, fixture)),
    ),
  );
  const mailbox = new Mailbox(join(cache, "none.sock"), "none");
  const tree = new LateTree(
    0,
    index,
    new BlobReader(0, objects, { partialFd: -1, lazyFd: -1 }, mailbox),
  );
  return {
    tree,
    index,
    dispose() {
      tree.isShared = false;
      tree.dispose();
      rmSync(cache, { recursive: true, force: true });
    },
  };
}
