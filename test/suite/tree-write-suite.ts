// What the tree suite asks of a WritableTree besides: names, content, attributes, and files without a name left.
// Linux's tmpfs is the model. Control plane.

import { Errno } from "../../lib/base/errno.ts";
import type { Name } from "../../lib/base/name.ts";
import { NO_ID } from "../../lib/sys/hostfs.ts";
import { native } from "../../lib/sys/native.ts";
import {
  type Ino,
  O_RDONLY,
  O_RDWR,
  O_TRUNC,
  O_WRONLY,
  OpenResult,
  SetAttr,
  type WritableTree,
} from "../../lib/tree/tree.ts";
import { type Behaviour, refused } from "./tree-behaviour.ts";
import {
  at,
  attrAt,
  attrOf,
  contents,
  createRequest,
  finish,
  must,
  namesIn,
  setattr,
  walk,
} from "./tree-fixture.ts";

const NOREPLACE = 1;
const EXCHANGE = 2;
/** FALLOC_FL_*. man fallocate(2). */
const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;
/** A group of none who tests. */
const GROUP = 77;
const HELLO = Buffer.from("hello\n");

function create(
  tree: WritableTree,
  name: string,
  flags: number,
  mode = 0o644,
  out = new OpenResult(),
) {
  const request = createRequest(mode);
  return { out, ino: must(tree.create(tree.rootIno, name as Name, request, flags, out), name) };
}

function textOf(tree: WritableTree, path: string): string {
  const ino = must(walk(tree, path), path);
  const text = contents(tree, ino).read.toString();
  tree.release(ino);
  return text;
}

const rows: readonly Omit<Behaviour, "needs">[] = [
  {
    name: "create and the like refuse a name that is taken, of any type",
    run(t, _tree, tree) {
      const root = tree.rootIno;
      for (const taken of ["file", "dir", "link", "dangling"] as Name[]) {
        const request = createRequest(0o600);
        const { EEXIST } = Errno;
        refused(t, tree.create(root, taken, request, O_RDWR, new OpenResult()), EEXIST, "create");
        refused(t, tree.mkdir(root, taken, request), EEXIST, "mkdir");
        refused(t, tree.mknod(root, taken, request), EEXIST, "mknod");
        refused(t, tree.symlink(root, taken, "x", request), EEXIST, "symlink");
        at(tree, ["big"], (big) => refused(t, tree.link(root, taken, big), EEXIST, "link"));
      }
      t.equal(textOf(tree, "file"), "hello\n");
    },
  },
  {
    name: "creating in what is no directory is ENOTDIR",
    run(t, _tree, tree) {
      at(tree, ["file", "link", "big"], (file, link, big) => {
        const request = createRequest(0o600);
        const name = "x" as Name;
        const { ENOTDIR } = Errno;
        for (const dir of [file, link]) {
          refused(t, tree.create(dir, name, request, O_RDWR, new OpenResult()), ENOTDIR, "create");
          refused(t, tree.mkdir(dir, name, request), ENOTDIR, "mkdir");
          refused(t, tree.symlink(dir, name, "x", request), ENOTDIR, "symlink");
          refused(t, tree.link(dir, name, big), ENOTDIR, "link");
          refused(t, tree.unlink(dir, name, false), ENOTDIR, "unlink");
          refused(t, tree.rename(dir, name, tree.rootIno, name, 0), ENOTDIR, "rename from");
          refused(t, tree.rename(tree.rootIno, "big" as Name, dir, name, 0), ENOTDIR, "rename to");
        }
      });
    },
  },
  {
    name: "no name reaches beyond its directory, even one that was not checked",
    run(t, _tree, tree) {
      const root = tree.rootIno;
      const request = createRequest(0o777);
      for (const name of ["..", ".", "", "../x", "dir/x", "/etc/x", "a\0b"] as Name[]) {
        const { EINVAL } = Errno;
        refused(t, tree.lookup(root, name), EINVAL, `lookup of "${name}"`);
        refused(t, tree.create(root, name, request, O_RDWR, new OpenResult()), EINVAL, "create");
        refused(t, tree.mkdir(root, name, request), EINVAL, "mkdir");
        refused(t, tree.symlink(root, name, "x", request), EINVAL, "symlink");
        refused(t, tree.unlink(root, name, true), EINVAL, "unlink");
        refused(t, tree.rename(root, "file" as Name, root, name, 0), EINVAL, "rename to");
        refused(t, tree.rename(root, name, root, "y" as Name, 0), EINVAL, "rename from");
        at(tree, ["file"], (file) => refused(t, tree.link(root, name, file), EINVAL, "link"));
      }
      const long = "n".repeat(256) as Name;
      refused(t, tree.mkdir(root, long, request), Errno.ENAMETOOLONG, "256 bytes");
    },
  },
  {
    name: "mknod makes regular files and refuses what is no device with EPERM",
    run(t, _tree, tree) {
      for (const type of [0o010000, 0o140000, 0o040000, 0o120000]) {
        const request = createRequest(0);
        request.mode = type | 0o644;
        refused(t, tree.mknod(tree.rootIno, "x" as Name, request), Errno.EPERM, type.toString(8));
      }
      const ino = must(tree.mknod(tree.rootIno, "node" as Name, createRequest(0o640)), "mknod");
      t.equal(attrOf(tree, ino).mode, 0o100640);
      tree.release(ino);
    },
  },
  {
    name: "unlink and rmdir keep to their kind; a directory must be empty",
    run(t, _tree, tree) {
      const root = tree.rootIno;
      const unlink = (name: string, isDirectory: boolean) =>
        tree.unlink(root, name as Name, isDirectory);
      refused(t, unlink("nope", false), Errno.ENOENT, "missing");
      refused(t, unlink("dir", false), Errno.EISDIR, "unlink of a directory");
      refused(t, unlink("file", true), Errno.ENOTDIR, "rmdir of a file");
      refused(t, unlink("link", true), Errno.ENOTDIR, "rmdir of a symlink");
      refused(t, unlink("dir", true), Errno.ENOTEMPTY, "rmdir of a full directory");
      t.equal(unlink("void", true), 0);
      t.equal(unlink("link", false), 0);
      t.equal(unlink("file", false), 0);
      for (const name of ["void", "link", "file"]) refused(t, walk(tree, name), Errno.ENOENT, name);
      t.equal(textOf(tree, "dir/inner"), "inner", "what the symlink named is still there");
    },
  },
  {
    name: "rename refuses what Linux refuses",
    run(t, _tree, tree) {
      const root = tree.rootIno;
      const rename = (from: string, dir: Ino, to: string, flags = 0) =>
        tree.rename(root, from as Name, dir, to as Name, flags);
      refused(t, rename("nope", root, "x"), Errno.ENOENT, "missing");
      refused(t, rename("file", root, "dir"), Errno.EISDIR, "a file over a directory");
      refused(t, rename("dir", root, "file"), Errno.ENOTDIR, "a directory over a file");
      refused(t, rename("void", root, "dir"), Errno.ENOTEMPTY, "over a full directory");
      refused(t, rename("file", root, "big", NOREPLACE), Errno.EEXIST, "NOREPLACE");
      refused(t, rename("file", root, "nope", EXCHANGE), Errno.ENOENT, "EXCHANGE with nothing");
      for (const flags of [3, 4, 8, 0x80000000]) {
        refused(t, rename("file", root, "x", flags), Errno.EINVAL, `flags ${flags}`);
      }
      at(tree, ["dir/sub"], (sub) => {
        refused(t, rename("dir", sub, "x"), Errno.EINVAL, "a directory below itself");
      });
      t.equal(textOf(tree, "file"), "hello\n");
    },
  },
  {
    name: "rename moves, replaces and exchanges; inodes keep their Ino",
    run(t, _tree, tree) {
      const root = tree.rootIno;
      at(tree, ["file", "dir", "big", "dir/sub/deep"], (file, dir, big, deep) => {
        t.equal(tree.rename(root, "file" as Name, root, "file" as Name, 0), 0, "onto itself");
        t.equal(tree.rename(root, "file" as Name, dir, "moved" as Name, 0), 0);
        at(tree, ["dir/moved"], (moved) => t.equal(moved, file, "the same inode"));
        refused(t, walk(tree, "file"), Errno.ENOENT, "the old name");
        t.equal(tree.rename(dir, "moved" as Name, root, "big" as Name, 0), 0, "over a file");
        t.equal(textOf(tree, "big"), "hello\n");
        t.equal(attrOf(tree, big).nlink, 0, "the replaced inode lives on without a name");
        t.equal(attrOf(tree, big).size, 100_000);
        t.equal(tree.rename(root, "dir" as Name, root, "void" as Name, EXCHANGE), 0);
        at(tree, ["void/sub/deep"], (again) =>
          t.equal(again, deep, "below an exchanged directory"),
        );
        t.same(namesIn(tree, "dir"), []);
        t.equal(tree.rename(root, "void" as Name, root, "dir" as Name, 0), 0, "over an empty one");
        t.equal(textOf(tree, "dir/sub/deep"), "deep");
      });
    },
  },
  {
    name: "a hard link is one more name of the inode; a directory gets none",
    run(t, _tree, tree) {
      const root = tree.rootIno;
      at(tree, ["file", "dir", "link"], (file, dir, link) => {
        refused(t, tree.link(root, "again" as Name, dir), Errno.EPERM, "to a directory");
        const before = attrOf(tree, file).nlink;
        t.equal(tree.link(dir, "again" as Name, file), file, "the same Ino");
        t.equal(attrOf(tree, file).nlink, before + 1);
        tree.release(file);
        t.equal(tree.link(root, "link2" as Name, link), link, "to a symlink, not what it names");
        tree.release(link);
        t.equal(attrAt(tree, "link2").mode & 0o170000, 0o120000);
        t.equal(tree.unlink(root, "file" as Name, false), 0);
        t.equal(textOf(tree, "dir/again"), "hello\n");
      });
      const { ino, out } = create(tree, "gone", O_RDONLY);
      tree.unlink(root, "gone" as Name, false);
      refused(t, tree.link(root, "back" as Name, ino), Errno.ENOENT, "of a nameless inode");
      finish(tree, ino, out);
      tree.release(ino);
    },
  },
  {
    name: "a new inode has exactly the mode asked for, and the type",
    run(t, _tree, tree) {
      const umask = process.umask(0o077);
      for (const mode of [0, 0o777, 0o4711, 0o2755, 0o1666]) {
        const { ino, out } = create(tree, `c${mode}`, O_RDWR, mode);
        t.equal(attrOf(tree, ino).mode, 0o100000 | mode, "create");
        t.equal(tree.write(ino, out.handle, 0, HELLO), 6, "open for writing whatever its mode");
        finish(tree, ino, out);
        tree.release(ino);
        const dir = must(
          tree.mkdir(tree.rootIno, `d${mode}` as Name, createRequest(mode)),
          "mkdir",
        );
        t.equal(attrOf(tree, dir).mode, 0o040000 | mode, "mkdir");
        tree.release(dir);
      }
      process.umask(umask);
      const link = tree.symlink(tree.rootIno, "s" as Name, "\xffto", createRequest(0));
      const out = Buffer.alloc(9);
      t.equal(tree.readlink(must(link, "symlink"), out), 3);
      t.equal(out.toString("latin1", 0, 3), "\xffto", "a target byte for byte");
      tree.release(link as Ino);
      const { ENOENT, ENAMETOOLONG } = Errno;
      const symlink = (target: string) =>
        tree.symlink(tree.rootIno, "t" as Name, target, createRequest(0));
      refused(t, symlink(""), ENOENT, "an empty target");
      refused(t, symlink("x".repeat(4096)), ENAMETOOLONG, "a target past 4095 bytes");
    },
  },
  {
    name: "an open file reads and writes as its access mode says, the donated FD too",
    run(t, _tree, tree) {
      const buffer = Buffer.alloc(16);
      at(tree, ["file"], (ino) => {
        for (const flags of [O_RDONLY, O_WRONLY, O_RDWR]) {
          const out = new OpenResult();
          must(tree.open(ino, flags, out), "open");
          const read = flags === O_WRONLY ? -Errno.EBADF : 6;
          const written = flags === O_RDONLY ? -Errno.EBADF : 6;
          t.equal(tree.read(ino, out.handle, 0, buffer), read);
          t.equal(tree.write(ino, out.handle, 0, HELLO), written);
          if (out.hostFd >= 0) {
            t.equal(native.preadFd(out.hostFd, buffer, 0), read);
            t.equal(native.pwriteFd(out.hostFd, HELLO, 0), written);
          }
          finish(tree, ino, out);
          refused(t, tree.read(ino, out.handle, 0, buffer), Errno.EBADF, "after close");
        }
        const out = new OpenResult();
        must(tree.open(ino, O_RDWR | O_TRUNC, out), "truncating open");
        t.equal(attrOf(tree, ino).size, 0);
        t.equal(tree.write(ino, out.handle, 70_000, HELLO), 6, "past the end");
        t.equal(attrOf(tree, ino).size, 70_006);
        t.equal(tree.read(ino, out.handle, 69_999, buffer), 7, "a hole reads as zeros");
        t.equal(buffer.toString("latin1", 0, 7), "\0hello\n");
        t.equal(tree.fsync(ino, out.handle), 0);
        finish(tree, ino, out);
      });
    },
  },
  {
    name: "an inode without a name left can be used until it is released",
    run(t, _tree, tree) {
      at(tree, ["file", "dir/sub"], (ino, sub) => {
        tree.unlink(tree.rootIno, "file" as Name, false);
        const out = new OpenResult();
        t.equal(tree.open(ino, O_RDWR, out), 0, "it can still be opened");
        t.equal(tree.write(ino, out.handle, 6, HELLO), 6);
        t.equal(attrOf(tree, ino).size, 12);
        t.equal(
          setattr(tree, ino, SetAttr.size | SetAttr.mode, { size: 3, mode: 0o600 }).failureMask,
          0,
        );
        t.equal(attrOf(tree, ino).mode & 0o777, 0o600);
        t.equal(tree.read(ino, out.handle, 0, Buffer.alloc(9)), 3);
        finish(tree, ino, out);
        at(tree, ["dir"], (dir) => {
          tree.unlink(sub, "deep" as Name, false);
          t.equal(tree.unlink(dir, "sub" as Name, true), 0);
        });
        refused(
          t,
          tree.mkdir(sub, "x" as Name, createRequest(0)),
          Errno.ENOENT,
          "a removed directory",
        );
      });
    },
  },
  {
    name: "what is made in a set-group-id directory has its group, and a directory its bit",
    run(t, _tree, tree) {
      if (process.getuid!() !== 0) return; // only root makes directories of other groups
      const grouped = createRequest(0o2777, NO_ID, GROUP);
      const dir = must(tree.mkdir(tree.rootIno, "grouped" as Name, grouped), "mkdir");
      const found = (ino: number) => {
        const { mode, gid } = attrOf(tree, must(ino, "made"));
        tree.release(ino as Ino);
        return `${(mode & 0o7777).toString(8)} ${gid}`;
      };
      const out = new OpenResult();
      const asked = (mode: number) => createRequest(mode, NO_ID, 5);
      t.equal(found(tree.create(dir, "a" as Name, asked(0o2775), O_RDWR, out)), `2775 ${GROUP}`);
      tree.close(dir, out.handle);
      t.equal(found(tree.create(dir, "b" as Name, asked(0o2664), O_RDWR, out)), `2664 ${GROUP}`);
      tree.close(dir, out.handle);
      t.equal(found(tree.mkdir(dir, "c" as Name, asked(0o755))), `2755 ${GROUP}`);
      t.equal(found(tree.symlink(dir, "d" as Name, "x", asked(0))), `777 ${GROUP}`);
      t.equal(found(tree.mknod(dir, "e" as Name, asked(0o100_644))), `644 ${GROUP}`);
      tree.release(dir);
    },
  },
  {
    name: "a directory that was listed while it was empty is listed anew from its start",
    run(t, _tree, tree) {
      const dir = must(tree.mkdir(tree.rootIno, "bare" as Name, createRequest(0o755)), "mkdir");
      const handle = tree.opendir(dir);
      const found: string[] = [];
      const listed = () =>
        tree.readdir(dir, handle, 0, (_ino, _dev, _type, name) => found.push(name) > 0);
      must(listed(), "readdir");
      t.same(found, []);
      tree.release(must(tree.mkdir(dir, "new" as Name, createRequest(0o755)), "mkdir"));
      must(listed(), "readdir");
      t.same(found, ["new"]);
      tree.closedir(dir, handle);
      tree.release(dir);
    },
  },
  {
    name: "allocate makes room, and refuses modes that it does not know",
    run(t, _tree, tree) {
      const { ino, out } = create(tree, "room", O_RDWR);
      t.equal(tree.allocate(ino, out.handle, 0, 0, 40), 0);
      t.equal(attrOf(tree, ino).size, 40);
      t.equal(tree.allocate(ino, out.handle, 0, 20, 100), 0);
      t.equal(attrOf(tree, ino).size, 120);
      t.equal(tree.allocate(ino, out.handle, KEEP_SIZE, 0, 1000), 0);
      t.equal(attrOf(tree, ino).size, 120, "KEEP_SIZE");
      t.equal(tree.write(ino, out.handle, 0, HELLO), 6);
      t.equal(tree.allocate(ino, out.handle, PUNCH_HOLE | KEEP_SIZE, 1, 3), 0);
      const read = Buffer.alloc(6);
      t.equal(tree.read(ino, out.handle, 0, read), 6);
      t.equal(read.toString(), "h\0\0\0o\n", "a hole reads as zeros");
      for (const mode of [PUNCH_HOLE, 0x80, 2 ** 31, 2 ** 32, 2 ** 52]) {
        refused(t, tree.allocate(ino, out.handle, mode, 0, 1), Errno.EOPNOTSUPP, `mode ${mode}`);
      }
      refused(t, tree.allocate(ino, out.handle, 0, 0, 0), Errno.EINVAL, "nothing");
      finish(tree, ino, out);
      tree.release(ino);
    },
  },
];

export const writeBehaviours: readonly Behaviour[] = rows.map(
  (row): Behaviour => ({ ...row, needs: ["write"] }),
);
