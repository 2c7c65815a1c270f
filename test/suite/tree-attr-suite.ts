// What the tree suite asks of a WritableTree's attributes: setattr, owners, xattrs. Linux's tmpfs is the model.
// Control plane.

import { Errno } from "../../lib/base/errno.ts";
import type { Name } from "../../lib/base/name.ts";
import { O_RDONLY, O_WRONLY, OpenResult, SetAttr } from "../../lib/tree/tree.ts";
import { type Behaviour, refused } from "./tree-behaviour.ts";
import { at, attrOf, createRequest, finish, must, setattr } from "./tree-fixture.ts";

const UTIME_NOW = 0x3fffffff;

const rows: readonly Omit<Behaviour, "needs">[] = [
  {
    name: "setattr changes what its mask says and nothing else",
    run(t, _tree, tree) {
      at(tree, ["file", "dir", "link"], (file, dir, link) => {
        const times = { atimeSec: 1e9, atimeNs: 123_456_789, mtimeSec: 2e9, mtimeNs: 987_654_321 };
        for (const ino of [file, dir, link]) {
          const done = setattr(tree, ino, SetAttr.atime | SetAttr.mtime, times);
          t.equal(done.failureMask, 0);
          const attr = attrOf(tree, ino);
          t.equal(`${attr.atimeSec} ${attr.atimeNs}`, "1000000000 123456789");
          t.equal(`${attr.mtimeSec} ${attr.mtimeNs}`, "2000000000 987654321");
        }
        setattr(tree, file, SetAttr.atime, { atimeSec: 5, atimeNs: 6, mtimeSec: 7, mtimeNs: 8 });
        t.equal(attrOf(tree, file).mtimeSec, 2e9, "mtime was not in the mask");
        t.equal(attrOf(tree, file).atimeSec, 5);
        setattr(tree, file, SetAttr.mtime, { mtimeNs: UTIME_NOW });
        t.ok(Math.abs(attrOf(tree, file).mtimeSec - Date.now() / 1000) < 5, "UTIME_NOW");
        setattr(tree, file, SetAttr.mode, { mode: 0o7777 });
        t.equal(attrOf(tree, file).mode, 0o107777);
        for (const size of [0, 100_000, 6]) {
          setattr(tree, file, SetAttr.size, { size });
          t.equal(attrOf(tree, file).size, size);
        }
        const out = new OpenResult();
        must(tree.open(file, O_RDONLY, out), "open");
        const done = setattr(tree, file, SetAttr.size, { size: 9 }, out.handle);
        t.equal(done.failureMask, 0, "by a handle that can't write");
        t.equal(attrOf(tree, file).size, 9);
        finish(tree, file, out);
      });
    },
  },
  {
    name: "setattr reports which parts failed and does the others",
    run(t, _tree, tree) {
      at(tree, ["dir", "link"], (dir, link) => {
        const mask = SetAttr.size | SetAttr.mode;
        const onDir = setattr(tree, dir, mask, { size: 1, mode: 0o711 });
        t.equal(onDir.failureMask, SetAttr.size);
        refused(t, -onDir.failureErrno, Errno.EISDIR, "size of a directory");
        t.equal(attrOf(tree, dir).mode & 0o7777, 0o711, "the mode was changed");
        const onLink = setattr(tree, link, mask, { size: 1, mode: 0o711 });
        t.equal(onLink.failureMask, mask);
        refused(t, -onLink.failureErrno, Errno.EINVAL, "size of a symlink, the last failure");
        const mode = setattr(tree, link, SetAttr.mode, { mode: 0o700 });
        refused(t, -mode.failureErrno, Errno.EOPNOTSUPP, "mode of a symlink");
      });
    },
  },
];

const ownerRows: readonly Behaviour[] = [
  {
    name: "a new inode has the owner asked for, set-id bits and all",
    needs: ["chown"],
    run(t, _tree, tree) {
      const root = tree.rootIno;
      const request = () => createRequest(0o6755, 1234, 5678);
      const out = new OpenResult();
      const file = must(tree.create(root, "o1" as Name, request(), O_WRONLY, out), "create");
      finish(tree, file, out);
      const made = [
        file,
        must(tree.mkdir(root, "o2" as Name, request()), "mkdir"),
        must(tree.mknod(root, "o3" as Name, request()), "mknod"),
        must(tree.symlink(root, "o4" as Name, "x", request()), "symlink"),
      ];
      for (const ino of made) {
        const attr = attrOf(tree, ino);
        t.equal(`${attr.uid}:${attr.gid}`, "1234:5678");
        if ((attr.mode & 0o170000) !== 0o120000) t.equal(attr.mode & 0o7777, 0o6755);
        tree.release(ino);
      }
    },
  },
  {
    name: "a change of owner clears set-id bits, as Linux does; one id alone can change",
    needs: ["chown"],
    run(t, _tree, tree) {
      at(tree, ["script", "link"], (script, link) => {
        setattr(tree, script, SetAttr.uid, { uid: 77, gid: 78 });
        const attr = attrOf(tree, script);
        t.equal(`${attr.uid}:${attr.gid}`, `77:${process.getgid!()}`);
        t.equal(attr.mode & 0o7777, 0o755);
        setattr(tree, link, SetAttr.uid | SetAttr.gid, { uid: 5, gid: 6 });
        t.equal(attrOf(tree, link).gid, 6, "a symlink's own");
      });
    },
  },
];

const xattrRows: readonly Behaviour[] = [
  {
    name: "user xattrs of files and directories are set, listed, read and removed",
    needs: ["xattr"],
    run(t, _tree, tree) {
      at(tree, ["file", "dir"], (...inos) => {
        for (const ino of inos) {
          const out = Buffer.alloc(64);
          t.equal(tree.setxattr(ino, "user.a", Buffer.from([1, 0, 255]), 0), 0);
          t.equal(tree.setxattr(ino, "user.b", Buffer.alloc(0), 0), 0);
          t.equal(tree.getxattr(ino, "user.a", out), 3);
          t.same([...out.subarray(0, 3)], [1, 0, 255]);
          refused(t, tree.getxattr(ino, "user.a", out.subarray(0, 2)), Errno.ERANGE, "too short");
          refused(t, tree.getxattr(ino, "user.a", out.subarray(0, 0)), Errno.ERANGE, "no room");
          t.equal(tree.listxattr(ino, out), 14);
          const listed = out.toString("latin1", 0, 14).split("\0").sort();
          t.same(listed, ["", "user.a", "user.b"]);
          refused(t, tree.listxattr(ino, out.subarray(0, 13)), Errno.ERANGE, "list");
          refused(t, tree.setxattr(ino, "user.a", out, 1), 17, "XATTR_CREATE of an old one");
          refused(t, tree.setxattr(ino, "user.c", out, 2), Errno.ENODATA, "XATTR_REPLACE");
          t.equal(tree.removexattr(ino, "user.a"), 0);
          refused(t, tree.removexattr(ino, "user.a"), Errno.ENODATA, "removed already");
        }
      });
    },
  },
  {
    name: "other xattrs are not the sandbox's: EPERM; symlinks have none",
    needs: ["xattr"],
    run(t, _tree, tree) {
      at(tree, ["file", "link"], (file, link) => {
        const value = Buffer.from("x");
        for (const name of ["security.capability", "trusted.x", "system.posix_acl_access"]) {
          refused(t, tree.setxattr(file, name, value, 0), Errno.EPERM, `set ${name}`);
          refused(t, tree.removexattr(file, name), Errno.EPERM, `remove ${name}`);
          refused(t, tree.getxattr(file, name, value), Errno.ENODATA, `get ${name}`);
        }
        refused(t, tree.setxattr(file, "none", value, 0), Errno.EOPNOTSUPP, "no namespace");
        refused(t, tree.setxattr(link, "user.a", value, 0), Errno.EOPNOTSUPP, "set on a symlink");
        refused(t, tree.getxattr(link, "user.a", value), Errno.EOPNOTSUPP, "get of a symlink");
        t.equal(tree.listxattr(link, value), 0);
      });
    },
  },
];

export const attrBehaviours: readonly Behaviour[] = [
  ...rows.map((row): Behaviour => ({ ...row, needs: ["write"] })),
  ...ownerRows,
  ...xattrRows,
];
