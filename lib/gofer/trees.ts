// Trees: from a mount of the bundle to the tree that serves it: a view of snapshots, the query's upper, or a host directory.
// Everything is opened here, before the first request. Control plane.

import { join } from "node:path";
import { type Digest, showDigest } from "../base/digest.ts";
import { Errno, errnoName } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { OTHER_FDS_MAX } from "../base/limits.ts";
import { nameOf } from "../base/name.ts";
import { BlobReader } from "../cache/blocks.ts";
import { Mailbox } from "../cache/mailbox.ts";
import { faultOf, Index } from "../layer/index.ts";
import { LocalObjects } from "../store/objects.ts";
import { native } from "../sys/native.ts";
import { HostTree } from "../tree/host.ts";
import { SnapshotTree } from "../tree/snapshot.ts";
import { Attr, type Tree } from "../tree/tree.ts";
import { createUpper } from "../tree/upper.ts";
import { View } from "../tree/view.ts";
import type { ServedMount } from "./bundle.ts";
import { mountIdOf, readMount, type SnapshotSource, type ViewMount } from "./mount.ts";

export interface OpenedTree {
  readonly tree: Tree;
  readonly isReadOnly: boolean;
  /** The daemon's mailbox of a view. */
  readonly mailbox?: Mailbox;
}

/** Opens the tree of one mount. Throws BurrowError with the mount's source and what to do. */
export function openTree(mount: ServedMount, state: string): OpenedTree {
  const id = mountIdOf(state, mount.source);
  if (id === undefined) return openHost(mount);
  const described = readMount(state, id);
  if (described.kind === "view") return openView(described, id);
  const tree = createUpper(described);
  if (typeof tree === "number") {
    throw new BurrowError("BURROW_IO", `can't make the tmpfs of mount ${id}: ${errnoName(tree)}`);
  }
  return { tree, isReadOnly: mount.isReadOnly };
}

/**
 * Shares the process's FDs out among the trees that hold some for what a client knows of them: one mount must not starve the
 * others. `limit` is RLIMIT_NOFILE.
 */
export function shareFds(trees: readonly Tree[], limit: number): void {
  const hosts = trees.filter((tree) => tree instanceof HostTree);
  const left = limit - Math.min(OTHER_FDS_MAX, Math.floor(limit / 4));
  for (const tree of hosts) tree.limitFds(Math.floor(left / hosts.length));
}

/** A directory or file of the host, passed through read-only whatever the bundle says (writing is not supported yet). */
function openHost(mount: ServedMount): OpenedTree {
  const tree = HostTree.open(mount.source, { isReadOnly: true });
  if (typeof tree === "number") {
    throw new BurrowError("BURROW_IO", `can't open ${mount.source}: ${errnoName(tree)}`);
  }
  return { tree, isReadOnly: true };
}

function openView(view: ViewMount, id: string): OpenedTree {
  const indexes = openObjects(join(view.cache, "indexes"));
  const mailbox = new Mailbox(join(view.cache, "daemon.sock"), id);
  const open = (number: number, source: SnapshotSource): SnapshotTree => {
    const index = openIndex(indexes, source.snapshot, view.cache);
    const objects = openObjects(join(view.cache, "blobs"));
    const blobs = new BlobReader(number, objects, view.cache, mailbox);
    return new SnapshotTree(number, index, blobs);
  };
  const base = open(0, view.base);
  const grafts = view.grafts.map((graft, i) => ({
    at: nameOf(graft.at),
    tree: open(i + 1, graft),
  }));
  indexes.dispose();
  const built = View.build(base, grafts, new Attr());
  if (typeof built === "number") {
    throw new BurrowError(
      "BURROW_USAGE",
      `the grafts of mount ${id} don't fit: ${errnoName(built)}`,
    );
  }
  mailbox.connect(0);
  return { tree: built, isReadOnly: true, mailbox };
}

function openObjects(directory: string): LocalObjects {
  const objects = LocalObjects.open(directory);
  if (typeof objects !== "number") return objects;
  const why = errnoName(objects);
  throw new BurrowError("BURROW_IO", `can't open the cache's ${directory}: ${why}`);
}

/** Maps a snapshot's index, which is in the cache, verified and sealed, before a sandbox is started. */
function openIndex(indexes: LocalObjects, digest: Digest, cache: string): Index {
  const fd = indexes.openDigest(Buffer.from(digest, "hex"), 0, -1);
  if (fd < 0) {
    const advice = fd === -Errno.ENOENT || fd === -Errno.ESTALE ? "; fetch it: burrow run …" : "";
    const name = showDigest(digest);
    throw new BurrowError("BURROW_NOT_FOUND", `no index of ${name} in ${cache}${advice}`);
  }
  const facts = new Float64Array(5);
  native.statFd(fd, facts);
  const mapped = native.map(fd, 0, facts[0]!, false);
  native.closeFd(fd);
  if (typeof mapped === "number") {
    throw new BurrowError("BURROW_IO", `can't map the index ${digest}: ${errnoName(mapped)}`);
  }
  const bytes = new Uint8Array(mapped);
  const fault = faultOf(bytes);
  if (fault !== undefined) {
    throw new BurrowError("BURROW_BAD_INDEX", `index ${showDigest(digest)}: ${fault}`);
  }
  return new Index(bytes);
}
