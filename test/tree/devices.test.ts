// Device nodes: in a scratch upper and in an overlay over one they have all of an inode's but that anybody opens them, and no capability
// makes them; in a directory of the host a whiteout is all there is. Control plane.

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { Errno } from "../../lib/base/errno.ts";
import type { Name } from "../../lib/base/name.ts";
import { HostFd } from "../../lib/sys/host-fd.ts";
import { UTIME_NOW } from "../../lib/sys/hostfs.ts";
import { native } from "../../lib/sys/native.ts";
import { HostTree } from "../../lib/tree/host.ts";
import { OverlayTree, upperInodes } from "../../lib/tree/overlay.ts";
import { O_RDONLY, OpenResult, SetAttr, type WritableTree } from "../../lib/tree/tree.ts";
import { createUpper, createUpperFd, openUpper, type Upper } from "../../lib/tree/upper.ts";
import { noTmpfs } from "../suite/private-tmpfs.ts";
import { snapshotOf } from "../suite/snapshot-fixture.ts";
import { refused, type Test } from "../suite/tree-behaviour.ts";
import {
  attrAt,
  attrOf,
  createRequest,
  list,
  must,
  openFds,
  setattr,
  walk,
} from "../suite/tree-fixture.ts";

const S_IFCHR = 0o020000;
const S_IFBLK = 0o060000;
const DT_CHR = 2;
const DT_BLK = 6;
const SIZES = { sizeBytes: 1 << 20, inodes: upperInodes(64), mode: 0o700 };
/** The largest numbers that a dev_t of Linux has, and some below. */
const NUMBERS = [
  [0, 0],
  [1, 3],
  [8, 300],
  [0, 65_536],
  [4095, 1_048_575],
] as const;

function device(type: number, major: number, minor: number, mode = 0o640) {
  const request = createRequest(0, 7, 8);
  return Object.assign(request, { mode: type | mode, rdevMajor: major, rdevMinor: minor });
}

function check(t: Test, tree: WritableTree, dir = tree.rootIno): void {
  for (const type of [S_IFCHR, S_IFBLK]) {
    for (const [major, minor] of NUMBERS) {
      const name = `${type === S_IFCHR ? "c" : "b"}${major}.${minor}` as Name;
      const ino = must(tree.mknod(dir, name, device(type, major, minor)), name);
      const { mode, uid, gid, rdevMajor, rdevMinor, size, mtimeSec } = attrOf(tree, ino);
      t.same([mode, uid, gid, size], [type | 0o640, 7, 8, 0], name);
      t.same([rdevMajor, rdevMinor], [major, minor], name);
      t.ok(Math.abs(mtimeSec - Date.now() / 1000) < 60, "it is of now");
      refused(t, tree.open(ino, O_RDONLY, new OpenResult()), Errno.EPERM, "opened");
      refused(t, tree.mknod(dir, name, device(type, 1, 1)), Errno.EEXIST, "again");
      const change = {
        mode: 0o4711,
        uid: 9,
        gid: 9,
        atimeSec: 1,
        atimeNs: 2,
        mtimeSec: 3,
        mtimeNs: 4,
      };
      const { atime, mtime, mode: MODE, uid: UID, gid: GID } = SetAttr;
      setattr(tree, ino, UID | GID, change);
      setattr(tree, ino, MODE | atime | mtime, change);
      const now = attrOf(tree, ino);
      t.same([now.mode, now.uid, now.gid], [type | 0o4711, 9, 9]);
      t.same([now.atimeSec, now.atimeNs, now.mtimeSec, now.mtimeNs], [1, 2, 3, 4]);
      setattr(tree, ino, mtime, { mtimeSec: 2 ** 40, mtimeNs: 5 });
      t.same([attrOf(tree, ino).atimeSec, attrOf(tree, ino).mtimeSec], [1, 2 ** 34 - 1], "its end");
      setattr(tree, ino, atime | mtime, { atimeSec: -7, atimeNs: 0, mtimeNs: UTIME_NOW });
      t.equal(attrOf(tree, ino).atimeSec, 0, "before 1970");
      t.ok(Math.abs(attrOf(tree, ino).mtimeSec - Date.now() / 1000) < 60, "UTIME_NOW");
      t.equal(tree.link(dir, "second" as Name, ino), ino);
      t.equal(tree.rename(dir, name, dir, "moved" as Name, 0), 0);
      const last = attrOf(tree, ino);
      t.same([last.rdevMajor, last.rdevMinor, last.nlink], [major, minor, 2], "with two names");
      const wanted = type === S_IFCHR ? DT_CHR : DT_BLK;
      const listed = list(tree, dir);
      t.same([listed.get("moved")?.type, listed.get("second")?.type], [wanted, wanted]);
      const text = Buffer.from("x");
      refused(t, tree.setxattr(ino, "user.a", text, 0), Errno.EOPNOTSUPP, "an attribute");
      setattr(tree, ino, SetAttr.size, { size: 1 });
      for (const each of ["moved", "second"]) t.equal(tree.unlink(dir, each as Name, false), 0);
      for (let i = 0; i < 2; i++) tree.release(ino);
    }
    refused(t, tree.mknod(dir, "x" as Name, device(type, 4096, 0)), Errno.EINVAL, "major 4096");
    refused(t, tree.mknod(dir, "x" as Name, device(type, 0, 2 ** 20)), Errno.EINVAL, "minor 2^20");
    refused(t, walk(tree, "x"), Errno.ENOENT, "nothing is left");
  }
}

const reason = noTmpfs();
const skip = reason === undefined ? false : reason;

t.test("in a tmpfs of ours, and as another server of it finds them", { skip }, (t) => {
  const before = openFds();
  const mount = createUpperFd(SIZES) as HostFd;
  const again = new HostFd(native.dupFd(mount.borrow()));
  const first = openUpper(mount) as Upper;
  check(t, first);
  first.release(must(first.mknod(first.rootIno, "d" as Name, device(S_IFBLK, 259, 77)), "mknod"));
  first.dispose();
  const second = openUpper(again) as Upper;
  const { mode, rdevMajor, rdevMinor } = attrAt(second, "d");
  t.same([mode, rdevMajor, rdevMinor], [S_IFBLK | 0o640, 259, 77]);
  second.dispose();
  t.equal(openFds(), before);
  t.end();
});

t.test("in an overlay, where one of 0:0 hides nothing", { skip }, (t) => {
  const lower = snapshotOf([
    { path: "dir", type: "directory" },
    { path: "dir/file", type: "file", content: "x" },
    { path: "file", type: "file", content: "y" },
  ]);
  const tree = OverlayTree.open(lower.tree, createUpper(SIZES) as Upper, { inodes: 64 });
  if (typeof tree === "number") throw new Error(`overlay: ${tree}`);
  check(t, tree);
  const dir = must(walk(tree, "dir"), "dir");
  check(t, tree, dir);
  t.equal(tree.unlink(dir, "file" as Name, false), 0);
  const ino = must(tree.mknod(dir, "file" as Name, device(S_IFCHR, 0, 0)), "over a whiteout");
  t.equal(attrAt(tree, "dir/file").mode, S_IFCHR | 0o640);
  t.same(
    [...list(tree, dir)].map(([name, { type }]) => [name, type]),
    [["file", DT_CHR]],
  );
  refused(t, tree.unlink(tree.rootIno, "dir" as Name, true), Errno.ENOTEMPTY, "it is something");
  t.equal(
    tree.rename(dir, "file" as Name, tree.rootIno, "file" as Name, 0),
    0,
    "over a lower file",
  );
  t.equal(attrAt(tree, "file").mode, S_IFCHR | 0o640);
  t.equal(tree.unlink(tree.rootIno, "dir" as Name, true), 0, "whiteouts are nothing");
  for (const each of [ino, dir]) tree.release(each);
  tree.dispose();
  lower.dispose();
  t.end();
});

t.test("on the host a whiteout alone, which is one", (t) => {
  const path = mkdtempSync(join(tmpdir(), "burrow-devices-"));
  t.teardown(() => rmSync(path, { recursive: true }));
  const tree = HostTree.open(path, { isReadOnly: false }) as HostTree;
  const root = tree.rootIno;
  for (const type of [S_IFCHR, S_IFBLK])
    refused(t, tree.mknod(root, "x" as Name, device(type, 1, 3)), Errno.EPERM, type.toString(8));
  refused(t, tree.mknod(root, "x" as Name, device(S_IFBLK, 0, 0)), Errno.EPERM, "a disk 0:0");
  const request = { ...device(S_IFCHR, 0, 0), uid: process.getuid!(), gid: process.getgid!() };
  const ino = tree.mknod(root, "x" as Name, request);
  // man mknod(2): without a capability since Linux 5.8.
  if (ino === -Errno.EPERM && process.getuid!() !== 0) t.comment("no whiteouts here");
  else {
    t.same([attrOf(tree, ino).mode, attrOf(tree, ino).rdevMajor], [S_IFCHR | 0o640, 0]);
    t.equal(statSync(join(path, "x")).rdev, 0);
    t.ok(statSync(join(path, "x")).isCharacterDevice());
    tree.release(must(ino, "mknod"));
  }
  tree.dispose();
  const kept = HostTree.open(path, { isReadOnly: false, isUpper: true }) as HostTree;
  refused(
    t,
    kept.mknod(kept.rootIno, "y" as Name, request),
    Errno.EPERM,
    "in an upper of the host's",
  );
  if (spawnSync("mkfifo", [join(path, "fifo")]).status === 0)
    t.equal(attrAt(kept, "fifo").mode & 0o170000, S_IFCHR, "a FIFO that somebody put there");
  kept.dispose();
  t.end();
});
