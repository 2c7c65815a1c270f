// View: what one sandbox sees: a base snapshot and the snapshots grafted into it, one tree. Mount points that the base lacks
// are synthetic, directories and empty files, made before the view is served; after that nothing changes. Data plane.

import { Errno } from "../base/errno.ts";
import { DT_DIR, DT_REG, S_IFDIR, S_IFMT, S_IFREG } from "../base/file-types.ts";
import { GRAFTS_MAX } from "../base/limits.ts";
import { checkName, type Name } from "../base/name.ts";
import { type Explanation, isMadeUp } from "./explanation.ts";
import { SNAPSHOT_INO_STEP, SnapshotTree } from "./snapshot.ts";
import {
  type Attr,
  type DirentSink,
  type Ino,
  O_RDONLY,
  type OpenResult,
  type StatFs,
  type Tree,
} from "./tree.ts";

/** Synthetic directories and files live behind the last graft, on a device of their own. */
const SYNTHETIC_NUMBER = GRAFTS_MAX + 1;
const SYNTHETIC_INO_BASE = SYNTHETIC_NUMBER * SNAPSHOT_INO_STEP;
const SYNTHETIC_DEV_MINOR = SYNTHETIC_NUMBER + 1;

export interface Graft {
  /** Absolute path in latin1, without "." and "..". */
  readonly at: string;
  readonly tree: GraftTree;
}

/** What can be grafted: inode numbers begin at its place among the snapshots times SNAPSHOT_INO_STEP, and its device is its own. */
export interface GraftTree extends Tree {
  readonly devMinor: number;
  reopen(ino: Ino, isDirectory: boolean, access: number, handle: number): number;
}

export class View implements Tree {
  readonly isReadOnly = true;
  readonly isStateless = true;
  readonly rootIno: Ino;
  readonly #base: SnapshotTree;
  /** By snapshot number; 0 is the base. */
  readonly #snapshots: GraftTree[];
  /** directory Ino -> names attached there -> Ino of a graft's root, or a synthetic one. */
  readonly #attached = new Map<number, Map<Name, Ino>>();
  #syntheticCount = 0;
  /** Which of the synthetic are files; most views have none. */
  readonly #files = new Set<Ino>();
  readonly #attr: Attr;
  readonly #explanation: Explanation | undefined;

  private constructor(
    base: SnapshotTree,
    grafts: readonly Graft[],
    attr: Attr,
    explanation: Explanation | undefined,
  ) {
    this.#explanation = explanation;
    this.#base = base;
    this.rootIno = base.rootIno;
    this.#snapshots = [base, ...grafts.map((graft) => graft.tree)];
    this.#attr = attr;
  }

  /**
   * A view over a base (number 0) and grafts (numbers 1…, in order): the View, or -errno: -EINVAL for a bad path or one that
   * is attached twice, -ENOTDIR when the path goes through a file or symlink. `attr` is scratch. With an explanation files have the
   * attributes that it makes up, too.
   */
  static build(
    base: SnapshotTree,
    grafts: readonly Graft[],
    attr: Attr,
    explanation?: Explanation,
  ): View | number {
    if (grafts.length > GRAFTS_MAX) return -Errno.EINVAL;
    const view = new View(base, grafts, attr, explanation);
    for (const graft of grafts) {
      const failed = view.#attach(graft);
      if (failed < 0) return failed;
    }
    return view;
  }

  #attach(graft: Graft): number {
    const names = namesOf(graft.at);
    if (typeof names === "number") return names;
    const last = names.pop()!;
    const directory = this.#directoryAt(names);
    if (directory < 0) return directory;
    if (this.#attached.get(directory)?.has(last)) return -Errno.EINVAL;
    this.#put(directory as Ino, last, graft.tree.rootIno);
    return 0;
  }

  /**
   * An empty file for another tree to be mounted on, and what leads to it: 0, also when something has its name; -errno as of build. Before
   * the view is served: the same calls give the same Inos.
   */
  addMountpoint(at: string): number {
    const names = namesOf(at);
    if (typeof names === "number") return names;
    const last = names.pop()!;
    const directory = this.#directoryAt(names);
    if (directory < 0 || this.lookup(directory as Ino, last) >= 0) return Math.min(directory, 0);
    this.#files.add(this.#addSynthetic(directory as Ino, last));
    return 0;
  }

  /** The directory that names lead to; what is missing is made up. -ENOTDIR. */
  #directoryAt(names: readonly Name[]): number {
    let directory = this.rootIno;
    for (const name of names) {
      const found = this.lookup(directory, name);
      if (found === -Errno.ENOENT) directory = this.#addSynthetic(directory, name);
      else if (found < 0) return found;
      else directory = found as Ino;
      this.getattr(directory, this.#attr);
      if ((this.#attr.mode & S_IFMT) !== S_IFDIR) return -Errno.ENOTDIR;
    }
    return directory;
  }

  #put(directory: Ino, name: Name, ino: Ino): void {
    const names = this.#attached.get(directory) ?? new Map<Name, Ino>();
    names.set(name, ino);
    this.#attached.set(directory, names);
  }

  #addSynthetic(directory: Ino, name: Name): Ino {
    const ino = (SYNTHETIC_INO_BASE + ++this.#syntheticCount) as Ino;
    this.#put(directory, name, ino);
    return ino;
  }

  /** Whether an Ino is a synthetic directory or file of this view. */
  #isSynthetic(ino: Ino): boolean {
    return ino > SYNTHETIC_INO_BASE && ino <= SYNTHETIC_INO_BASE + this.#syntheticCount;
  }

  /** The snapshot that an Ino belongs to: the base for numbers of none, which knows no such row and says EBADF. */
  #snapshotOf(ino: Ino): GraftTree {
    if (ino < SNAPSHOT_INO_STEP) return this.#base;
    return this.#snapshots[(ino / SNAPSHOT_INO_STEP) | 0] ?? this.#base;
  }

  lookup(dir: Ino, name: Name): number {
    const attached = this.#attached.get(dir)?.get(name);
    if (attached !== undefined) return attached;
    return this.#isSynthetic(dir) ? -Errno.ENOENT : this.#snapshotOf(dir).lookup(dir, name);
  }

  acquire(ino: Ino): number {
    return this.#isSynthetic(ino) ? 0 : this.#snapshotOf(ino).acquire(ino);
  }

  release(): void {}

  getattr(ino: Ino, out: Attr): number {
    if (!this.#isSynthetic(ino)) return this.#snapshotOf(ino).getattr(ino, out);
    // The base root's owner and times, plain permissions.
    const failed = this.#base.getattr(this.rootIno, out);
    if (failed < 0) return failed;
    out.ino = ino;
    out.devMinor = SYNTHETIC_DEV_MINOR;
    const isFile = this.#files.has(ino);
    out.mode = isFile ? S_IFREG | 0o644 : S_IFDIR | 0o755;
    out.nlink = isFile ? 1 : 2;
    if (isFile) out.size = out.blocks = 0;
    return 0;
  }

  fgetattr(ino: Ino, _handle: number, out: Attr): number {
    return this.getattr(ino, out);
  }

  readlink(ino: Ino, out: Uint8Array): number {
    return this.#isSynthetic(ino) ? -Errno.EINVAL : this.#snapshotOf(ino).readlink(ino, out);
  }

  opendir(ino: Ino): number {
    if (!this.#isSynthetic(ino)) return this.#snapshotOf(ino).opendir(ino);
    return this.#files.has(ino) ? -Errno.ENOTDIR : 0;
  }

  /** Attached names come first; the snapshot's own dentries follow, without those that an attached name hides. */
  readdir(ino: Ino, handle: number, cookie: number, sink: DirentSink): number {
    const attached = this.#attached.get(ino);
    if (attached === undefined) {
      return this.#isSynthetic(ino) ? 0 : this.#snapshotOf(ino).readdir(ino, handle, cookie, sink);
    }
    let at = 0;
    for (const [name, child] of attached) {
      if (at++ < cookie) continue;
      const devMinor = this.#isSynthetic(child)
        ? SYNTHETIC_DEV_MINOR
        : this.#snapshotOf(child).devMinor;
      if (!sink(child, devMinor, this.#files.has(child) ? DT_REG : DT_DIR, name)) return at - 1;
    }
    if (this.#isSynthetic(ino)) return attached.size;
    const start = Math.max(0, cookie - attached.size);
    const next = this.#snapshotOf(ino).readdir(ino, handle, start, (childIno, dev, type, name) =>
      attached.has(name as Name) ? true : sink(childIno, dev, type, name),
    );
    return next < 0 ? next : attached.size + next;
  }

  closedir(): void {}

  open(ino: Ino, flags: number, out: OpenResult): number {
    if (!this.#isSynthetic(ino)) return this.#snapshotOf(ino).open(ino, flags, out);
    if (!this.#files.has(ino)) return -Errno.EISDIR;
    if (flags !== O_RDONLY) return -Errno.EROFS;
    out.handle = 0;
    out.hostFd = -1;
    return 0;
  }

  read(ino: Ino, handle: number, offset: number, out: Uint8Array): number {
    if (!this.#isSynthetic(ino)) return this.#snapshotOf(ino).read(ino, handle, offset, out);
    return this.#files.has(ino) ? 0 : -Errno.EISDIR;
  }

  close(ino: Ino, handle: number): void {
    if (!this.#isSynthetic(ino)) this.#snapshotOf(ino).close(ino, handle);
  }

  reopen(ino: Ino, isDirectory: boolean, access: number, handle: number): number {
    return this.#isSynthetic(ino)
      ? handle
      : this.#snapshotOf(ino).reopen(ino, isDirectory, access, handle);
  }

  statfs(_ino: Ino, out: StatFs): number {
    let blocks = 0;
    let files = 0;
    for (const snapshot of this.#snapshots) {
      const failed = snapshot.statfs(snapshot.rootIno, out);
      if (failed < 0) return failed;
      blocks += out.blocks;
      files += out.files;
    }
    out.blocks = blocks;
    out.files = files;
    return 0;
  }

  getxattr(ino: Ino, name: string, out: Uint8Array): number {
    if (this.#isSynthetic(ino)) return -Errno.ENODATA;
    const tree = this.#snapshotOf(ino);
    const isExplained = this.#explanation !== undefined && tree instanceof SnapshotTree;
    // Never the file's own: who made it must not say whose it is.
    return isExplained && isMadeUp(name)
      ? this.#explanation.get(tree, ino, name, out)
      : tree.getxattr(ino, name, out);
  }

  listxattr(ino: Ino, out: Uint8Array): number {
    if (this.#isSynthetic(ino)) return 0;
    const tree = this.#snapshotOf(ino);
    const length = tree.listxattr(ino, out);
    if (length < 0 || this.#explanation === undefined) return length;
    return tree instanceof SnapshotTree ? this.#explanation.list(tree, ino, length, out) : length;
  }

  dispose(): void {
    for (const snapshot of this.#snapshots) snapshot.dispose();
  }
}

/** The components of an absolute path: at least one, each a Name; -errno. */
function namesOf(path: string): Name[] | number {
  const names = path.split("/").filter((name) => name !== "");
  for (const name of names) {
    const bad = checkName(name);
    if (bad < 0) return bad;
  }
  return names.length === 0 ? -Errno.EINVAL : (names as Name[]);
}
