// HostTree over directories and single files of the host: the suite, special files, mounts, bounds. Control plane.

import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { CONTROL_FDS_MAX } from "../../lib/base/limits.ts";
import type { Name } from "../../lib/base/name.ts";
import { HostFd } from "../../lib/sys/host-fd.ts";
import { native } from "../../lib/sys/native.ts";
import { HostTree } from "../../lib/tree/host.ts";
import { HostHandles } from "../../lib/tree/host-handles.ts";
import { HostNodes } from "../../lib/tree/host-nodes.ts";
import { type Ino, O_RDONLY, O_RDWR, OpenResult, SetAttrRequest } from "../../lib/tree/tree.ts";
import { refused } from "../suite/tree-behaviour.ts";
import {
  attrAt,
  attrOf,
  contents,
  createRequest,
  finish,
  list,
  must,
  openFds,
  populateDirectory,
  walk,
} from "../suite/tree-fixture.ts";
import { suiteFixture, treeSuite } from "../suite/tree-suite.ts";

const isRoot = process.getuid!() === 0;

function scratch(base = tmpdir()): string {
  return mkdtempSync(join(base, "burrow-host-"));
}

function open(path: string, isReadOnly: boolean): HostTree {
  const tree = HostTree.open(path, { isReadOnly });
  if (typeof tree === "number") throw new Error(`open ${path}: ${tree}`);
  return tree;
}

// One directory does for all that can't change it.
const shared = scratch();
populateDirectory(shared, suiteFixture({ hardLinks: true }));
t.teardown(() => rmSync(shared, { recursive: true }));
treeSuite("host, read-only", () => ({ tree: open(shared, true) }), { hardLinks: true });

const memory = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
treeSuite(
  "host, writable",
  (fixture) => {
    const path = scratch(memory);
    populateDirectory(path, fixture);
    return { tree: open(path, false), dispose: () => rmSync(path, { recursive: true }) };
  },
  { hardLinks: true, write: true, xattr: true, chown: isRoot },
);

t.test("a root that is missing or a block device is refused and leaves no FD", (t) => {
  const fds = openFds();
  t.equal(HostTree.open("/nope/nope", { isReadOnly: true }), -Errno.ENOENT);
  t.equal(HostTree.open("/etc/passwd/x", { isReadOnly: true }), -Errno.ENOTDIR);
  const path = scratch();
  const isMade = isRoot && spawnSync("mknod", [join(path, "block"), "b", "7", "0"]).status === 0;
  if (isMade) {
    t.equal(HostTree.open(join(path, "block"), { isReadOnly: true }), -Errno.EPERM);
  } else t.pass("skipped: only root makes device nodes", { skip: true });
  rmSync(path, { recursive: true });
  t.equal(openFds(), fds);
  t.end();
});

t.test("a single file can be the root", (t) => {
  const path = scratch();
  writeFileSync(join(path, "f"), "alone");
  const tree = open(join(path, "f"), true);
  t.equal(attrAt(tree, "").mode & 0o170000, 0o100000);
  t.equal(contents(tree, tree.rootIno).read.toString(), "alone");
  refused(t, tree.lookup(tree.rootIno, "x" as Name), Errno.ENOTDIR, "lookup");
  refused(t, tree.opendir(tree.rootIno), Errno.ENOTDIR, "opendir");
  tree.dispose();
  rmSync(path, { recursive: true });
  t.end();
});

t.test("every mutation of a read-only tree is EROFS and changes nothing", (t) => {
  const tree = open(shared, true);
  const root = tree.rootIno;
  const [file, none, x] = ["file" as Name, "void" as Name, "x" as Name];
  const request = createRequest(0o777);
  const ino = must(walk(tree, "file"), "file");
  const opened = new OpenResult();
  must(tree.open(ino, 0, opened), "open");
  const { handle } = opened;
  const change = Object.assign(new SetAttrRequest(), { mask: 0x26a, mode: 0 });
  const bytes = Buffer.from("x");
  const calls: Record<string, () => number> = {
    create: () => tree.create(root, x, request, 2, new OpenResult()),
    mkdir: () => tree.mkdir(root, x, request),
    symlink: () => tree.symlink(root, x, "x", request),
    mknod: () => tree.mknod(root, x, request),
    link: () => tree.link(root, x, ino),
    unlink: () => tree.unlink(root, file, false),
    rmdir: () => tree.unlink(root, none, true),
    rename: () => tree.rename(root, file, root, x, 0),
    exchange: () => tree.rename(root, file, root, none, 2),
    setattr: () => tree.setattr(ino, handle, change),
    write: () => tree.write(ino, handle, 0, bytes),
    allocate: () => tree.allocate(ino, handle, 0, 0, 1),
    setxattr: () => tree.setxattr(ino, "user.a", bytes, 0),
    removexattr: () => tree.removexattr(ino, "user.a"),
    truncate: () => tree.open(ino, 0o1000, new OpenResult()),
  };
  const before = JSON.stringify([attrOf(tree, ino), [...list(tree, root)]]);
  for (const [name, call] of Object.entries(calls)) refused(t, call(), Errno.EROFS, name);
  t.equal(JSON.stringify([attrOf(tree, ino), [...list(tree, root)]]), before);
  t.equal(change.failureMask, 0);
  refused(t, native.pwriteFd(opened.hostFd, bytes, 0), Errno.EBADF, "through the donated FD");
  // A client that has a /proc can reopen what it was given.
  const again = native.openAt(-1, `/proc/self/fd/${opened.hostFd}`, 2, 0);
  if (isRoot) refused(t, again, Errno.EROFS, "the donated FD reopened for writing");
  else if (again >= 0) native.closeFd(again);
  finish(tree, ino, opened);
  tree.dispose();
  t.end();
});

t.test("special files are seen and never opened", async (t) => {
  const path = scratch();
  const server = createServer().listen(join(path, "socket"));
  await new Promise((resolve) => server.once("listening", resolve));
  spawnSync("mkfifo", [join(path, "fifo")]);
  if (isRoot) {
    spawnSync("mknod", [join(path, "null"), "c", "1", "3"]);
    spawnSync("mknod", [join(path, "block"), "b", "7", "0"]);
  } else t.comment("not tested: only root makes device nodes");
  for (const isReadOnly of [true, false]) {
    const tree = open(path, isReadOnly);
    const found = list(tree, tree.rootIno);
    const expected: [string, number, number, number][] = [
      ["socket", 0o140000, 12, Errno.ENXIO],
      ["fifo", 0o010000, 1, Errno.EPERM],
    ];
    if (isRoot) expected.push(["null", 0o020000, 2, Errno.EPERM]);
    for (const [name, type, dirent, errno] of expected) {
      const ino = must(walk(tree, name), name);
      t.equal(attrOf(tree, ino).mode & 0o170000, type, `type of ${name}`);
      t.equal(found.get(name)?.type, dirent, `listed type of ${name}`);
      refused(t, tree.open(ino, 0, new OpenResult()), errno, `open of ${name}`);
      tree.release(ino);
    }
    if (isRoot) {
      const ino = must(walk(tree, "null"), "null");
      t.equal(`${attrOf(tree, ino).rdevMajor}:${attrOf(tree, ino).rdevMinor}`, "1:3");
      tree.release(ino);
      refused(t, walk(tree, "block"), Errno.EPERM, "a block device has no inode here");
      t.ok(found.has("block"), "though its name is listed");
    }
    tree.dispose();
  }
  await new Promise((resolve) => server.close(resolve));
  rmSync(path, { recursive: true });
});

t.test("mounts below the root are other devices, and files on them differ", (t) => {
  if (!isRoot) {
    t.pass("skipped: only root mounts", { skip: true });
    return t.end();
  }
  const path = scratch();
  for (const name of ["a", "b"]) {
    mkdirSync(join(path, name));
    spawnSync("mount", ["-t", "tmpfs", "burrow-test", join(path, name)]);
    writeFileSync(join(path, name, "f"), name);
  }
  const tree = open(path, true);
  const [a, b] = [attrAt(tree, "a/f"), attrAt(tree, "b/f")];
  t.equal(a.ino, b.ino, "two file systems number their inodes alike");
  t.not(a.devMinor, b.devMinor, "so the device must tell them apart");
  t.equal(contents(tree, must(walk(tree, "b/f"), "b/f")).read.toString(), "b");
  tree.dispose();
  for (const name of ["a", "b"]) spawnSync("umount", [join(path, name)]);
  rmSync(path, { recursive: true });
  t.end();
});

t.test("inode numbers past 2^53 stay apart", (t) => {
  const nodes = new HostNodes();
  const stat = new Float64Array(20);
  const take = (low: number, high: number) => {
    stat[0] = low;
    stat[1] = high;
    return nodes.take(native.openAt(-1, "/", 0o10000000, 0), stat);
  };
  const inos = [take(7, 0), take(7, 1), take(7, 2047), take(2 ** 53 - 1, 2047)];
  t.equal(new Set(inos).size, 4);
  const keys = inos.map((ino) => nodes.get(ino as Ino)!);
  t.equal(new Set(keys.map((node) => `${node.devMinor}:${node.hostIno}`)).size, 4);
  t.equal(take(7, 1), inos[1], "and are found again");
  t.equal(nodes.siblingDevice(keys[0]!, 1), keys[1]!.devMinor, "in listings too");
  nodes.dispose();
  t.equal(nodes.count, 0);
  t.end();
});

t.test("an Ino is never used for another file", (t) => {
  const path = scratch();
  const tree = open(path, false);
  const seen = new Set<number>();
  for (let i = 0; i < 100; i++) {
    const name = `f${i}` as Name;
    const ino = must(tree.mknod(tree.rootIno, name, createRequest(0o600)), "mknod");
    t.notOk(seen.has(ino), "a fresh number");
    seen.add(ino);
    tree.unlink(tree.rootIno, name, false);
    tree.release(ino);
    refused(t, tree.getattr(ino, attrAt(tree, "")), Errno.EBADF, "released");
    tree.release(ino);
  }
  t.equal(tree.inodeCount, 1, "only the root is left, in spite of double releases");
  tree.dispose();
  rmSync(path, { recursive: true });
  t.end();
});

t.test("a tree's share of FDs bounds inodes, files and directories together", (t) => {
  const path = scratch();
  const tree = open(path, false);
  const root = tree.rootIno;
  const request = createRequest(0o600);
  const none = new OpenResult();
  // The root and four more.
  tree.limitFds(5);
  const file = must(tree.mknod(root, "f" as Name, request), "mknod");
  must(tree.open(file, O_RDONLY, none), "open");
  const dir = must(tree.opendir(root), "opendir");
  refused(
    t,
    tree.create(root, "x" as Name, request, O_RDWR, none),
    Errno.EMFILE,
    "two FDs for one",
  );
  t.notOk(existsSync(join(path, "x")), "and no file is left");
  const last = must(tree.mkdir(root, "d" as Name, request), "mkdir");
  refused(t, tree.mkdir(root, "x" as Name, request), Errno.EMFILE, "mkdir");
  refused(t, tree.open(file, O_RDONLY, none), Errno.EMFILE, "open");
  refused(t, tree.opendir(root), Errno.EMFILE, "opendir");
  t.equal(tree.lookup(root, "f" as Name), file, "an inode that is known needs none");
  tree.release(last);
  tree.closedir(root, dir);
  must(tree.create(root, "x" as Name, request, O_RDWR, none), "room again for two");
  tree.limitFds(1);
  refused(t, tree.opendir(root), Errno.EMFILE, "below what is held");
  tree.dispose();
  rmSync(path, { recursive: true });
  t.end();
});

t.test("tables are bounded: EMFILE, and room again after a release", (t) => {
  const handles = new HostHandles(2);
  const fd = () => native.openAt(-1, "/dev/null", 0, 0);
  const fds = openFds();
  t.equal(handles.take(fd()), 0);
  t.equal(handles.take(fd()), 1);
  t.equal(handles.take(fd()), -Errno.EMFILE);
  t.equal(handles.take(-Errno.EACCES), -Errno.EACCES, "a failed open passes through");
  t.equal(openFds(), fds + 2, "the refused FD was closed");
  handles.close(0);
  handles.close(0);
  handles.close(99);
  t.equal(handles.count, 1);
  t.equal(handles.take(fd()), 0);
  handles.dispose();
  handles.dispose();
  t.equal(openFds(), fds);

  const nodes = new HostNodes();
  const stat = new Float64Array(20);
  // FDs that are closed already: the table is what is tested.
  for (let i = 0; i < CONTROL_FDS_MAX; i++) {
    stat[0] = i + 1;
    nodes.take(1_000_000_000 + i, stat);
  }
  t.notOk(nodes.hasRoom);
  stat[0] = CONTROL_FDS_MAX + 1;
  t.equal(nodes.take(fd(), stat), -Errno.EMFILE);
  t.equal(openFds(), fds, "the refused FD was closed");
  stat[0] = 5;
  t.ok(nodes.take(fd(), stat) > 0, "a known inode needs no room");
  nodes.dispose();
  t.end();
});

t.test("dispose closes what callers forgot", (t) => {
  const fds = openFds();
  const tree = open(shared, true);
  for (const path of ["file", "dir/sub/deep", "odd"]) must(walk(tree, path), path);
  must(tree.open(must(walk(tree, "file"), "file"), 0, new OpenResult()), "open");
  must(tree.opendir(must(walk(tree, "dir"), "dir")), "opendir");
  t.ok(openFds() > fds + 5);
  tree.dispose();
  t.equal(openFds(), fds);
  refused(t, tree.getattr(tree.rootIno, {} as never), Errno.EBADF, "after dispose");
  refused(t, tree.rootFd, Errno.EBADF, "its root");
  t.end();
});

t.test("a HostFd is closed once, by whoever has it", (t) => {
  const fds = openFds();
  {
    using owned = new HostFd(native.openAt(-1, "/dev/null", 0, 0));
    t.ok(owned.borrow() > 2);
  }
  t.equal(openFds(), fds);
  const given = new HostFd(native.openAt(-1, "/dev/null", 0, 0));
  const fd = given.take();
  t.throws(() => given.borrow(), { name: "AssertionError" });
  given[Symbol.dispose]();
  t.equal(openFds(), fds + 1, "what was taken is not closed");
  native.closeFd(fd);
  t.throws(() => new HostFd(-9), { name: "AssertionError" });
  t.end();
});
