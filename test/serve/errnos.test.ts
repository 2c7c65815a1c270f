// The errno of each bad request, row by row, on both pathways: malformed messages, FDIDs, flags, names. Read-only mounts
// answer EROFS to every message that changes anything (pitfall E7), by list.

import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "tap";
import { Errno, errnoName } from "../../lib/base/errno.ts";
import type { Request } from "../../lib/wire/lisafs/message.ts";
import { Mid, midName } from "../../lib/wire/lisafs/mid.ts";
import { errnoOf, must, openPath, stat, walkTo } from "../suite/lisafs-calls.ts";
import { type LisafsClient, PAYLOAD_MAX } from "../suite/lisafs-client.ts";
import { noUpper, onBothPathways, serveHost, serveUpper, serveView } from "../suite/served.ts";

const UNKNOWN = 123_456;

function build(directory: string): void {
  mkdirSync(join(directory, "d/e"), { recursive: true });
  writeFileSync(join(directory, "f"), "content");
  symlinkSync("f", join(directory, "l"));
}

/** What a client holds of such a tree. */
interface Held {
  readonly root: number;
  readonly file: number;
  readonly link: number;
  readonly openFile: number;
  readonly openDirectory: number;
}

function hold(client: LisafsClient): Held {
  return {
    root: client.rootFd,
    file: walkTo(client, "f"),
    link: walkTo(client, "l"),
    openFile: openPath(client, "f"),
    openDirectory: openPath(client, "/"),
  };
}

type Row = readonly [mid: number, fields: Partial<Request>, errno: number, why: string];

const BAD_NAMES: readonly (readonly [string, number])[] = [
  ["", Errno.EINVAL],
  [".", Errno.EINVAL],
  ["..", Errno.EINVAL],
  ["/", Errno.EINVAL],
  ["a/b", Errno.EINVAL],
  ["a\0b", Errno.EINVAL],
  ["x".repeat(256), Errno.ENAMETOOLONG],
  ["x".repeat(65_535), Errno.ENAMETOOLONG],
];

function readRows({ root, file, link, openFile, openDirectory }: Held): Row[] {
  return [
    [Mid.FStat, { fd: UNKNOWN }, Errno.EBADF, "unknown FDID"],
    [Mid.FStat, { fd: 0 }, Errno.EBADF, "FDID 0"],
    [Mid.FStat, { fd: -1 }, Errno.EBADF, "FDID 2^64-1"],
    [Mid.Walk, { fd: UNKNOWN, names: ["f"] }, Errno.EBADF, "unknown FDID"],
    [Mid.Walk, { fd: openDirectory, names: ["f"] }, Errno.EINVAL, "an open FD"],
    [Mid.Walk, { fd: file, names: ["f"] }, Errno.ENOTDIR, "a file"],
    [Mid.Walk, { fd: link, names: ["f"] }, Errno.ENOTDIR, "a symlink"],
    [Mid.Walk, { fd: root, names: ["f", "g"] }, Errno.ENOTDIR, "a file in the middle"],
    [Mid.WalkStat, { fd: UNKNOWN, names: [""] }, Errno.EBADF, "unknown FDID"],
    [Mid.WalkStat, { fd: file, names: ["f"] }, Errno.ENOTDIR, "a file"],
    [Mid.WalkStat, { fd: root, names: ["d", ""] }, Errno.EINVAL, "an empty name in the middle"],
    [Mid.OpenAt, { fd: UNKNOWN }, Errno.EBADF, "unknown FDID"],
    [Mid.OpenAt, { fd: openFile }, Errno.EINVAL, "an open FD"],
    [Mid.OpenAt, { fd: link }, Errno.EINVAL, "a symlink"],
    [Mid.OpenAt, { fd: file, flags: 3 }, Errno.EINVAL, "access mode 3"],
    [Mid.PRead, { fd: UNKNOWN, count: 1 }, Errno.EBADF, "unknown FDID"],
    [Mid.PRead, { fd: file, count: 1 }, Errno.EINVAL, "a control FD"],
    [Mid.PRead, { fd: openDirectory, count: 1 }, Errno.EISDIR, "a directory"],
    [Mid.PRead, { fd: openFile, count: 1, offset: -1 }, Errno.EINVAL, "offset 2^64-1"],
    [Mid.PRead, { fd: openFile, count: PAYLOAD_MAX - 7 }, Errno.ENOBUFS, "more than a reply"],
    [Mid.PRead, { fd: openFile, count: 0xffff_ffff }, Errno.ENOBUFS, "count 2^32-1"],
    [Mid.Getdents64, { fd: UNKNOWN, count: 100 }, Errno.EBADF, "unknown FDID"],
    [Mid.Getdents64, { fd: root, count: 100 }, Errno.EINVAL, "a control FD"],
    [Mid.Getdents64, { fd: openFile, count: 100 }, Errno.ENOTDIR, "a file"],
    [Mid.ReadLinkAt, { fd: UNKNOWN }, Errno.EBADF, "unknown FDID"],
    [Mid.ReadLinkAt, { fd: file }, Errno.EINVAL, "a file"],
    [Mid.ReadLinkAt, { fd: openFile }, Errno.EINVAL, "an open FD"],
    [Mid.FStatFS, { fd: UNKNOWN }, Errno.EBADF, "unknown FDID"],
    [Mid.FSync, { fds: [UNKNOWN] }, Errno.EBADF, "unknown FDID"],
    [Mid.FSync, { fds: [openFile, root] }, Errno.EINVAL, "a control FD"],
    [Mid.Flush, { fd: UNKNOWN }, Errno.EBADF, "unknown FDID"],
    [Mid.Flush, { fd: root }, Errno.EINVAL, "a control FD"],
    [Mid.FGetXattr, { fd: UNKNOWN, name: "user.a" }, Errno.EBADF, "unknown FDID"],
    [Mid.FGetXattr, { fd: file, name: "user.a" }, Errno.ENODATA, "no such attribute"],
    [Mid.FGetXattr, { fd: file, name: "" }, Errno.EINVAL, "an empty name"],
    [Mid.FSync, { fds: [0] }, Errno.EBADF, "FDID 0"],
    [Mid.FGetXattr, { fd: file, name: "x".repeat(256) }, Errno.ERANGE, "a long name"],
    [Mid.FListXattr, { fd: UNKNOWN }, Errno.EBADF, "unknown FDID"],
    [Mid.Connect, { fd: UNKNOWN }, Errno.EBADF, "unknown FDID"],
    [Mid.Connect, { fd: file }, Errno.EPERM, "sockets are never connected"],
    [Mid.ConnectWithCreds, { fd: file }, Errno.EPERM, "sockets are never connected"],
    [Mid.Listen, { fd: UNKNOWN }, Errno.EBADF, "unknown FDID"],
    [Mid.Listen, { fd: file }, Errno.EINVAL, "no bound socket"],
    [Mid.Accept, { fd: openFile }, Errno.EINVAL, "no bound socket"],
    ...BAD_NAMES.flatMap(([name, errno]): Row[] => [
      [
        Mid.Walk,
        { fd: root, names: [name] },
        errno,
        `the name ${JSON.stringify(name.slice(0, 9))}`,
      ],
      [Mid.Walk, { fd: root, names: ["d", "e", name] }, errno, "a bad name at the end"],
      [Mid.WalkStat, { fd: root, names: ["d", name] }, errno, "a bad name at the end"],
    ]),
  ];
}

/** Every message that changes a tree. */
function mutatingRows({ root, file, openFile }: Held, errno: number): Row[] {
  const made = { fd: root, name: "new", mode: 0o644 };
  return [
    [Mid.SetStat, { fd: file, mask: 2, mode: 0 }, errno, "of a control FD"],
    [Mid.SetStat, { fd: openFile, mask: 0x200 }, errno, "of an open FD"],
    [Mid.OpenAt, { fd: file, flags: 1 }, errno, "O_WRONLY"],
    [Mid.OpenAt, { fd: file, flags: 2 }, errno, "O_RDWR"],
    [Mid.OpenAt, { fd: file, flags: 0o1000 }, errno, "O_TRUNC"],
    [Mid.OpenAt, { fd: root, flags: 1 }, errno, "a directory, O_WRONLY"],
    [Mid.OpenCreateAt, made, errno, ""],
    [Mid.OpenCreateAt, { ...made, flags: 2 }, errno, "O_RDWR"],
    [Mid.PWrite, { fd: openFile }, errno, ""],
    [Mid.MkdirAt, made, errno, ""],
    [Mid.MknodAt, { ...made, mode: 0o100644 }, errno, "a file"],
    [Mid.MknodAt, { ...made, mode: 0o010644 }, errno, "a FIFO"],
    [Mid.SymlinkAt, { ...made, otherName: "target" }, errno, ""],
    [Mid.LinkAt, { ...made, otherFd: file }, errno, ""],
    [Mid.FAllocate, { fd: openFile, length: 10 }, errno, ""],
    [Mid.FAllocate, { fd: openFile, length: 10, mode: 3 }, errno, "PUNCH_HOLE"],
    [Mid.FAllocate, { fd: openFile, length: 10, mode: 0x80 }, errno, "an unknown mode"],
    [Mid.UnlinkAt, { fd: root, name: "f" }, errno, "a file"],
    [Mid.UnlinkAt, { fd: root, name: "d", flags: 0x200 }, errno, "a directory"],
    [Mid.RenameAt, { fd: root, otherFd: root, name: "f", otherName: "g" }, errno, ""],
    [Mid.RenameAt2, { fd: root, otherFd: root, name: "f", otherName: "g", flags: 1 }, errno, ""],
    [
      Mid.RenameAt2,
      { fd: root, otherFd: root, name: "f", otherName: "g", flags: 2 },
      errno,
      "EXCHANGE",
    ],
    [
      Mid.RenameAt2,
      { fd: root, otherFd: root, name: "f", otherName: "g", flags: 4 },
      errno,
      "WHITEOUT",
    ],
    [Mid.MknodAt, { ...made, mode: 0o020000 }, errno, "a whiteout"],
    [Mid.FSetXattr, { fd: file, name: "user.a", otherName: "v" }, errno, ""],
    [Mid.FSetXattr, { fd: file, name: "trusted.a", otherName: "v" }, errno, "trusted.*"],
    [Mid.FRemoveXattr, { fd: file, name: "user.a" }, errno, ""],
    [Mid.BindAt, { ...made, sockType: 1 }, errno, ""],
  ];
}

/** Bad requests to a writable tree. */
function writeRows({ root, file, openFile, openDirectory }: Held): Row[] {
  const made = { fd: root, name: "new", mode: 0o644 };
  const both = { fd: root, otherFd: root };
  return [
    [Mid.SetStat, { fd: UNKNOWN, mask: 2 }, Errno.EBADF, "unknown FDID"],
    [Mid.SetStat, { fd: file, mask: 0x400 }, Errno.EPERM, "a field that can't be set"],
    [Mid.SetStat, { fd: file, mask: 0x200, length: -1 }, Errno.EINVAL, "size 2^64-1"],
    [Mid.OpenCreateAt, { ...made, fd: UNKNOWN }, Errno.EBADF, "unknown FDID"],
    [Mid.OpenCreateAt, { ...made, fd: file }, Errno.ENOTDIR, "in a file"],
    [Mid.OpenCreateAt, { ...made, name: "f" }, Errno.EEXIST, "a name that is there"],
    [Mid.OpenCreateAt, { ...made, flags: 3 }, Errno.EINVAL, "access mode 3"],
    [Mid.PWrite, { fd: UNKNOWN }, Errno.EBADF, "unknown FDID"],
    [Mid.PWrite, { fd: file }, Errno.EINVAL, "a control FD"],
    [Mid.PWrite, { fd: openFile }, Errno.EBADF, "opened O_RDONLY"],
    [Mid.PWrite, { fd: openDirectory }, Errno.EISDIR, "a directory"],
    [Mid.FAllocate, { fd: openFile, length: 1 }, Errno.EBADF, "opened O_RDONLY"],
    [Mid.MkdirAt, { ...made, name: "d" }, Errno.EEXIST, "a name that is there"],
    [Mid.MkdirAt, { ...made, fd: file }, Errno.ENOTDIR, "in a file"],
    [Mid.MknodAt, { ...made, mode: 0o010644 }, Errno.EPERM, "a FIFO"],
    [
      Mid.MknodAt,
      { ...made, mode: 0o020644, major: 1, minor: 3, uid: 7 },
      Errno.EPERM,
      "no root's",
    ],
    [Mid.MknodAt, { ...made, mode: 0o040755 }, Errno.EPERM, "a directory"],
    [Mid.MknodAt, { ...made, mode: 0o120777 }, Errno.EINVAL, "a symlink"],
    [Mid.MknodAt, { ...made, mode: 0o170000 }, Errno.EINVAL, "no type"],
    [Mid.SymlinkAt, { ...made, otherName: "" }, Errno.ENOENT, "an empty target"],
    [Mid.SymlinkAt, { ...made, otherName: "x".repeat(4096) }, Errno.ENAMETOOLONG, "a long target"],
    [Mid.SymlinkAt, { ...made, otherName: "a\0b" }, Errno.EINVAL, "a target with a NUL"],
    [Mid.LinkAt, { ...made, otherFd: UNKNOWN }, Errno.EBADF, "unknown FDID"],
    [Mid.LinkAt, { ...made, otherFd: root }, Errno.EPERM, "a directory"],
    [Mid.UnlinkAt, { fd: root, name: "none" }, Errno.ENOENT, "no such name"],
    [Mid.UnlinkAt, { fd: root, name: "d" }, Errno.EISDIR, "a directory as a file"],
    [Mid.UnlinkAt, { fd: root, name: "f", flags: 0x200 }, Errno.ENOTDIR, "a file as a directory"],
    [Mid.UnlinkAt, { fd: root, name: "d", flags: 0x200 }, Errno.ENOTEMPTY, "a full directory"],
    [Mid.UnlinkAt, { fd: root, name: "f", flags: 1 }, Errno.EINVAL, "an unknown flag"],
    [Mid.RenameAt, { ...both, name: "none", otherName: "g" }, Errno.ENOENT, "no such name"],
    [Mid.RenameAt, { fd: root, otherFd: UNKNOWN, name: "f", otherName: "g" }, Errno.EBADF, "FDID"],
    [Mid.RenameAt2, { ...both, name: "f", otherName: "l", flags: 1 }, Errno.EEXIST, "NOREPLACE"],
    [Mid.RenameAt2, { ...both, name: "f", otherName: "g", flags: 4 }, Errno.EINVAL, "WHITEOUT"],
    [Mid.BindAt, { ...made, sockType: 1 }, Errno.EPERM, "sockets are never bound"],
    ...BAD_NAMES.flatMap(([name, errno]): Row[] => [
      [Mid.OpenCreateAt, { ...made, name }, errno, "a bad name"],
      [Mid.MkdirAt, { ...made, name }, errno, "a bad name"],
      [Mid.MknodAt, { ...made, name }, errno, "a bad name"],
      [Mid.SymlinkAt, { ...made, name, otherName: "t" }, errno, "a bad name"],
      [Mid.LinkAt, { ...made, name, otherFd: file }, errno, "a bad name"],
      [Mid.UnlinkAt, { fd: root, name }, errno, "a bad name"],
      [Mid.RenameAt, { ...both, name, otherName: "g" }, errno, "a bad old name"],
      [Mid.RenameAt, { ...both, name: "f", otherName: name }, errno, "a bad new name"],
      [Mid.BindAt, { ...made, name }, errno, "a bad name"],
    ]),
  ];
}

interface Equal {
  equal(found: unknown, wanted: unknown, message: string): unknown;
}

function check(t: Equal, client: LisafsClient, rows: readonly Row[]): void {
  onBothPathways(client, (pathway) => {
    for (const [mid, fields, wanted, why] of rows) {
      const data = mid === Mid.PWrite ? Buffer.from("x") : undefined;
      const got = errnoOf(client, mid, fields, data);
      t.equal(errnoName(got), errnoName(wanted), `${midName(mid)}: ${why} (${pathway})`);
    }
  });
}

test("bad requests to a read-only host directory are answered as the table says", (t) => {
  const { client } = serveHost(t, build);
  check(t, client, readRows(hold(client)));
  t.end();
});

test("every message that changes anything is EROFS on a read-only mount", (t) => {
  const host = serveHost(t, build);
  check(t, host.client, mutatingRows(hold(host.client), Errno.EROFS));
  t.equal(stat(host.client, host.client.rootFd).nlink, 3, "nothing was made");
  t.end();
});

/** Messages that change nothing, or only what the client itself holds. */
const HARMLESS: readonly number[] = [
  ...[Mid.Error, Mid.Mount, Mid.Channel, Mid.FStat, Mid.Walk, Mid.WalkStat, Mid.Close, Mid.FSync],
  ...[Mid.PRead, Mid.FStatFS, Mid.ReadLinkAt, Mid.Flush, Mid.Connect, Mid.ConnectWithCreds],
  ...[Mid.Getdents64, Mid.FGetXattr, Mid.FListXattr, Mid.Listen, Mid.Accept],
];

test("every message of the protocol is either harmless or on the list of those that are EROFS", (t) => {
  const { client } = serveHost(t, build);
  const mutating = mutatingRows(hold(client), Errno.EROFS).map(([mid]) => mid as number);
  const all = Object.values(Mid).filter((mid) => !HARMLESS.includes(mid));
  t.same([...new Set(mutating)].sort(), [...all].sort());
  t.end();
});

test("bad requests to a host directory that may be written are answered as the table says", (t) => {
  const { client } = serveHost(t, build, { isReadOnly: false });
  const held = hold(client);
  check(t, client, [...readRows(held), ...writeRows(held)]);
  t.end();
});

test("bad requests to a view are answered as the table says", (t) => {
  const { client } = serveView(t, { "d/e": "/", f: "content", l: "-> f" });
  const held = hold(client);
  check(t, client, [...readRows(held), ...mutatingRows(held, Errno.EROFS)]);
  t.end();
});

function buildUpper(client: LisafsClient): void {
  const made = { fd: client.rootFd, mode: 0o755, uid: 0xffff_ffff, gid: 0xffff_ffff };
  must(client, Mid.MkdirAt, { ...made, name: "d" });
  must(client, Mid.MkdirAt, { ...made, fd: walkTo(client, "d"), name: "e" });
  must(client, Mid.MknodAt, { ...made, mode: 0o100644, name: "f" });
  must(client, Mid.SymlinkAt, { ...made, name: "l", otherName: "f" });
}

test("bad requests to an upper are answered as the table says", { skip: noUpper }, (t) => {
  const { client } = serveUpper(t);
  buildUpper(client);
  const held = hold(client);
  check(t, client, [...readRows(held), ...writeRows(held)]);
  t.end();
});

test("malformed messages are answered, and the connection lives", (t) => {
  const { client } = serveHost(t, build);
  onBothPathways(client, (pathway) => {
    const raw = (mid: number, payload: Uint8Array) => client.callRaw(mid, payload).errno;
    t.equal(raw(Mid.Error, Buffer.alloc(4)), Errno.EINVAL, `Error as a request (${pathway})`);
    for (const mid of [34, 35, 100, 255, 256, 0x8005, 65_535]) {
      t.equal(raw(mid, Buffer.alloc(64)), Errno.EOPNOTSUPP, `MID ${mid} (${pathway})`);
    }
    for (let mid: number = Mid.FStat; mid <= Mid.RenameAt2; mid++) {
      t.equal(raw(mid, Buffer.alloc(0)), Errno.EIO, `${midName(mid)} without payload (${pathway})`);
      t.equal(raw(mid, Buffer.alloc(1)), Errno.EIO, `${midName(mid)} of 1 byte (${pathway})`);
    }
    const counts = Buffer.alloc(10, 0xff);
    t.equal(raw(Mid.Walk, counts), Errno.EIO, "65,535 names that aren't there");
    t.equal(raw(Mid.Close, counts.subarray(0, 2)), Errno.EIO, "65,535 FDIDs that aren't there");
    const trailing = Buffer.alloc(100, 0xff);
    trailing.writeBigUInt64LE(BigInt(client.rootFd), 0);
    t.equal(raw(Mid.FStat, trailing), 0, "bytes after a whole message are ignored");
    t.equal(raw(Mid.Mount, trailing), 0, "Mount may be sent again");
  });
  t.end();
});
