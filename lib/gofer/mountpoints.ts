// Mountpoints: what a bind mount of a file is put on. A newer sandbox wants a file there, which it can make neither in a read-only tree
// nor in a directory that it has made up itself: runsc's gofer makes it in the host's directory before it serves, and so do we; a view
// makes it up. Directories are left to the sandbox, which makes them up. gVisor: boot/vfs.go makeMountPoint, specutils.go
// SafeSetupAndMount. Control plane, before the process gives up anything.

import { statSync } from "node:fs";
import { Errno, errnoName } from "../base/errno.ts";
import { S_IFREG } from "../base/file-types.ts";
import { checkName, type Name, nameOf, showName } from "../base/name.ts";
import { NO_ID } from "../sys/hostfs.ts";
import { HostTree } from "../tree/host.ts";
import { CreateRequest, type Ino, isWritable, type Tree, type WritableTree } from "../tree/tree.ts";
import type { View } from "../tree/view.ts";
import { resolveInRoot, type ServedMount, type Spec } from "./bundle.ts";

/** runsc's 0777 less the umask that it has nearly everywhere: our own is another by now. */
const MODE = 0o755;

const target = new Uint8Array(4096);

/** The target of a symlink in a tree by its absolute path, or undefined. */
export function readlinkIn(tree: Tree, path: string): string | undefined {
  const names = path.split("/").filter((name) => name !== "");
  const held: Ino[] = [];
  for (const name of names) {
    const found = tree.lookup(held.at(-1) ?? tree.rootIno, nameOf(name));
    if (found < 0) break;
    held.push(found as Ino);
  }
  const isThere = held.length === names.length;
  const length = isThere ? tree.readlink(held.at(-1) ?? tree.rootIno, target) : -Errno.ENOENT;
  for (const ino of held) tree.release(ino);
  return length < 0
    ? undefined
    : showName(Buffer.from(target.buffer, 0, length).toString("latin1"));
}

function isFile(path: string): boolean {
  try {
    return !statSync(path).isDirectory();
  } catch {
    return false; // who opens it says why
  }
}

/** For each mount the paths in it where a file of the host is mounted on it, as the bundle has them. */
export function fileMountpoints(spec: Spec, mounts: readonly ServedMount[]): string[][] {
  const inOf = (mount: string) => (mount.endsWith("/") ? mount : `${mount}/`);
  const all = ["/", ...(spec.mounts ?? []).map(({ destination }) => destination)];
  const paths: string[][] = mounts.map(() => []);
  for (const { destination, source } of mounts) {
    const around = all.filter((each) => destination !== each && destination.startsWith(inOf(each)));
    // Mounts come in the order of their destinations' length: the longest is what is seen there.
    const over = around.reduce((one, other) => (other.length > one.length ? other : one), "");
    const at = mounts.findLastIndex((mount) => mount.destination === over);
    if (at >= 0 && isFile(source)) paths[at]!.push(destination.slice(inOf(over).length - 1));
  }
  return paths;
}

/** Has a view have files at these paths, for want of others. */
export function makeUp(view: View, paths: readonly string[]): void {
  for (const path of paths) {
    // Through a file there is no way: the sandbox says so.
    view.addMountpoint(nameOf(resolveInRoot(path, (each) => readlinkIn(view, each))));
  }
}

/**
 * Makes the files at these paths, and the directories to them, in what a mount passes through of the host, as runsc does, also for a mount
 * that is read-only for the sandbox; or in a tmpfs. What can't be made is left to the sandbox, which refuses to start.
 */
export function makeMountpoints(
  { source }: ServedMount,
  served: Tree,
  paths: readonly string[],
  log: (line: string) => void,
): void {
  if (paths.length === 0) return;
  const tree = isWritable(served) ? served : HostTree.open(source, { isReadOnly: false });
  if (typeof tree === "number" || !isWritable(tree)) return;
  for (const path of paths) {
    const at = resolveInRoot(path, (each) => readlinkIn(tree, each));
    const failed = makeFile(tree, at.split("/").filter(Boolean).map(nameOf));
    if (failed < 0) log(`can't make the mountpoint ${at} in ${source}: ${errnoName(failed)}`);
  }
  if (tree !== served) tree.dispose();
}

function makeFile(tree: WritableTree, names: readonly Name[]): number {
  let ino: number = tree.rootIno;
  for (const [i, name] of names.entries()) {
    const isLast = i === names.length - 1;
    const found = checkName(name) || find(tree, ino as Ino, name, isLast);
    if (i > 0) tree.release(ino as Ino);
    if (found < 0) return found;
    ino = found;
  }
  if (names.length > 0) tree.release(ino as Ino);
  return 0;
}

/** What has a name, made when there is nothing. */
function find(tree: WritableTree, dir: Ino, name: Name, isFile: boolean): number {
  const found = tree.lookup(dir, name);
  if (found !== -Errno.ENOENT) return found;
  const request = new CreateRequest();
  request.mode = isFile ? S_IFREG | MODE : MODE;
  request.uid = NO_ID;
  request.gid = NO_ID;
  return isFile ? tree.mknod(dir, name, request) : tree.mkdir(dir, name, request);
}
