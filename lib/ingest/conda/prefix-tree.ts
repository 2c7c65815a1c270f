// PrefixTree: packages laid into one prefix in their order, as conda lays them into a directory: what a package has below a path
// where an earlier one has a symlink to a directory goes into that directory. Layers know no such thing. Pure. Control plane.

import { BurrowError } from "../../base/error.ts";
import { showName } from "../../base/name.ts";
import type { LayerEntry } from "../../layer/entry.ts";

export interface PackageEntries {
  /** What errors call the package. */
  readonly name: string;
  /** Its layer's, directories before what is in them. */
  readonly entries: readonly LayerEntry[];
}

/** man path_resolution(7): the kernel gives up at the same number (MAXSYMLINKS), so a sandbox could follow no more. */
const LINKS_MAX = 40;

/** conda makes directories with the mode of its user's umask: the usual one here. */
const ATTRIBUTES = { mode: 0o755, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 };

interface Directory {
  readonly kind: "directory";
  /** Latin1, below the prefix; "" is the prefix itself. */
  readonly path: string;
  /** Undefined for the prefix itself. */
  readonly parent: Directory | undefined;
  readonly children: Map<string, Node>;
}

interface Leaf {
  readonly kind: "leaf";
  readonly parent: Directory;
  /** Of a symlink. */
  readonly target: string | undefined;
}

type Node = Directory | Leaf;

/**
 * The packages' entries with their paths as conda would have written them into `prefix`, in the same order. A symlink is followed
 * to a directory that is there, inside the prefix. One that leads elsewhere gives way, as a file in the place of a directory does.
 * Where several paths of one package become one, the last is kept. BURROW_BAD_PACKAGE for symlinks that lead in circles.
 */
export function throughLinks<P extends PackageEntries>(
  packages: readonly P[],
  prefix: string,
): P[] {
  if (!hasPathsOverLinks(packages)) return [...packages];
  const tree = new PrefixTree(Buffer.from(prefix).toString("latin1"));
  return packages.map((one) => ({ ...one, entries: tree.lay(one) }));
}

/** Whether a package has a directory where an earlier one has a symlink: rare, and nothing needs to be done otherwise. */
function hasPathsOverLinks(packages: readonly PackageEntries[]): boolean {
  const links = new Set<string>();
  for (const { entries } of packages) {
    for (const { path, type } of entries) {
      if (links.size === 0) break;
      if (type === "directory" && links.has(path)) return true;
      const parent = path.slice(0, Math.max(0, path.lastIndexOf("/")));
      if (links.has(parent)) return true;
    }
    for (const { path, type } of entries) if (type === "symlink") links.add(path);
  }
  return false;
}

class PrefixTree {
  readonly #prefix: string;
  readonly #root: Directory = {
    kind: "directory",
    path: "",
    parent: undefined,
    children: new Map(),
  };
  /** Of the package that is laid: entries by their path in the prefix. */
  #laid = new Map<string, LayerEntry>();
  /** Followed on the way to one path. */
  #linkCount = 0;

  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  lay({ name, entries }: PackageEntries): LayerEntry[] {
    this.#laid = new Map();
    for (const entry of entries) {
      this.#linkCount = 0;
      if (this.#put(entry)) continue;
      throw new BurrowError(
        "BURROW_BAD_PACKAGE",
        "its path leads through symlinks of earlier packages without end",
        { context: { package: name, file: showName(entry.path) } },
      );
    }
    return [...this.#laid.values()];
  }

  /** False when symlinks lead in circles. */
  #put(entry: LayerEntry): boolean {
    const names = entry.path === "" ? [] : entry.path.split("/");
    const last = entry.type === "directory" ? "" : (names.pop() ?? "");
    let at = this.#root;
    for (const name of names) at = this.#enter(at, name);
    if (entry.type === "directory") {
      const known = this.#laid.get(at.path);
      if (known !== undefined && entry.implied === true) return this.#linkCount <= LINKS_MAX;
      const isOpaque = known?.type === "directory" && known.opaque === true;
      this.#laid.set(at.path, { ...entry, path: at.path, ...(isOpaque ? { opaque: true } : {}) });
    } else {
      const path = pathIn(at, last);
      this.#drop(path, at.children.get(last));
      const target = entry.type === "symlink" ? entry.target : undefined;
      at.children.set(last, { kind: "leaf", parent: at, target });
      this.#laid.set(path, { ...entry, path });
    }
    return this.#linkCount <= LINKS_MAX;
  }

  /** The directory that a name leads to, made where there is none. */
  #enter(at: Directory, name: string): Directory {
    const child = at.children.get(name);
    const found = child && this.#directoryOf(child);
    if (found !== undefined) return found;
    const path = pathIn(at, name);
    const made: Directory = { kind: "directory", path, parent: at, children: new Map() };
    if (child !== undefined) {
      // What gave way may have hidden a directory of an earlier package, which must not show again.
      this.#drop(path, child);
      this.#laid.set(path, { type: "directory", path, ...ATTRIBUTES, opaque: true });
    }
    at.children.set(name, made);
    return made;
  }

  /** What a node is as a directory, links followed; undefined when it is none or lies outside. */
  #directoryOf(node: Node): Directory | undefined {
    if (node.kind === "directory") return node;
    if (node.target === undefined || ++this.#linkCount > LINKS_MAX) return undefined;
    const rest = this.#belowPrefix(node.target);
    let at: Directory | undefined = rest === undefined ? node.parent : this.#root;
    if (rest === undefined && node.target.startsWith("/")) return undefined;
    for (const name of (rest ?? node.target).split("/")) {
      if (name === "" || name === ".") continue;
      const next: Node | undefined = name === ".." ? at.parent : at.children.get(name);
      at = next && this.#directoryOf(next);
      if (at === undefined) return undefined;
    }
    return at;
  }

  /** What is left of an absolute target behind the prefix. */
  #belowPrefix(target: string): string | undefined {
    if (target === this.#prefix) return "";
    return target.startsWith(`${this.#prefix}/`) ? target.slice(this.#prefix.length) : undefined;
  }

  /**
   * Forgets what the package that is laid has at a path whose node gives way, and below it: as many steps as the node has nodes,
   * which are gone from the tree with it.
   */
  #drop(path: string, node: Node | undefined): void {
    if (node === undefined) return;
    this.#laid.delete(path);
    const directories = node.kind === "directory" ? [node] : [];
    for (let at = directories.pop(); at !== undefined; at = directories.pop()) {
      for (const [name, below] of at.children) {
        this.#laid.delete(pathIn(at, name));
        if (below.kind === "directory") directories.push(below);
      }
    }
  }
}

function pathIn({ path }: Directory, name: string): string {
  return path === "" ? name : `${path}/${name}`;
}
