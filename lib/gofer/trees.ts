// Trees: from a mount of the bundle to the tree that serves it: a view of snapshots, the query's upper, or a host directory.
// Everything is opened here, before the first request. Control plane.

import { join } from "node:path";
import { type Digest, showDigest } from "../base/digest.ts";
import { Errno, errnoName } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { OTHER_FDS_MAX } from "../base/limits.ts";
import { nameOf } from "../base/name.ts";
import { BlobReader } from "../cache/blocks.ts";
import { DAEMON_SOCKET } from "../cache/layout.ts";
import { Mailbox } from "../cache/mailbox.ts";
import { faultOf, Index } from "../layer/index.ts";
import { LocalObjects } from "../store/objects.ts";
import { openFenced } from "../sys/fence.ts";
import { HostFd } from "../sys/host-fd.ts";
import { native } from "../sys/native.ts";
import { HostTree } from "../tree/host.ts";
import type { SpecialFiles } from "../tree/host-special.ts";
import { OverlayTree, upperInodes } from "../tree/overlay.ts";
import { SnapshotTree } from "../tree/snapshot.ts";
import { Attr, isWritable, type Tree } from "../tree/tree.ts";
import { createUpper, openUpper, type Upper, type UpperOptions } from "../tree/upper.ts";
import { View } from "../tree/view.ts";
import type { ServedMount } from "./bundle.ts";
import { explanationOf, readExplanation, type StoredExplanation } from "./explained.ts";
import { type Mount, mountIdOf, readMount, type SnapshotSource, type ViewMount } from "./mount.ts";
import { makeUp } from "./mountpoints.ts";

export interface OpenedTree {
  readonly tree: Tree;
  readonly isReadOnly: boolean;
  /** The daemon's mailbox of a view. */
  readonly mailbox?: Mailbox;
  /** Of a view: its cache, and the folders in which it opens files later. Borrowed. */
  readonly cache?: string;
  readonly folderFds?: readonly number[];
  /** The root for a sandbox that works on it by itself: the tree's taker's. */
  readonly directFd?: number;
  /** The mount of a new tmpfs, for the stub to keep. Borrowed; -1: none. */
  readonly upperFd?: number;
}

/** What another server left of a mount. */
export interface Predecessor {
  /** The mount of its tmpfs; taken. */
  readonly upperFd: number | undefined;
  /** It still serves: takeOver() comes when it has ended. */
  readonly isServing: boolean;
}

/** A mount of Burrow's by its id, as its file says what it is. */
export interface DescribedMount {
  readonly id: string;
  readonly mount: Mount;
  readonly explained?: StoredExplanation | undefined;
  readonly isReadOnly: boolean;
  /** Where a view must have files to mount others on. */
  readonly mountpoints?: readonly string[] | undefined;
}

/**
 * Opens the tree of one mount; `special` is for host directories, `mountpoints` for views. Throws BurrowError with the mount's source and
 * what to do.
 */
export function openTree(
  mount: ServedMount,
  state: string,
  special: SpecialFiles,
  predecessor: Predecessor = { upperFd: undefined, isServing: false },
  mountpoints?: readonly string[],
): OpenedTree {
  const { isReadOnly } = mount;
  const id = mountIdOf(state, mount.source);
  if (id === undefined) return openHost(mount, special);
  const explained = readExplanation(state, id);
  const described = { id, mount: readMount(state, id), explained, isReadOnly, mountpoints };
  return openDescribed(described, predecessor);
}

/** The same of one of Burrow's. With the cache's folders no path is asked. */
export function openDescribed(
  { id, mount, explained, isReadOnly, mountpoints = [] }: DescribedMount,
  { upperFd, isServing }: Predecessor,
  folders?: CacheFolders,
): OpenedTree {
  if (mount.kind === "upper") {
    const tree = tmpfsOf(mount, id, upperFd);
    const kept = upperFd === undefined ? tree.rootFd : -1;
    return { tree, isReadOnly, upperFd: kept };
  }
  const view = openView(mount, id, explained, folders);
  makeUp(view.tree, mountpoints);
  const { upper } = mount;
  if (upper === undefined || isReadOnly) return view;
  try {
    return overlay(view, upper, id, { upperFd, isServing });
  } catch (error) {
    view.mailbox?.dispose();
    view.tree.dispose();
    throw error;
  }
}

/** A view under an upper, which it takes. */
function overlay(
  view: OpenedTree,
  upper: NonNullable<ViewMount["upper"]>,
  id: string,
  { upperFd, isServing }: Predecessor,
): OpenedTree {
  const isFolder = "directory" in upper;
  const above = isFolder
    ? openUpperDirectory(upper.directory)
    : tmpfsOf({ ...upper, inodes: upperInodes(upper.inodes), mode: 0o700 }, id, upperFd);
  const inodes = isFolder ? Number.POSITIVE_INFINITY : upper.inodes;
  const tree = OverlayTree.open(view.tree, above, { inodes, isServed: isServing });
  if (typeof tree === "number") {
    above.dispose();
    throw overlayError(id, tree);
  }
  const kept = isFolder || upperFd !== undefined ? -1 : above.rootFd;
  return { ...view, tree, isReadOnly: false, upperFd: kept };
}

function overlayError(what: string, errno: number): BurrowError {
  return new BurrowError("BURROW_IO", `can't overlay mount ${what}: ${errnoName(errno)}`);
}

/** The predecessor of a tree that was opened while it served has ended. Throws BURROW_IO. */
export function takeOver({ tree }: OpenedTree, { destination }: ServedMount): void {
  const failed = tree instanceof OverlayTree ? tree.takeOver() : 0;
  if (failed < 0) throw overlayError(destination, failed);
}

/** The upper in a directory of the host, which no symlink stands for: it would lead a sandbox's changes elsewhere. Throws BURROW_IO. */
export function openUpperDirectory(directory: string): Upper {
  const tree = HostTree.open(directory, { isReadOnly: false, isItself: true, isUpper: true });
  if (typeof tree !== "number" && tree.isDirectory && isWritable(tree)) return tree;
  if (typeof tree !== "number") tree.dispose();
  const why = typeof tree === "number" ? errnoName(tree) : "it is no directory";
  throw new BurrowError("BURROW_IO", `can't write to the upper ${directory}: ${why}`);
}

/** A new tmpfs, or the one behind the mount that another server made. */
function tmpfsOf(options: UpperOptions, id: string, upperFd: number | undefined): Upper {
  const tree = upperFd === undefined ? createUpper(options) : openUpper(new HostFd(upperFd));
  if (typeof tree !== "number") return tree;
  throw new BurrowError("BURROW_IO", `can't make the tmpfs of mount ${id}: ${errnoName(tree)}`);
}

/** The tree of the host's kernel that a tree is or writes to; undefined for one over indexes alone. */
export function hostTreeOf(tree: Tree): HostTree | undefined {
  if (tree instanceof OverlayTree) return tree.upper;
  return tree instanceof HostTree ? tree : undefined;
}

/**
 * Shares the process's FDs out among the trees that hold some for what a client knows of them: one mount must not starve the
 * others. `limit` is RLIMIT_NOFILE.
 */
export function shareFds(trees: readonly Tree[], limit: number): void {
  const hosts = trees.map(hostTreeOf).filter((tree) => tree !== undefined);
  const left = limit - Math.min(OTHER_FDS_MAX, Math.floor(limit / 4));
  for (const tree of hosts) tree.limitFds(Math.floor(left / hosts.length));
}

/** A directory or file of the host, passed through: to be written when the bundle says so. */
function openHost(mount: ServedMount, special: SpecialFiles): OpenedTree {
  const { isReadOnly } = mount;
  const tree = HostTree.open(mount.source, { isReadOnly, special });
  if (typeof tree === "number") {
    throw new BurrowError("BURROW_IO", `can't open ${mount.source}: ${errnoName(tree)}`);
  }
  return { tree, isReadOnly };
}

function openView(
  view: ViewMount,
  id: string,
  explained: StoredExplanation | undefined,
  folders: CacheFolders | undefined,
): OpenedTree & { readonly tree: View } {
  const mailbox = new Mailbox(join(view.cache, DAEMON_SOCKET), id);
  const { tree, folderFds } = buildView(view, mailbox, id, explained, folders);
  if (folders !== undefined) mailbox.useFolder(-1);
  mailbox.connect(0);
  return { tree, isReadOnly: true, mailbox, cache: view.cache, folderFds };
}

/** A view, and the cache's folders in which it opens files, borrowed from it. */
export interface BuiltView {
  readonly tree: View;
  /** Of its snapshots, by number: the base is 0. */
  readonly indexes: readonly Index[];
  readonly folderFds: readonly number[];
}

/** The folders of a cache that its readers need, open. */
export interface CacheFolders {
  readonly indexesFd: number;
  readonly blobsFd: number;
  /** < 0: there is none, as of the next. */
  readonly partialFd: number;
  readonly lazyFd: number;
  /** Indexes that are mapped already: views of one process share them. */
  readonly indexes: Map<Digest, Index>;
}

/** Throws BURROW_IO. */
export function openCacheFolders(cache: string): CacheFolders {
  const open = (name: string): number => {
    const fd = openFenced(join(cache, name));
    if (fd < 0) throw cacheError(join(cache, name), fd);
    return fd;
  };
  const [indexesFd, blobsFd] = [open("indexes"), open("blobs")];
  const partialFd = openFenced(join(cache, "partial"));
  const lazyFd = openFenced(join(cache, "lazy"));
  return { indexesFd, blobsFd, partialFd, lazyFd, indexes: new Map() };
}

const copyOf = (fd: number) => (fd < 0 ? fd : native.dupFd(fd));

/** The view of a mount over the indexes in the cache; explained if that is asked for. `shared`: folders that stay the caller's. */
export function buildView(
  view: Omit<ViewMount, "kind">,
  mailbox: Mailbox,
  id: string,
  explained?: StoredExplanation,
  shared?: CacheFolders,
): BuiltView {
  const {
    indexesFd,
    blobsFd,
    partialFd,
    lazyFd,
    indexes: known,
  } = shared ?? openCacheFolders(view.cache);
  const folder = LocalObjects.take(indexesFd);
  const indexes: Index[] = [];
  const opened: SnapshotTree[] = [];
  const open = (source: SnapshotSource): SnapshotTree => {
    const number = indexes.length;
    const index = known.get(source.snapshot) ?? openIndex(folder, source.snapshot, view.cache);
    known.set(source.snapshot, index);
    indexes.push(index);
    // Each reader closes its own; the base has those that were opened.
    const take = number === 0 && shared === undefined ? (fd: number) => fd : copyOf;
    const objects = LocalObjects.take(take(blobsFd));
    const folders = { partialFd: take(partialFd), lazyFd: take(lazyFd) };
    const reader = new BlobReader(number, objects, folders, mailbox);
    const tree = new SnapshotTree(number, index, reader);
    opened.push(tree);
    return tree;
  };
  try {
    const base = open(view.base);
    const grafts = view.grafts.map((graft) => ({ at: nameOf(graft.at), tree: open(graft) }));
    const made = explained && explanationOf(explained, opened);
    const all = made === undefined ? grafts : [...grafts, made.info];
    const tree = View.build(base, all, new Attr(), made?.explanation);
    if (typeof tree === "number") {
      const why = errnoName(tree);
      throw new BurrowError("BURROW_USAGE", `the grafts of mount ${id} don't fit: ${why}`);
    }
    const folderFds = [blobsFd, partialFd, lazyFd].filter((fd) => fd >= 0);
    return { tree, indexes, folderFds };
  } catch (error) {
    // A shared server goes on without it.
    for (const tree of opened) tree.dispose();
    throw error;
  } finally {
    if (shared === undefined) folder.dispose();
  }
}

function cacheError(directory: string, errno: number): BurrowError {
  return new BurrowError("BURROW_IO", `can't open the cache's ${directory}: ${errnoName(errno)}`);
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
