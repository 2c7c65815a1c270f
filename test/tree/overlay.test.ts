// The overlay: the suite over a snapshot with a private tmpfs above it; what is copied up and when. Control plane.

import t from "tap";
import { Errno, MISS } from "../../lib/base/errno.ts";
import type { Name } from "../../lib/base/name.ts";
import {
  type Attr,
  type Ino,
  O_RDONLY,
  O_RDWR,
  O_TRUNC,
  O_WRONLY,
  OpenResult,
  SetAttr,
  StatFs,
} from "../../lib/tree/tree.ts";
import { BIG, FIXTURE, MIB, overlayOf } from "../suite/overlay-fixture.ts";
import { noTmpfs } from "../suite/private-tmpfs.ts";
import { snapshotOf } from "../suite/snapshot-fixture.ts";
import { refused, type Test } from "../suite/tree-behaviour.ts";
import {
  at,
  attrAt,
  attrOf,
  contents,
  createRequest,
  finish,
  must,
  namesIn,
  openFds,
  setattr,
  walk,
} from "../suite/tree-fixture.ts";
import { treeSuite } from "../suite/tree-suite.ts";

const EXCHANGE = 2;

const reason = noTmpfs();
const canMount = reason === undefined;
if (!canMount) t.comment(`the overlay was not tested: ${reason}`);

treeSuite("snapshot", snapshotOf, { hardLinks: true });
if (canMount) {
  const can = { hardLinks: true, write: true, xattr: true, chown: true };
  treeSuite("overlay", (fixture) => overlayOf(fixture), can);
  behaviours();
}

/** A test of its own overlay, which leaves nothing. */
function check(
  name: string,
  run: (t: Test, made: ReturnType<typeof overlayOf>) => void,
  sizeBytes?: number,
  inodes?: number,
): void {
  t.test(name, (t) => {
    const fds = openFds();
    const made = overlayOf(FIXTURE, sizeBytes, inodes);
    run(t, made);
    made.tree.dispose();
    made.dispose();
    t.equal(openFds(), fds, "no FD is left");
    t.end();
  });
}

function behaviours(): void {
  t.test("a tree in which nothing was changed has the root that is below", (t) => {
    const { lower, tree, dispose } = overlayOf([
      { path: "", type: "directory", mode: 0o751 },
      ...FIXTURE,
    ]);
    const seen = ({ mode, uid, gid, mtimeSec, mtimeNs }: Attr) => [
      mode,
      uid,
      gid,
      mtimeSec,
      mtimeNs,
    ];
    t.strictSame(seen(attrOf(tree, tree.rootIno)), seen(attrOf(lower.tree, lower.tree.rootIno)));
    tree.dispose();
    dispose();
    t.end();
  });

  check("a listing that can't be whole is an error", (t, { tree }) => {
    at(tree, ["dir", "dir/inner"], (dir, inner) => {
      setattr(tree, inner, SetAttr.mode, { mode: 0o600 });
      tree.release(inner);
      const handle = must(tree.opendir(dir), "opendir");
      const list = () => {
        const names: string[] = [];
        const end = tree.readdir(dir, handle, 0, (_ino, _dev, _type, name) => {
          names.push(name);
          return true;
        });
        return end < 0 ? end : names.sort();
      };
      t.strictSame(list(), ["inner", "sub", "two"]);
      tree.limitFds(1);
      t.equal(list(), -Errno.EMFILE, "no FD to tell what became of inner");
      tree.limitFds(1_000);
      t.equal(tree.fsyncdir(dir, handle), 0);
      tree.closedir(dir, handle);
      t.equal(tree.fsyncdir(dir, handle), -Errno.EBADF);
    });
  });

  // doors.long, seed 69090037: what takes the place of a whiteout is made in another directory first.
  check(
    "in the place of what is gone, a set-group-id directory's group and bit are had, too",
    (t, { tree }) => {
      if (process.getuid!() !== 0) return; // only root makes directories of other groups
      at(tree, ["dir"], (dir) => {
        const mask = SetAttr.mode | SetAttr.gid;
        setattr(tree, dir, mask, { mode: 0o2775, gid: 12 });
        const out = new OpenResult();
        const asked = (mode: number) => createRequest(mode, 0, 5);
        const made: Record<string, () => number> = {
          "755 mkdir": () => tree.mkdir(dir, "inner" as Name, asked(0o755)),
          "2775 create": () => tree.create(dir, "inner" as Name, asked(0o2775), O_RDWR, out),
          "2664 create": () => tree.create(dir, "inner" as Name, asked(0o2664), O_RDWR, out),
          symlink: () => tree.symlink(dir, "inner" as Name, "x", asked(0)),
        };
        t.equal(tree.unlink(dir, "inner" as Name, false), 0);
        const found = Object.entries(made).map(([what, make]) => {
          const ino = must(make(), what);
          const { mode, gid } = attrOf(tree, ino);
          if (what.endsWith("create")) tree.close(ino, out.handle);
          tree.release(ino);
          t.equal(tree.unlink(dir, "inner" as Name, what.endsWith("mkdir")), 0);
          return `${what}: ${(mode & 0o7777).toString(8)} ${gid}`;
        });
        t.same(found, [
          "755 mkdir: 2755 12",
          "2775 create: 2775 12",
          "2664 create: 2664 12",
          "symlink: 777 12",
        ]);
      });
    },
  );
  check(
    "attributes, names and links are changed without a byte of the file",
    (t, { tree, lower }) => {
      const before = attrAt(tree, "big");
      const root = tree.rootIno;
      at(tree, ["big", "dir", "one"], (big, dir, one) => {
        setattr(tree, big, SetAttr.mode, { mode: 0o444 });
        setattr(tree, big, SetAttr.mtime, { mtimeSec: 5, mtimeNs: 6 });
        t.equal(tree.link(dir, "more" as Name, big), big);
        tree.release(big);
        t.equal(tree.rename(root, "big" as Name, dir, "moved" as Name, 0), 0);
        setattr(tree, one, SetAttr.mode, { mode: 0o600 });
      });
      const after = attrAt(tree, "dir/moved");
      t.equal(after.mode, 0o100444);
      t.equal(after.size, BIG.length);
      t.equal(after.blocks, before.blocks, "its bytes are below");
      t.equal(
        `${after.ino}:${after.devMinor}`,
        `${before.ino}:${before.devMinor}`,
        "the same inode",
      );
      t.equal(after.nlink, 2);
      t.equal(attrAt(tree, "dir/two").mode, 0o100600, "by its other name as well");
      t.equal(lower.tree.opens, 0);
      const space = new StatFs();
      tree.statfs(root, space);
      t.ok(space.blocks - space.blocksFree < 16, "and without a page for them");
      at(tree, ["dir/more"], (ino) => t.ok(contents(tree, ino).read.equals(BIG)));
    },
  );

  check(
    "a write waits for the bytes below, goes on where it was, and leaves the times",
    (t, { tree, lower }) => {
      at(tree, ["big"], (big) => {
        const before = attrOf(tree, big);
        const times = `${before.mtimeSec}.${before.mtimeNs}`;
        const out = new OpenResult();
        lower.tree.lateOpens = 1;
        lower.tree.lateReads = 2;
        for (let i = 0; i < 3; i++) t.equal(tree.open(big, O_RDWR, out), MISS);
        t.equal(tree.open(big, O_RDWR, out), 0);
        t.equal(lower.tree.opens, 1, "it was opened once for all tries");
        const after = attrOf(tree, big);
        t.equal(`${after.mtimeSec}.${after.mtimeNs}`, times);
        t.equal(after.ino, before.ino);
        t.equal(tree.write(big, out.handle, 1, Buffer.from("XY")), 2);
        finish(tree, big, out);
        const expected = Buffer.from(BIG);
        expected.write("XY", 1);
        t.ok(contents(tree, big).read.equals(expected));
      });
    },
  );

  check(
    "a copy that was begun for a shorter file, or for nobody, is given up",
    (t, { tree, lower }) => {
      at(tree, ["big"], (big) => {
        const out = new OpenResult();
        setattr(tree, big, SetAttr.mode, { mode: 0o600 });
        lower.tree.lateReads = 1;
        t.equal(tree.open(big, O_RDWR, out), MISS);
        setattr(tree, big, SetAttr.mtime, { mtimeSec: 77, mtimeNs: 1 });
        t.equal(setattr(tree, big, SetAttr.size, { size: 5 }).failureErrno, 0);
        t.ok(contents(tree, big).read.equals(BIG.subarray(0, 5)));
      });
      t.equal(tree.inodeCount, 1, "the root alone is held");
    },
  );

  check("O_TRUNC and a size of 0 fetch nothing", (t, { tree, lower }) => {
    at(tree, ["big", "file"], (big, file) => {
      const out = new OpenResult();
      t.equal(tree.open(big, O_WRONLY | O_TRUNC, out), 0);
      finish(tree, big, out);
      t.equal(attrOf(tree, big).size, 0);
      setattr(tree, file, SetAttr.size, { size: 0 });
      t.equal(attrOf(tree, file).size, 0);
      t.equal(lower.tree.opens, 0);
    });
  });

  check("who reads a file from before its copy-up reads what was written since", (t, { tree }) => {
    at(tree, ["file"], (file) => {
      const reader = new OpenResult();
      must(tree.open(file, O_RDONLY, reader), "open");
      const writer = new OpenResult();
      must(tree.open(file, O_RDWR, writer), "open");
      tree.write(file, writer.handle, 0, Buffer.from("J"));
      const bytes = Buffer.alloc(6);
      t.equal(tree.read(file, reader.handle, 0, bytes), 6);
      t.equal(bytes.toString(), "Jello\n");
      finish(tree, file, reader);
      finish(tree, file, writer);
    });
  });

  check(
    "what was removed stays hidden, and a new directory shows nothing of the old one",
    (t, { tree }) => {
      const root = tree.rootIno;
      at(tree, ["dir", "dir/sub"], (dir, sub) => {
        refused(t, tree.unlink(root, "dir" as Name, true), Errno.ENOTEMPTY, "a full directory");
        for (const name of ["inner", "two"] as Name[]) t.equal(tree.unlink(dir, name, false), 0);
        t.equal(tree.unlink(sub, "deep" as Name, false), 0);
        t.equal(tree.unlink(dir, "sub" as Name, true), 0);
        t.equal(namesIn(tree, "dir").join(), "");
        t.equal(tree.unlink(root, "dir" as Name, true), 0);
        refused(
          t,
          tree.mkdir(dir, "x" as Name, createRequest(0o700)),
          Errno.ENOENT,
          "in a removed one",
        );
      });
      refused(t, walk(tree, "dir"), Errno.ENOENT, "gone");
      t.equal(attrAt(tree, "one").nlink, 1, "its other name went with the directory");
      tree.release(must(tree.mkdir(root, "dir" as Name, createRequest(0o755)), "mkdir"));
      t.equal(namesIn(tree, "dir").join(), "");
      t.equal(namesIn(tree, "").join(), "big,dir,file,one,other,void");
    },
  );

  check(
    "directories of the lower tree are renamed and exchanged with all that is in them",
    (t, { tree, lower }) => {
      const root = tree.rootIno;
      at(tree, ["dir", "dir/sub/deep", "other"], (dir, deep, other) => {
        const before = attrOf(tree, deep);
        t.equal(tree.rename(root, "dir" as Name, other, "moved" as Name, 0), 0);
        t.equal(namesIn(tree, "other/moved").join(), "inner,sub,two");
        at(tree, ["other/moved/sub/deep"], (again) => t.equal(again, deep));
        refused(
          t,
          tree.rename(root, "other" as Name, dir, "loop" as Name, 0),
          Errno.EINVAL,
          "below itself",
        );
        t.equal(tree.rename(root, "void" as Name, root, "other" as Name, EXCHANGE), 0);
        t.equal(namesIn(tree, "void/moved/sub").join(), "deep");
        t.equal(namesIn(tree, "other").join(), "");
        t.equal(
          tree.rename(other, "moved" as Name, root, "other" as Name, 0),
          0,
          "over an empty one",
        );
        setattr(tree, deep, SetAttr.mode, { mode: 0o400 });
        const after = attrAt(tree, "other/sub/deep");
        t.equal(after.mode, 0o100400);
        t.equal(`${after.ino}:${after.devMinor}`, `${before.ino}:${before.devMinor}`);
      });
      t.equal(namesIn(tree, "").join(), "big,file,one,other,void");
      t.equal(lower.tree.opens, 0);
    },
  );

  check(
    "an inode of several names is one file before and after, and each name lost is counted",
    (t, { tree }) => {
      const root = tree.rootIno;
      at(tree, ["one", "dir"], (one, dir) => {
        const out = new OpenResult();
        must(tree.open(one, O_RDWR, out), "open");
        tree.write(one, out.handle, 0, Buffer.from("L"));
        finish(tree, one, out);
        at(tree, ["dir/two"], (two) => {
          t.equal(two, one);
          t.equal(contents(tree, two).read.toString(), "Linked");
        });
        t.equal(tree.rename(dir, "two" as Name, root, "file" as Name, 0), 0, "over a file");
        t.equal(attrOf(tree, one).nlink, 2);
        t.equal(tree.unlink(root, "one" as Name, false), 0);
        t.equal(attrOf(tree, one).nlink, 1);
        t.equal(tree.unlink(root, "file" as Name, false), 0);
        t.equal(attrOf(tree, one).nlink, 0);
        t.equal(contents(tree, one).read.toString(), "Linked", "for who holds it");
      });
      for (const name of ["one", "file", "dir/two"])
        refused(t, walk(tree, name), Errno.ENOENT, name);
    },
  );

  check(
    "a copy that can't fit is ENOSPC before anything is fetched, and all inodes count but records",
    (t, { tree, lower }) => {
      at(tree, ["big", "file"], (big, file) => {
        refused(t, tree.open(big, O_RDWR, new OpenResult()), Errno.ENOSPC, "a write to 3 MiB");
        t.equal(lower.tree.opens, 0);
        t.ok(contents(tree, big).read.equals(BIG), "it can be read as before");
        setattr(tree, file, SetAttr.mode, { mode: 0o600 });
      });
      const space = new StatFs();
      tree.statfs(tree.rootIno, space);
      t.equal(space.files, 8);
      t.equal(space.filesFree, 6, "the root, and what was copied for its mode");
      let made = 0;
      while (made < 20) {
        const ino = tree.mkdir(tree.rootIno, `d${made}` as Name, createRequest(0o700));
        if (ino < 0) break;
        tree.release(ino as Ino);
        made++;
      }
      t.equal(made, 6);
      refused(
        t,
        tree.symlink(tree.rootIno, "s" as Name, "x", createRequest(0)),
        Errno.ENOSPC,
        "symlink",
      );
      at(tree, ["dir"], (dir) => {
        refused(
          t,
          tree.unlink(dir, "inner" as Name, false),
          Errno.ENOSPC,
          "no room for its directory",
        );
      });
    },
    2 * MIB,
    8,
  );
}
