// What tree tests share: a fixture as plain entries, ways to make one, and a tree seen through paths. Names and paths
// are latin1 strings, one char a byte. Control plane.

import { chmodSync, linkSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import type { Name } from "../../lib/base/name.ts";
import { native } from "../../lib/sys/native.ts";
import {
  Attr,
  CreateRequest,
  type Ino,
  O_WRONLY,
  OpenResult,
  SetAttrRequest,
  type Tree,
  type WritableTree,
} from "../../lib/tree/tree.ts";

/** Directories come before what lies in them. */
export interface FixtureEntry {
  /** Relative to the root, "/" between names, latin1. */
  readonly path: string;
  readonly type: "file" | "directory" | "symlink" | "link";
  /** Of a file; empty when left out. */
  readonly content?: Uint8Array | string;
  /** Of a symlink: its text. Of a hard link: the path of the file in the fixture. */
  readonly target?: string;
  /** 0o644 and 0o755 when left out. */
  readonly mode?: number;
}

export const NO_ID = 0xffffffff;

/** What lies below the overlays of tests. */
export const LOWER: readonly FixtureEntry[] = [
  { path: "secret", type: "file", content: "what lies below\n" },
  { path: "dir", type: "directory" },
  { path: "dir/one", type: "file", content: "1" },
  { path: "dir/two", type: "file", content: "2" },
];

export function contentOf(entry: FixtureEntry): Buffer {
  return Buffer.from(entry.content ?? "");
}

export function modeOf(entry: FixtureEntry): number {
  return entry.mode ?? (entry.type === "directory" ? 0o755 : 0o644);
}

/** The fixture as files below a directory of the host. */
export function populateDirectory(directory: string, fixture: readonly FixtureEntry[]): void {
  const at = (path: string) => Buffer.concat([Buffer.from(`${directory}/`), latin1(path)]);
  for (const entry of fixture) {
    const path = at(entry.path);
    if (entry.type === "symlink") symlinkSync(latin1(entry.target ?? ""), path);
    else if (entry.type === "link") linkSync(at(entry.target ?? ""), path);
    else if (entry.type === "directory") mkdirSync(path);
    else writeFileSync(path, contentOf(entry));
    if (entry.type === "file" || entry.type === "directory") chmodSync(path, modeOf(entry));
  }
}

function latin1(text: string): Buffer {
  return Buffer.from(text, "latin1");
}

/** The fixture made through a writable tree. Throws on the first refusal. */
export function populateTree(tree: WritableTree, fixture: readonly FixtureEntry[]): void {
  for (const entry of fixture) {
    const [parent, name] = split(entry.path);
    const dir = must(walk(tree, parent), parent);
    const request = createRequest(modeOf(entry));
    let ino: number;
    if (entry.type === "directory") ino = tree.mkdir(dir, name, request);
    else if (entry.type === "symlink") ino = tree.symlink(dir, name, entry.target ?? "", request);
    else if (entry.type === "link") {
      const target = must(walk(tree, entry.target ?? ""), entry.target ?? "");
      ino = tree.link(dir, name, target);
      tree.release(target);
    } else {
      const out = new OpenResult();
      ino = tree.create(dir, name, request, O_WRONLY, out);
      if (ino > 0) {
        must(tree.write(ino as Ino, out.handle, 0, contentOf(entry)), entry.path);
        finish(tree, ino as Ino, out);
      }
    }
    tree.release(must(ino, entry.path));
    tree.release(dir);
  }
}

export function createRequest(mode: number, uid = NO_ID, gid = NO_ID): CreateRequest {
  return Object.assign(new CreateRequest(), { mode: mode | 0o100000, uid, gid });
}

/** A result that must not be -errno, as an Ino where it is one. */
export function must(result: number, what: string): Ino {
  if (result < 0) throw new Error(`${what}: errno ${-result}`);
  return result as Ino;
}

function split(path: string): [string, Name] {
  const at = path.lastIndexOf("/");
  return [at < 0 ? "" : path.slice(0, at), path.slice(at + 1) as Name];
}

/** Ino of a path with one reference for the caller, or -errno. "" is the root. */
export function walk(tree: Tree, path: string): number {
  let ino: number = tree.rootIno;
  tree.acquire(tree.rootIno);
  for (const name of path === "" ? [] : path.split("/")) {
    const child = tree.lookup(ino as Ino, name as Name);
    tree.release(ino as Ino);
    if (child < 0) return child;
    ino = child;
  }
  return ino;
}

export function attrOf(tree: Tree, ino: number): Attr {
  const attr = new Attr();
  must(tree.getattr(ino as Ino, attr), `getattr of ${ino}`);
  return attr;
}

/** Attributes of a path, whose reference is given back. */
export function attrAt(tree: Tree, path: string): Attr {
  const ino = must(walk(tree, path), path);
  const attr = attrOf(tree, ino);
  tree.release(ino);
  return attr;
}

export interface Listed {
  readonly ino: number;
  readonly devMinor: number;
  readonly type: number;
}

/** All dentries of a directory by name, taken `atOnce` a call; throws when a name comes twice. */
export function list(tree: Tree, dir: Ino, atOnce = Number.POSITIVE_INFINITY): Map<string, Listed> {
  const handle = must(tree.opendir(dir), "opendir");
  const found = new Map<string, Listed>();
  let cookie = 0;
  for (;;) {
    let room = atOnce;
    const next = must(
      tree.readdir(dir, handle, cookie, (ino, devMinor, type, name) => {
        if (room-- <= 0) return false;
        if (found.has(name)) throw new Error(`${name} came twice`);
        found.set(name, { ino, devMinor, type });
        return true;
      }),
      "readdir",
    );
    if (next === cookie) break;
    cookie = next;
  }
  tree.closedir(dir, handle);
  return found;
}

/** The names in a directory by its path, sorted. */
export function namesIn(tree: Tree, path = ""): string[] {
  const dir = must(walk(tree, path), path);
  const found = [...list(tree, dir).keys()].sort();
  tree.release(dir);
  return found;
}

/** Closes what an open gave: the FD first when it is the caller's. */
export function finish(tree: Tree, ino: Ino, opened: OpenResult): void {
  if (opened.hostFd >= 0 && opened.ownsFd) native.closeFd(opened.hostFd);
  tree.close(ino, opened.handle);
}

/** The whole content of a file through the tree, and the same by the FD that it donates, if it does. */
export function contents(tree: Tree, ino: Ino): { read: Buffer; donated: Buffer | undefined } {
  const opened = new OpenResult();
  must(tree.open(ino, 0, opened), "open");
  const size = attrOf(tree, ino).size;
  const read = Buffer.alloc(size + 1);
  const got = must(tree.read(ino, opened.handle, 0, read), "read");
  let donated: Buffer | undefined;
  if (opened.hostFd >= 0) {
    donated = Buffer.alloc(size + 1);
    const length = must(native.preadFd(opened.hostFd, donated, 0), "pread");
    donated = donated.subarray(0, length);
  }
  finish(tree, ino, opened);
  return { read: read.subarray(0, got), donated };
}

/** The open FDs of this process. */
export function openFds(): number {
  return readdirSync("/proc/self/fd").length;
}

/** Changes attributes by a handle or, with -1, by the inode: the request with what failed in it. */
export function setattr(
  tree: WritableTree,
  ino: number,
  mask: number,
  fields: Partial<SetAttrRequest>,
  handle = -1,
) {
  const request = Object.assign(new SetAttrRequest(), { ...fields, mask });
  must(tree.setattr(ino as Ino, handle, request), "setattr");
  return request;
}

/** Runs `action` with the Inos of paths, whose references it gives back. */
export function at(tree: WritableTree, paths: string[], action: (...inos: Ino[]) => void): void {
  const inos = paths.map((path) => must(walk(tree, path), path));
  action(...inos);
  for (const ino of inos) tree.release(ino);
}

/** Every path with its mode, its inode if `isNumbered`, and some of its content, one a line. */
export function dumpOf(tree: Tree, isNumbered: boolean, path = ""): string[] {
  const dir = must(walk(tree, path), path);
  const lines: string[] = [];
  for (const name of [...list(tree, dir).keys()].sort()) {
    const below = path === "" ? name : `${path}/${name}`;
    const ino = must(walk(tree, below), below);
    const attr = attrOf(tree, ino);
    const isDirectory = (attr.mode & 0o170000) === 0o040000;
    const number = isNumbered ? `${attr.ino}:${attr.devMinor} ` : "";
    const text = isDirectory ? "" : contents(tree, ino).read.toString("latin1").slice(0, 20);
    tree.release(ino);
    lines.push(`${below} ${attr.mode.toString(8)} ${number}${text}`);
    if (isDirectory) lines.push(...dumpOf(tree, isNumbered, below));
  }
  tree.release(dir);
  return lines;
}
