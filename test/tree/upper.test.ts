// The query's tmpfs: the suite, its quota in bytes and inodes, what becomes of it in the end. Control plane.

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import t from "tap";
import { Errno } from "../../lib/base/errno.ts";
import type { Name } from "../../lib/base/name.ts";
import { HostFd } from "../../lib/sys/host-fd.ts";
import { native } from "../../lib/sys/native.ts";
import {
  type Ino,
  O_RDWR,
  OpenResult,
  SetAttr,
  SetAttrRequest,
  StatFs,
  type WritableTree,
} from "../../lib/tree/tree.ts";
import { createUpper, createUpperFd, openUpper, type UpperOptions } from "../../lib/tree/upper.ts";
import { refused } from "../suite/tree-behaviour.ts";
import {
  attrAt,
  attrOf,
  createRequest,
  finish,
  must,
  openFds,
  populateTree,
  walk,
} from "../suite/tree-fixture.ts";
import { treeSuite } from "../suite/tree-suite.ts";
import { until } from "../suite/wait.ts";

const MIB = 1024 * 1024;
const ROOMY: UpperOptions = { sizeBytes: 64 * MIB, inodes: 10_000, mode: 0o1777 };

function make(options: UpperOptions): WritableTree {
  const tree = createUpper(options);
  if (typeof tree === "number") throw new Error(`createUpper: ${tree}`);
  return tree;
}

t.test("a quota under a page or two inodes is refused: to tmpfs 0 is no limit", (t) => {
  const { EINVAL } = Errno;
  for (const sizeBytes of [0, -1, 4095, Number.NaN, 2 ** 60, 5000.5]) {
    t.equal(createUpper({ ...ROOMY, sizeBytes }), -EINVAL, `sizeBytes ${sizeBytes}`);
  }
  for (const inodes of [0, 1, -5, Number.NaN, 2.5]) {
    t.equal(createUpper({ ...ROOMY, inodes }), -EINVAL, `inodes ${inodes}`);
  }
  t.end();
});

const probe = createUpperFd(ROOMY);
const canMount = typeof probe !== "number";
if (canMount) probe[Symbol.dispose]();
else t.comment(`not tested: no right to make a tmpfs here (errno ${-probe})`);

if (canMount) {
  treeSuite(
    "upper",
    (fixture) => {
      const tree = make(ROOMY);
      populateTree(tree, fixture);
      return { tree };
    },
    { hardLinks: true, write: true, xattr: true, chown: true },
  );
  withQuota();
  lifetime();
}

t.test(
  "without CAP_SYS_ADMIN over the mount namespace it is EPERM; a user namespace gives it",
  (t) => {
    const upper = fileURLToPath(new URL("../../lib/tree/upper.js", import.meta.url));
    const script = `
    const { createUpper } = await import(${JSON.stringify(upper)});
    const tree = createUpper({ sizeBytes: 4096, inodes: 2, mode: 0o1777 });
    console.log(typeof tree === "number" ? tree : tree.mkdir(tree.rootIno, "d", { mode: 0o755, uid: 0, gid: 0 }) > 0);`;
    for (const [namespaces, expected] of [
      ["-Ur", "-1"],
      ["-Urm", "true"],
    ]) {
      const argv = [namespaces!, process.execPath, "--input-type=module", "-e", script];
      const { status, stdout, stderr } = spawnSync("unshare", argv, { encoding: "utf8" });
      if (status !== 0 && stderr.includes("unshare failed"))
        t.comment(`not tested: ${stderr.trim()}`);
      else t.equal(stdout.trim(), expected, `unshare ${namespaces}: ${stderr}`);
    }
    t.end();
  },
);

function spaceOf(tree: WritableTree): StatFs {
  const space = new StatFs();
  must(tree.statfs(tree.rootIno, space), "statfs");
  return space;
}

/** A file of the upper, opened O_RDWR. */
function file(tree: WritableTree, name: string): { ino: Ino; out: OpenResult } {
  const out = new OpenResult();
  const request = createRequest(0o600);
  const ino = must(tree.create(tree.rootIno, name as Name, request, O_RDWR, out), name);
  return { ino, out };
}

function withQuota(): void {
  const bytes = Buffer.alloc(256 * 1024, 1);
  const size = { sizeBytes: MIB, inodes: 100, mode: 0o755 };

  t.test("bytes past the quota are ENOSPC, through the tree and through a donated FD", (t) => {
    const tree = make(size);
    const { ino, out } = file(tree, "a");
    for (let i = 0; i < 4; i++)
      t.equal(tree.write(ino, out.handle, i * bytes.length, bytes), bytes.length);
    t.equal(spaceOf(tree).blocksFree, 0, "statfs agrees");
    t.equal(spaceOf(tree).blocks, 256);
    refused(t, tree.write(ino, out.handle, MIB, bytes), Errno.ENOSPC, "write");
    refused(t, native.pwriteFd(out.hostFd, bytes, MIB), Errno.ENOSPC, "write by the donated FD");
    refused(t, tree.allocate(ino, out.handle, 0, MIB, 1), Errno.ENOSPC, "allocate");
    const other = file(tree, "b");
    refused(t, native.pwriteFd(other.out.hostFd, bytes, 0), Errno.ENOSPC, "a second file");
    const shrink = Object.assign(new SetAttrRequest(), { mask: SetAttr.size, size: 4096 });
    t.equal(tree.setattr(ino, -1, shrink), 0);
    t.equal(spaceOf(tree).blocksFree, 255);
    t.equal(native.pwriteFd(other.out.hostFd, bytes, 0), bytes.length, "room again");
    finish(tree, ino, out);
    finish(tree, other.ino, other.out);
    tree.dispose();
    t.end();
  });

  t.test("a size without bytes costs nothing, and no offset wraps", (t) => {
    const tree = make(size);
    const { ino, out } = file(tree, "sparse");
    const grow = Object.assign(new SetAttrRequest(), { mask: SetAttr.size, size: 2 ** 52 });
    tree.setattr(ino, out.handle, grow);
    t.equal(grow.failureMask, 0);
    t.equal(attrOf(tree, ino).size, 2 ** 52);
    t.equal(spaceOf(tree).blocksFree, 256);
    refused(t, tree.allocate(ino, out.handle, 0, 0, 2 ** 52), Errno.ENOSPC, "allocate it all");
    t.equal(spaceOf(tree).blocksFree, 256, "a refused allocate keeps nothing");
    refused(t, tree.write(ino, out.handle, -1, bytes), Errno.EINVAL, "a negative offset");
    const far = Number.MAX_SAFE_INTEGER * 1024;
    refused(t, tree.write(ino, out.handle, far, bytes), Errno.EINVAL, "past the end of offsets");
    finish(tree, ino, out);
    tree.dispose();
    t.end();
  });

  t.test(
    "inodes past the quota are ENOSPC: files, directories, symlinks, hard links, xattrs",
    (t) => {
      const tree = make({ ...size, inodes: 10 });
      const root = tree.rootIno;
      t.equal(spaceOf(tree).files, 10);
      t.equal(spaceOf(tree).filesFree, 9, "the root is one");
      const { ino, out } = file(tree, "f");
      const request = createRequest(0o700);
      let made = 1;
      while (tree.mkdir(root, `d${made}` as Name, request) > 0) made++;
      t.equal(made, 9);
      t.equal(spaceOf(tree).filesFree, 0, "statfs agrees");
      const { ENOSPC } = Errno;
      const x = "x" as Name;
      refused(t, tree.create(root, x, request, O_RDWR, new OpenResult()), ENOSPC, "create");
      refused(t, tree.mkdir(root, x, request), ENOSPC, "mkdir");
      refused(t, tree.symlink(root, x, "y", request), ENOSPC, "symlink");
      refused(t, tree.mknod(root, x, request), ENOSPC, "mknod");
      refused(t, tree.link(root, x, ino), ENOSPC, "link");
      const set = tree.setxattr(ino, "user.a", Buffer.alloc(4000), 0);
      t.ok(set === -ENOSPC || set === -Errno.EOPNOTSUPP, "setxattr");
      t.equal(tree.unlink(root, "d1" as Name, true), 0);
      t.ok(
        tree.mkdir(root, "again" as Name, request) < 0,
        "a removed directory counts while it is held",
      );
      tree.release(must(ino, "f"));
      finish(tree, ino, out);
      tree.dispose();
      t.end();
    },
  );
}

function shmemKib(): number {
  const text = readFileSync("/proc/meminfo", "utf8");
  return Number(/^Shmem: +(\d+)/m.exec(text)![1]);
}

function lifetime(): void {
  t.test("its root has the mode asked for and nobody else can reach it", (t) => {
    const tree = make({ ...ROOMY, mode: 0o1770 });
    t.equal(attrAt(tree, "").mode, 0o041770);
    t.notMatch(readFileSync("/proc/self/mountinfo", "utf8"), /tmpfs burrow /);
    tree.dispose();
    t.end();
  });

  t.test("code may be mapped from it, devices and set-id do not count", (t) => {
    const tree = make(ROOMY);
    const { ino, out } = file(tree, "true");
    tree.write(ino, out.handle, 0, readFileSync("/bin/true"));
    const change = Object.assign(new SetAttrRequest(), { mask: SetAttr.mode, mode: 0o755 });
    tree.setattr(ino, -1, change);
    const readable = new OpenResult();
    must(tree.open(ino, 0, readable), "open");
    finish(tree, ino, out);
    const path = `/proc/${process.pid}/fd/${readable.hostFd}`;
    t.equal(spawnSync(path).status, 0, "it can be executed");
    finish(tree, ino, readable);
    tree.dispose();
    t.end();
  });

  t.test(
    "its memory is free after dispose, unless a client still holds a donated FD",
    async (t) => {
      // All of the machine's tmpfs are counted, so what others do at just that moment is tried again.
      const bytes = Buffer.alloc(32 * MIB, 1);
      const isGivenBack = () => {
        const tree = make(ROOMY);
        const { ino, out } = file(tree, "big");
        t.equal(tree.write(ino, out.handle, 0, bytes), bytes.length);
        const kept = native.dupFd(out.hostFd);
        tree.dispose();
        const last = Buffer.alloc(1);
        t.equal(
          native.preadFd(kept, last, bytes.length - 1),
          1,
          "the donated FD outlives the tree",
        );
        const before = shmemKib();
        native.closeFd(kept);
        return before - shmemKib() > 24_000;
      };
      t.ok(await until(isGivenBack), "then all is given back");
    },
  );

  t.test("a successor finds the files where the last server left them", (t) => {
    const fds = openFds();
    const mount = createUpperFd(ROOMY);
    if (typeof mount === "number") throw new Error(`createUpperFd: ${mount}`);
    const kept = native.dupFd(mount.borrow());
    const first = openUpper(mount) as WritableTree;
    populateTree(first, [{ path: "a", type: "file", content: "one" }]);
    first.dispose();
    const second = openUpper(new HostFd(kept)) as WritableTree;
    t.equal(attrAt(second, "a").size, 3);
    refused(t, walk(second, "b"), Errno.ENOENT, "and nothing else");
    second.dispose();
    t.equal(openFds(), fds, "no FD is left");
    t.end();
  });
}
