// The peer of the mount bench: the same tree by fuse-native over libfuse 2: `node mount-native.js STATE SOURCE FOLDER` prints "mounted" and
// serves until it is killed. Read-only, and no more than the bench asks for. docs/design/0020-fuse-door.md has what else it lacks.

import { openTree } from "../../lib/gofer/trees.ts";
import { native } from "../../lib/sys/native.ts";
import { createWait } from "../../lib/sys/wait.ts";
import { NO_SPECIAL_FILES } from "../../lib/tree/host-special.ts";
import { Attr, type Ino, O_RDONLY, OpenResult } from "../../lib/tree/tree.ts";
import { loadFuse } from "../fuse-native.ts";

const [state, source, folder] = process.argv.slice(2) as [string, string, string];

/** What it was asked for, or -errno. */
type Done = (errno: number, value?: unknown) => unknown;

createWait(true);
const { tree } = openTree({ destination: "/", source, isReadOnly: true }, state, NO_SPECIAL_FILES);
const attr = new Attr();
const opened = new OpenResult();
const handles: { ino: Ino; hostFd: number; handle: number }[] = [];

/** The Ino of a path, or -errno: libfuse knows paths alone. */
function find(path: string): number {
  let ino: number = tree.rootIno;
  for (const name of path.split("/")) {
    if (name === "") continue;
    ino = tree.lookup(ino as Ino, Buffer.from(name).toString("latin1") as never);
    if (ino < 0) break;
  }
  return ino;
}

const date = (seconds: number, ns: number) => new Date(seconds * 1000 + ns / 1e6);

const operations = {
  getattr(path: string, done: Done) {
    const ino = find(path);
    const failed = ino < 0 ? ino : tree.getattr(ino as Ino, attr);
    if (failed < 0) return done(failed);
    const { mode, uid, gid, size, nlink, blocks } = attr;
    return done(0, {
      ...{ mode, uid, gid, size, nlink, blocks, ino: attr.ino, dev: 0, rdev: 0, blksize: 4096 },
      atime: date(attr.atimeSec, attr.atimeNs),
      mtime: date(attr.mtimeSec, attr.mtimeNs),
      ctime: date(attr.ctimeSec, attr.ctimeNs),
    });
  },
  readdir(path: string, done: Done) {
    const names = [".", ".."];
    const ino = find(path);
    if (ino < 0) return done(ino);
    const sink = (_ino: number, _dev: number, _type: number, name: string) =>
      names.push(Buffer.from(name, "latin1").toString()) > 0;
    tree.readdir(ino as Ino, 0, 0, sink);
    return done(0, names);
  },
  open(path: string, _flags: number, done: Done) {
    const ino = find(path);
    const failed = ino < 0 ? ino : tree.open(ino as Ino, O_RDONLY, opened);
    if (failed < 0) return done(failed);
    const { hostFd, handle } = opened;
    return done(0, handles.push({ ino: ino as Ino, hostFd, handle }));
  },
  read(_path: string, number: number, out: Buffer, length: number, at: number, done: Done) {
    const { ino, hostFd, handle } = handles[number - 1]!;
    const into = out.subarray(0, length);
    return done(hostFd >= 0 ? native.preadFd(hostFd, into, at) : tree.read(ino, handle, at, into));
  },
  release(_path: string, _number: number, done: Done) {
    return done(0);
  },
};

const Fuse = loadFuse();
// It has no options of its own for these; they are joined by commas.
const fsname = "burrow,use_ino,ro,nosuid,nodev,default_permissions";
const options = {
  kernelCache: true,
  attrTimeout: 3600,
  entryTimeout: 3600,
  timeout: false,
  fsname,
};
new Fuse(folder, operations, options).mount((error: Error | null) => {
  if (error) throw error;
  process.stdout.write("mounted\n");
});
