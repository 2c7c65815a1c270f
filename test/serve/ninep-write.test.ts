// A writable 9P view: names, attributes, extended attributes and locks are changed as Linux would change them.

import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { LockTable } from "../../lib/serve/ninep/lock-table.ts";
import { HostTree } from "../../lib/tree/host.ts";
import type { Ino } from "../../lib/tree/tree.ts";
import { LockStatus, LockType, NOFID, SetattrBit, Type } from "../../lib/wire/ninep/type.ts";
import type { Fields, NinepClient } from "../suite/ninep-client.ts";
import { NinepScene } from "../suite/ninep-scene.ts";
import { noUpper } from "../suite/served.ts";

const options = { skip: noUpper };
const O_RDWR = 2;
const O_EXCL = 0o200;

function errnoOf(client: NinepClient, type: number, fields: Fields): number {
  return client.call(type, fields).errno;
}

/** A new file with content, closed. */
function put(client: NinepClient, root: number, name: string, text: string): void {
  const fid = client.walk(root, "");
  const { errno } = client.call(Type.lcreate, { fid, name, flags: O_RDWR, mode: 0o640, gid: 7 });
  if (errno !== 0 || client.write(fid, Buffer.from(text)) !== text.length)
    throw new Error(`not put: ${errno}`);
  client.clunk(fid);
}

test("files are created, written, truncated and read", options, (t) => {
  const scene = new NinepScene(t);
  const { client, root } = scene.client("tmp", 1 << 20);
  const fid = client.walk(root, "");
  const create = { name: "f", flags: O_RDWR, mode: 0o640, gid: 7 };
  t.equal(errnoOf(client, Type.lcreate, { fid, ...create, name: "a/b" }), Errno.EINVAL);
  t.equal(errnoOf(client, Type.lcreate, { fid, ...create, flags: 3 }), Errno.EINVAL);
  t.equal(errnoOf(client, Type.lcreate, { fid, ...create }), 0);
  const large = Buffer.alloc(900_000, "0123456789");
  t.equal(client.write(fid, large, 5), large.length);
  t.equal(client.write(fid, Buffer.alloc(0), 5), 0);
  t.equal(client.getattr(fid).size, 900_005);
  t.equal(errnoOf(client, Type.fsync, { fid }), 0);
  t.ok(client.read(fid, 900_000, 5).equals(large));
  const { mode, uid, gid, qid } = client.getattr(fid);
  t.strictSame({ mode, uid, gid }, { mode: 0o100640, uid: 0, gid: 7 });
  const again = client.walk(root, "");
  const lcreate = (flags: number) =>
    errnoOf(client, Type.lcreate, { fid: again, ...create, flags });
  t.equal(lcreate(O_RDWR | O_EXCL), Errno.EEXIST);
  t.equal(lcreate(O_RDWR), 0, "another client's file is opened");
  t.equal(client.getattr(again).qid.path, qid.path);
  const set = { fid, mask: SetattrBit.size, length: 3 };
  t.equal(errnoOf(client, Type.setattr, set), 0);
  t.equal(client.read(again).length, 3);
  t.not(client.getattr(again).qid.version, qid.version, "another version of it");
  const readOnly = client.open(root, "f");
  t.equal(client.write(readOnly, Buffer.from("x")), -Errno.EBADF);
  t.equal(client.call(Type.write, { fid: again, offset: -1, data: large }).errno, Errno.EINVAL);
  const writeOnly = client.open(root, "f", 0o1001);
  t.equal(client.getattr(writeOnly).size, 0, "O_TRUNC");
  t.equal(errnoOf(client, Type.read, { fid: writeOnly, count: 1 }), Errno.EBADF);
  t.end();
});

test("attributes are set", options, (t) => {
  const { client, root } = new NinepScene(t).client("tmp");
  put(client, root, "f", "text");
  const fid = client.walk(root, "f");
  const set = (mask: number, fields: Fields = {}) =>
    errnoOf(client, Type.setattr, { fid, mask, ...fields });
  t.equal(
    set(SetattrBit.mode | SetattrBit.uid | SetattrBit.gid, { mode: 0o100600, uid: 5, gid: 6 }),
    0,
  );
  const { mode, uid, gid } = client.getattr(fid);
  t.strictSame({ mode, uid, gid }, { mode: 0o100600, uid: 5, gid: 6 });
  const times = { mtimeSec: 1_234, mtimeNs: 567 };
  t.equal(set(SetattrBit.mtime | SetattrBit.mtimeSet, times), 0);
  t.strictSame([client.getattr(fid).mtimeSec, client.getattr(fid).mtimeNs], [1_234, 567]);
  t.equal(set(SetattrBit.mtime, times), 0, "the server's own time");
  t.ok(client.getattr(fid).mtimeSec > 1_700_000_000);
  t.equal(set(SetattrBit.ctime), 0);
  t.equal(set(SetattrBit.mtime | SetattrBit.mtimeSet, { mtimeNs: 2e9 }), Errno.EINVAL);
  t.equal(set(0x8000), Errno.EINVAL);
  t.equal(set(SetattrBit.size, { length: -1 }), Errno.EINVAL, "2^64-1");
  t.ok([Errno.EFBIG, Errno.EINVAL].includes(set(SetattrBit.size, { length: 2 ** 62 }) as never));
  t.equal(client.getattr(fid).size, 4);
  t.end();
});

test("names are made, moved and removed", options, (t) => {
  const { client, root } = new NinepScene(t).client("tmp");
  const call = (type: number, fields: Fields) => errnoOf(client, type, fields);
  t.equal(call(Type.mkdir, { fid: root, name: "d", mode: 0o750 }), 0);
  t.equal(call(Type.mkdir, { fid: root, name: "d" }), Errno.EEXIST);
  t.equal(call(Type.mkdir, { fid: root, name: ".." }), Errno.EINVAL);
  t.equal(call(Type.symlink, { fid: root, name: "l", otherName: "d/f" }), 0);
  t.equal(call(Type.mknod, { fid: root, name: "n", mode: 0o100600 }), 0);
  for (const device of [0o020600, 0o060600, 0o010600, 0o140600])
    t.equal(call(Type.mknod, { fid: root, name: "x", mode: device }), Errno.EPERM);
  put(client, root, "f", "text");
  const [d, f] = [client.walk(root, "d"), client.walk(root, "f")];
  t.equal(call(Type.link, { fid: d, otherFid: f, name: "hard" }), 0);
  t.equal(client.getattr(f).nlink, 2);
  t.equal(call(Type.renameat, { fid: root, name: "f", otherFid: d, otherName: "g" }), 0);
  t.equal(client.getattr(f).nlink, 2, "the fid goes with it");
  t.equal(
    call(Type.rename, { fid: f, otherFid: root, name: "x" }),
    Errno.ENOENT,
    "moved by another",
  );
  const g = client.walk(d, "g");
  t.equal(call(Type.rename, { fid: g, otherFid: root, name: "back" }), 0);
  t.equal(call(Type.rename, { fid: g, otherFid: root, name: "again" }), 0, "it knows its new name");
  t.equal(client.getattr(client.walk(g, "..")).qid.path, client.getattr(root).qid.path);
  t.equal(call(Type.unlinkat, { fid: root, name: "d" }), Errno.EISDIR);
  t.equal(call(Type.unlinkat, { fid: root, name: "d", flags: 0x200 }), Errno.ENOTEMPTY);
  t.equal(call(Type.unlinkat, { fid: root, name: "d", flags: 1 }), Errno.EINVAL);
  t.equal(call(Type.remove, { fid: client.walk(root, "d/hard") }), 0);
  t.equal(call(Type.remove, { fid: d }), 0);
  t.equal(call(Type.remove, { fid: client.walk(root, "") }), Errno.EBUSY, "not the root");
  t.strictSame(client.list(client.open(root, "")).sort(), [".", "..", "again", "l", "n"]);
  t.end();
});

test("names that are moved under their own descendants leave nothing held", options, (t) => {
  const scene = new NinepScene(t);
  const { client, root } = scene.client("tmp");
  const tree = scene.views[1]!.tree as unknown as { inodeCount: number };
  const before = tree.inodeCount;
  t.equal(errnoOf(client, Type.mkdir, { fid: root, name: "a", mode: 0o755 }), 0);
  const a = client.walk(root, "a");
  t.equal(errnoOf(client, Type.mkdir, { fid: a, name: "b", mode: 0o755 }), 0);
  const b = client.walk(a, "b");
  const move = { fid: a, name: "b", otherFid: root, otherName: "b" };
  t.equal(errnoOf(client, Type.renameat, move), 0, "b is no more in a, which its fid doesn't know");
  t.equal(errnoOf(client, Type.rename, { fid: a, otherFid: b, name: "a" }), 0);
  for (const fid of [a, b, root]) client.clunk(fid);
  t.equal(tree.inodeCount, before);
  t.end();
});

test("views are apart", options, (t) => {
  const { client, root } = new NinepScene(t, { files: { f: "f" } }).client("tmp");
  const view = client.attach("view");
  const f = client.walk(view, "f");
  t.equal(errnoOf(client, Type.link, { fid: root, otherFid: f, name: "f" }), Errno.EXDEV);
  const rename = { fid: root, name: "x", otherFid: view, otherName: "y" };
  t.equal(errnoOf(client, Type.renameat, rename), Errno.EXDEV);
  t.end();
});

test("extended attributes are set when their fid is clunked", options, (t) => {
  const { client, root } = new NinepScene(t).client("tmp");
  put(client, root, "f", "text");
  const start = (fields: Fields) => {
    const fid = client.walk(root, "f");
    const { errno } = client.call(Type.xattrcreate, { fid, name: "user.x", ...fields });
    return errno === 0 ? fid : -errno;
  };
  t.equal(start({ length: 2 ** 20 }), -Errno.ENOSPC);
  t.equal(start({ length: 5, name: "" }), -Errno.EINVAL);
  const short = start({ length: 5 });
  t.equal(client.write(short, Buffer.from("abc")), 3);
  t.equal(client.clunk(short), -Errno.EINVAL, "less than was said");
  const made = start({ length: 5 });
  t.equal(client.write(made, Buffer.from("abc")), 3);
  t.equal(client.write(made, Buffer.from("x"), 1), -Errno.EINVAL, "not in order");
  t.equal(client.write(made, Buffer.from("def"), 3), -Errno.EINVAL, "more than was said");
  t.equal(client.write(made, Buffer.from("de"), 3), 2);
  t.equal(client.clunk(made), 0);
  const f = client.walk(root, "f");
  const walk = (name: string) => {
    const otherFid = client.nextFid();
    const { errno, body } = client.call(Type.xattrwalk, { fid: f, otherFid, name });
    return errno === 0 ? { fid: otherFid, size: Number(body.readBigUInt64LE(0)) } : -errno;
  };
  t.equal(walk("user.none"), -Errno.ENODATA);
  const value = walk("user.x") as { fid: number; size: number };
  t.equal(value.size, 5);
  t.equal(client.read(value.fid).toString(), "abcde");
  t.equal(client.read(value.fid, 10, 99).length, 0);
  const list = walk("") as { fid: number; size: number };
  t.equal(client.read(list.fid).toString(), "user.x\0");
  t.equal(errnoOf(client, Type.getattr, { fid: list.fid }), Errno.EINVAL);
  t.equal(client.clunk(start({ length: 0, flags: 2 })), 0, "XATTR_REPLACE by nothing");
  t.equal(walk("user.x"), -Errno.ENODATA);
  t.end();
});

test("locks are held against other owners and go with their fids", options, (t) => {
  const scene = new NinepScene(t);
  const { client: one, root } = scene.client("tmp");
  const { client: two, root: otherRoot } = scene.client("tmp");
  put(one, root, "f", "text");
  const [a, b] = [one.open(root, "f", O_RDWR), two.open(otherRoot, "f", O_RDWR)];
  const lock = (
    client: NinepClient,
    fid: number,
    lockType: number,
    offset: number,
    length: number,
  ) => {
    const fields = { fid, lockType, offset, length, process: 1, name: "host" };
    const { errno, body } = client.call(Type.lock, fields);
    return errno === 0 ? body[0] : -errno;
  };
  const { success, blocked } = LockStatus;
  t.equal(lock(one, a, LockType.read, 0, 100), success);
  t.equal(lock(two, b, LockType.read, 0, 100), success, "readers share");
  t.equal(lock(two, b, LockType.write, 50, 10), blocked);
  t.equal(lock(one, a, LockType.unlock, 50, 10), success, "a hole in its range");
  t.equal(lock(two, b, LockType.write, 50, 10), success);
  t.equal(lock(one, a, LockType.write, 59, 1), blocked);
  t.equal(lock(two, b, LockType.write, 0, 0), blocked, "to the end of the file");
  const test = two.call(Type.getlock, {
    ...{ fid: b, lockType: LockType.write, offset: 10, length: 5, process: 1, name: "host" },
  });
  t.equal(test.body[0], LockType.read, "who is in the way");
  t.equal(Number(test.body.readBigUInt64LE(1)), 0);
  t.equal(Number(test.body.readBigUInt64LE(9)), 50);
  t.equal(lock(one, a, 9, 0, 1), -Errno.EINVAL);
  t.equal(lock(one, a, LockType.read, -1, 1), -Errno.EINVAL);
  t.equal(lock(one, root, LockType.read, 0, 1), -Errno.EBADF, "not open");
  one.clunk(a);
  t.equal(lock(two, b, LockType.write, 0, 0), success);
  two.close();
  for (let i = 0; i < 10; i++) scene.pump();
  t.equal(scene.views[1]!.locks.count, 0, "and with their client");
  t.end();
});

test("times before 1970 are kept", options, (t) => {
  const { client, root } = new NinepScene(t).client("tmp");
  put(client, root, "old", "text");
  const fid = client.walk(root, "old");
  const { atime, mtime, atimeSet, mtimeSet } = SetattrBit;
  const mask = atime | mtime | atimeSet | mtimeSet;
  const times = { atimeSec: -300_000_000, atimeNs: 5, mtimeSec: -200_000_000, mtimeNs: 6 };
  t.equal(errnoOf(client, Type.setattr, { fid, mask, ...times }), 0);
  t.match(client.getattr(fid), { mtimeSec: -200_000_000, mtimeNs: 6 });
  t.end();
});

test("a directory is synced", options, (t) => {
  const scene = new NinepScene(t);
  // No file of procfs can be synced, which its kernel says. Linux: fs/sync.c, vfs_fsync_range
  scene.add("proc", HostTree.open("/proc/self/task", { isReadOnly: false }) as HostTree);
  for (const [name, errno] of [
    ["tmp", 0],
    ["proc", Errno.EINVAL],
    ["view", 0],
  ] as const) {
    const { client, root } = scene.client(name);
    t.equal(errnoOf(client, Type.fsync, { fid: client.open(root, "") }), errno, name);
  }
  t.end();
});

test("whoever holds a lock can give it back when there are as many as there may be", (t) => {
  const table = new LockTable();
  const range = { session: table, client: "", process: 1, fid: table, isWrite: false };
  let held = 0;
  while (table.add(held as Ino, { ...range, start: 0, end: 100 })) held++;
  t.ok(table.remove(0 as Ino, range, 10, 20), "the last place is for a part of one");
  t.notOk(table.remove(1 as Ino, range, 10, 20), "which needs one more");
  t.ok(table.remove(1 as Ino, range, 0, 100));
  t.equal(table.count, held);
  t.end();
});

test("a session that ends holds nothing", options, (t) => {
  const scene = new NinepScene(t);
  const { client, root } = scene.client("tmp");
  const tree = scene.views[1]!.tree as unknown as { inodeCount: number; fileCount: number };
  put(client, root, "f", "text");
  const before = { inodes: tree.inodeCount, files: tree.fileCount };
  for (let i = 0; i < 50; i++) client.open(root, i % 2 === 0 ? "f" : "");
  t.ok(tree.fileCount > before.files);
  client.version();
  t.strictSame([tree.inodeCount, tree.fileCount], [1, 0], "Tversion clunks all");
  client.open(client.attach("tmp"), "f");
  t.equal(client.call(Type.attach, { fid: 3, otherFid: NOFID, otherName: "tmp" }).errno, 0);
  client.close();
  for (let i = 0; i < 10; i++) scene.pump();
  t.strictSame([tree.inodeCount, tree.fileCount], [1, 0]);
  t.equal(scene.loop.sessionCount, 0);
  t.end();
});
