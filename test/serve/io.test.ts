// OpenAt, OpenCreateAt, PRead, PWrite, FSync, FAllocate, SetStat, Close and the messages that change names, over an upper and a
// host directory, on both pathways. Donated FDs are used, not only counted.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { OTHER_FDS_MAX } from "../../lib/base/limits.ts";
import { native } from "../../lib/sys/native.ts";
import { SetAttr } from "../../lib/tree/tree.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { INODE_BYTES } from "../../lib/wire/lisafs/statx.ts";
import { fewOpenFiles } from "../suite/file-limit.ts";
import {
  close,
  contentOf,
  errnoOf,
  inodeAt,
  list,
  must,
  open,
  openPath,
  read,
  stat,
  walk,
  walkStat,
  walkTo,
  write,
} from "../suite/lisafs-calls.ts";
import { type LisafsClient, PAYLOAD_MAX } from "../suite/lisafs-client.ts";
import { noUpper, onBothPathways, serveHost, serveUpper } from "../suite/served.ts";

const O_RDWR = 2;
const O_WRONLY = 1;
const O_TRUNC = 0o1000;
const NONE = 0xffff_ffff;
const own = { uid: NONE, gid: NONE };

interface Created {
  readonly fd: number;
  readonly control: number;
  readonly hostFd: number;
}

function create(client: LisafsClient, name: string, flags = O_RDWR, mode = 0o644): Created {
  const made = { fd: client.rootFd, name, flags, mode, ...own };
  const { payload, fds } = must(client, Mid.OpenCreateAt, made);
  const fd = Number(payload.readBigUInt64LE(152));
  return { fd, control: inodeAt(payload, 0).fd, hostFd: fds[0] ?? -1 };
}

test("what is written by message is read by message and through the donated FD", {
  skip: noUpper,
}, (t) => {
  const { client } = serveUpper(t);
  onBothPathways(client, (pathway) => {
    const { fd, hostFd, control } = create(client, `file-${pathway}`);
    const bytes = Buffer.from(Array.from({ length: 1_000_000 }, (_, i) => (i * 7) & 0xff));
    t.equal(write(client, fd, 0, bytes), bytes.length);
    t.equal(Buffer.compare(read(client, fd, 0, 1_000_000), bytes), 0, `PRead (${pathway})`);
    t.equal(Buffer.compare(read(client, fd, 50, 1_000_000), bytes.subarray(50)), 0, "a short one");
    t.equal(read(client, fd, 1_000_000, 10).length, 0, "nothing at the end");
    t.equal(read(client, fd, 2 ** 40, 10).length, 0, "nor far behind it");
    t.equal(read(client, fd, 0, 0).length, 0);
    t.ok(hostFd >= 0, "OpenCreateAt donates");
    t.equal(Buffer.compare(contentOf(hostFd), bytes), 0);
    native.pwriteFd(hostFd, Buffer.from("through"), 3);
    t.equal(read(client, fd, 3, 7).toString(), "through", "and what it writes is read");
    t.equal(errnoOf(client, Mid.FSync, { fds: [fd] }), 0);
    must(client, Mid.FAllocate, { fd, length: 1_000_100 });
    t.equal(stat(client, fd).size, 1_000_100, "FAllocate grows");
    t.equal(stat(client, control).size, 1_000_100);
    native.closeFd(hostFd);
  });
  t.end();
});

test("the largest messages pass", { skip: noUpper }, (t) => {
  const { client } = serveUpper(t);
  onBothPathways(client, () => {
    const { fd, hostFd } = create(client, `large-${client.pathway.name}`);
    native.closeFd(hostFd);
    const bytes = Buffer.alloc(PAYLOAD_MAX - 20, 0xab);
    t.equal(write(client, fd, 0, bytes), bytes.length, "PWrite of max - 20");
    const got = read(client, fd, 0, PAYLOAD_MAX - 8);
    t.equal(Buffer.compare(got, bytes), 0, "PRead of max - 8");
    const names = Array.from({ length: 8000 }, () => "x".repeat(255));
    t.equal(walk(client, client.rootFd, ...names).status, 1, "a walk of 2 MB of names");
  });
  t.end();
});

/** Inodes of a walk that don't fit a reply: each that the client knows is an FD of the gofer's. */
const TOO_MANY = Math.floor((PAYLOAD_MAX - 3) / INODE_BYTES) + 1;

test("a walk whose inodes do not fit a reply is EIO and leaves no FD behind", {
  skip: noUpper || fewOpenFiles(TOO_MANY + 2 * OTHER_FDS_MAX),
}, (t) => {
  // Landlock looks at each parent on the way up: 2 ms for a mkdir at this depth.
  const { client, gofer } = serveUpper(t, { inodes: 20_000, env: { BURROW_HARDEN: "off" } });
  const depth = TOO_MANY;
  const made: number[] = [];
  for (let fd = client.rootFd; made.length < depth; made.push(fd)) {
    const { payload } = must(client, Mid.MkdirAt, { fd, name: "x", mode: 0o755, ...own });
    fd = inodeAt(payload, 0).fd;
  }
  close(client, ...made);
  const before = gofer.fdCount;
  const names = Array.from({ length: depth }, () => "x");
  onBothPathways(client, (pathway) => {
    t.equal(errnoOf(client, Mid.Walk, { fd: client.rootFd, names }), Errno.EIO, pathway);
    t.equal(gofer.fdCount, before);
  });
  const { inodes, status } = walk(client, client.rootFd, ...names.slice(1));
  t.strictSame([status, inodes.length], [0, depth - 1], "one less fits");
  close(client, ...inodes.map((each) => each.fd));
  t.equal(gofer.fdCount, before);
  t.end();
});

test("access modes hold, on the message and on the donated FD", { skip: noUpper }, (t) => {
  const { client } = serveUpper(t);
  const created = create(client, "file");
  native.closeFd(created.hostFd);
  write(client, created.fd, 0, Buffer.from("content"));
  const control = walkTo(client, "file");
  onBothPathways(client, (pathway) => {
    const reader = open(client, control, 0);
    t.equal(errnoOf(client, Mid.PWrite, { fd: reader.fd }, Buffer.from("x")), Errno.EBADF, pathway);
    t.equal(native.pwriteFd(reader.hostFd, Buffer.from("x"), 0), -Errno.EBADF, "O_RDONLY donated");
    const writer = open(client, control, O_WRONLY);
    t.equal(errnoOf(client, Mid.PRead, { fd: writer.fd, count: 1 }), Errno.EBADF);
    t.equal(native.preadFd(writer.hostFd, Buffer.alloc(1), 0), -Errno.EBADF, "O_WRONLY donated");
    const both = open(client, control, O_RDWR);
    t.equal(native.preadFd(both.hostFd, Buffer.alloc(1), 0), 1);
    t.equal(native.pwriteFd(both.hostFd, Buffer.from("c"), 0), 1);
    for (const { hostFd } of [reader, writer, both]) native.closeFd(hostFd);
  });
  const emptied = open(client, control, O_RDWR | O_TRUNC);
  native.closeFd(emptied.hostFd);
  t.equal(stat(client, control).size, 0, "O_TRUNC");
  t.end();
});

test("SetStat sets mode, size, times and owner, and says what failed", { skip: noUpper }, (t) => {
  const { client } = serveUpper(t);
  const { fd, control, hostFd } = create(client, "file");
  native.closeFd(hostFd);
  const { mode, size, atime, mtime, uid, gid } = SetAttr;
  const { payload } = must(client, Mid.SetStat, {
    fd: control,
    mask: mode | size | atime | mtime | uid | gid,
    mode: 0o4760,
    length: 50,
    atimeSec: 1_600_000_000,
    atimeNs: 123_456_789,
    mtimeSec: -5,
    mtimeNs: 987_654_321,
    uid: 1000,
    gid: 1001,
  });
  t.strictSame([payload.length, payload.readUInt32LE(0), payload.readUInt32LE(4)], [8, 0, 0]);
  const found = stat(client, fd);
  t.equal(found.size, 50);
  t.strictSame([found.uid, found.gid], [1000, 1001]);
  t.equal(found.mode & 0o777, 0o760);
  t.strictSame([found.atimeSec, found.atimeNs], [1_600_000_000, 123_456_789]);
  t.strictSame([found.mtimeSec, found.mtimeNs], [-5, 987_654_321]);
  const huge = must(client, Mid.SetStat, { fd: control, mask: size, length: 2 ** 52 }).payload;
  const failed = huge.readUInt32LE(0) === size && huge.readUInt32LE(4) === Errno.EFBIG;
  t.ok(failed || huge.readUInt32LE(0) === 0, "a size past the limit fails alone, or is sparse");
  t.end();
});

test("names are made, linked, renamed and removed", { skip: noUpper }, (t) => {
  const { client } = serveUpper(t);
  const fd = client.rootFd;
  const names = () =>
    list(client, openPath(client, "/"))
      .map(({ name }) => name)
      .sort();
  const made = { fd, mode: 0o755, uid: 1000, gid: 1001 };
  onBothPathways(client, (pathway) => {
    const directory = inodeAt(must(client, Mid.MkdirAt, { ...made, name: "d" }).payload, 0);
    t.strictSame([directory.stat.mode, directory.stat.uid], [0o040755, 1000], pathway);
    const file = inodeAt(
      must(client, Mid.MknodAt, { ...made, name: "f", mode: 0o100777 }).payload,
      0,
    );
    t.equal(file.stat.mode, 0o100777);
    t.strictSame(stat(client, file.fd), file.stat);
    const link = inodeAt(
      must(client, Mid.SymlinkAt, { ...made, name: "s", otherName: "to" }).payload,
      0,
    );
    t.equal(link.stat.mode & 0o170000, 0o120000);
    const hard = inodeAt(must(client, Mid.LinkAt, { fd, otherFd: file.fd, name: "h" }).payload, 0);
    t.strictSame([hard.stat.ino, hard.stat.nlink], [file.stat.ino, 2]);
    t.strictSame(names(), ["d", "f", "h", "s"]);
    must(client, Mid.RenameAt, { fd, otherFd: directory.fd, name: "f", otherName: "g" });
    t.equal(walkStat(client, fd, "d", "g").length, 2);
    t.equal(stat(client, file.fd).nlink, 2, "a control FD goes with its file");
    must(client, Mid.RenameAt2, { fd, otherFd: fd, name: "h", otherName: "s", flags: 2 });
    t.equal(stat(client, walkTo(client, "s")).ino, file.stat.ino, "exchanged");
    must(client, Mid.RenameAt, { fd, otherFd: fd, name: "s", otherName: "s" });
    must(client, Mid.UnlinkAt, { fd: directory.fd, name: "g" });
    must(client, Mid.UnlinkAt, { fd, name: "h" });
    must(client, Mid.UnlinkAt, { fd, name: "s" });
    must(client, Mid.UnlinkAt, { fd, name: "d", flags: 0x200 });
    t.strictSame(names(), []);
    t.equal(stat(client, file.fd).size, 0, "an unlinked file's FD still answers");
    close(client, directory.fd, file.fd, link.fd, hard.fd);
  });
  t.end();
});

test("xattrs are set, listed, read and removed", { skip: noUpper }, (t) => {
  const { client } = serveUpper(t);
  const { control, hostFd } = create(client, "file");
  native.closeFd(hostFd);
  onBothPathways(client, (pathway) => {
    const set = (name: string, otherName: string, flags = 0) =>
      errnoOf(client, Mid.FSetXattr, { fd: control, name, otherName, flags });
    if (set("user.a", "v\xff\0") === Errno.EOPNOTSUPP)
      return t.pass("no user xattrs on this tmpfs");
    const get = (count: number) =>
      client.call(Mid.FGetXattr, { fd: control, name: "user.a", count });
    t.equal(get(100).payload.toString("latin1", 2), "v\xff\0", pathway);
    t.equal(get(0).payload.length, 5, "0 asks for all of it");
    t.equal(get(2).errno, Errno.ERANGE);
    t.equal(set("user.a", "w", 1), 17, "XATTR_CREATE");
    const { payload } = must(client, Mid.FListXattr, { fd: control, count: 1000 });
    t.equal(payload.readUInt16LE(0), 1);
    t.equal(payload.toString("latin1", 4), "user.a");
    t.equal(errnoOf(client, Mid.FListXattr, { fd: control, count: 2 }), Errno.ERANGE);
    t.equal(errnoOf(client, Mid.FRemoveXattr, { fd: control, name: "user.a" }), 0);
    t.equal(get(0).errno, Errno.ENODATA);
  });
  t.end();
});

test("Close ignores what it does not know, and closes once", (t) => {
  const { client } = serveHost(t, (directory) => writeFileSync(join(directory, "f"), "content"));
  onBothPathways(client, () => {
    const control = walkTo(client, "f");
    const opened = open(client, control);
    native.closeFd(opened.hostFd);
    close(client, 0, 999_999, 2 ** 53 - 1, -1);
    close(client, control, control);
    t.equal(errnoOf(client, Mid.FStat, { fd: control }), Errno.EBADF);
    t.equal(read(client, opened.fd, 0, 3).toString(), "con", "the open FD outlives its control FD");
    close(client, opened.fd, opened.fd);
    close(client, opened.fd);
    t.equal(errnoOf(client, Mid.PRead, { fd: opened.fd, count: 1 }), Errno.EBADF);
    const next = walkTo(client, "f");
    t.ok(next > opened.fd, "FDIDs are never used again");
  });
  close(client, client.rootFd);
  t.equal(
    errnoOf(client, Mid.FStat, { fd: client.rootFd }),
    Errno.EBADF,
    "the root's FD closes too",
  );
  t.equal(client.mount(), 0, "and Mount gives another");
  t.equal(stat(client, client.rootFd).mode & 0o170000, 0o040000);
  t.end();
});

test("FStatFS says how much room there is", { skip: noUpper }, (t) => {
  const { client } = serveUpper(t);
  const { payload } = must(client, Mid.FStatFS, { fd: client.rootFd });
  t.equal(payload.length, 64);
  t.equal(payload.readUInt32LE(0), 0x01021997);
  t.equal(payload.readBigInt64LE(8) * payload.readBigInt64LE(16), 64n * 1024n * 1024n);
  t.equal(payload.readBigInt64LE(40), 4096n);
  t.equal(payload.readBigInt64LE(56), 255n);
  t.end();
});
