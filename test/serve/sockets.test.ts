// Unix sockets of a host directory by messages: what a client that runsc's flags allow it may do with their FDIDs, and what it may not.

import { existsSync, lstatSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Test, test } from "tap";
import { Errno, errnoName } from "../../lib/base/errno.ts";
import { native } from "../../lib/sys/native.ts";
import type { Request } from "../../lib/wire/lisafs/message.ts";
import { Mid, midName } from "../../lib/wire/lisafs/mid.ts";
import { GoferProcess } from "../suite/gofer-process.ts";
import { errnoOf, must, walkTo } from "../suite/lisafs-calls.ts";
import { LisafsClient } from "../suite/lisafs-client.ts";

const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const INODE_BYTES = 152;
const made = { name: "bound", mode: 0o640, uid: 12, gid: 34, sockType: SOCK_STREAM };

function serve(t: Test, flags: readonly string[], isReadOnly = false) {
  const directory = mkdtempSync(join(tmpdir(), "burrow-sockets-"));
  const mounts = [{ destination: "/", source: directory, isReadOnly }];
  const gofer = GoferProcess.start({ mounts, argv: [...flags, "gofer", "--bundle", "/"] });
  const client = LisafsClient.mount(gofer.takeSocket(0), 1);
  t.teardown(async () => {
    client.close();
    const code = await gofer.stop();
    if (code !== 0) throw new Error(`the gofer ended with ${code}`);
    rmSync(directory, { recursive: true });
  });
  return { directory, client, gofer };
}

function refusedAs(
  t: Test,
  client: LisafsClient,
  errno: number,
  mid: number,
  fields: Partial<Request>,
) {
  t.equal(errnoName(errnoOf(client, mid, fields)), errnoName(errno), midName(mid));
}

test("a socket is bound, listened on, accepted from and closed", {
  skip: process.getuid!() !== 0,
}, async (t) => {
  const { directory, client, gofer } = serve(t, ["--host-uds=all"]);
  const before = gofer.fds().length;
  const { payload, fds } = must(client, Mid.BindAt, { ...made, fd: client.rootFd });
  const node = Number(payload.readBigUInt64LE(0));
  const bound = Number(payload.readBigUInt64LE(INODE_BYTES));
  t.equal(fds.length, 1, "the socket is donated");
  const { mode, uid, gid } = lstatSync(join(directory, "bound"));
  t.same([mode.toString(8), uid, gid], ["140640", 12, 34]);
  refusedAs(t, client, Errno.EEXIST, Mid.BindAt, { ...made, fd: client.rootFd });
  refusedAs(t, client, Errno.ECONNREFUSED, Mid.Connect, { fd: node, sockType: 0 });
  must(client, Mid.Listen, { fd: bound, count: 5 });
  refusedAs(t, client, Errno.EAGAIN, Mid.Accept, { fd: bound });
  refusedAs(t, client, Errno.EPROTOTYPE, Mid.Connect, { fd: node, sockType: SOCK_DGRAM });
  refusedAs(t, client, Errno.ENXIO, Mid.Connect, { fd: node, sockType: 99 });
  const [ours] = must(client, Mid.Connect, { fd: node, sockType: 0 }).fds;
  const accepted = must(client, Mid.Accept, { fd: bound });
  t.equal(accepted.payload.readUInt16LE(0), 0, "no address of the host");
  native.writeFd(ours!, Buffer.from("hello"));
  const got = Buffer.alloc(5);
  t.equal(native.readFd(accepted.fds[0]!, got), 5);
  t.equal(got.toString(), "hello");
  t.equal(native.readFd(accepted.fds[0]!, got), -Errno.EAGAIN, "it never blocks");
  for (const fd of [...fds, ours!, ...accepted.fds]) native.closeFd(fd);
  for (const mid of [Mid.PRead, Mid.FSync, Mid.Getdents64, Mid.FAllocate, Mid.Walk, Mid.OpenAt]) {
    const fields = { fd: bound, fds: [bound], count: 1, length: 1, names: ["x"] };
    refusedAs(t, client, Errno.EINVAL, mid, fields);
  }
  refusedAs(t, client, Errno.EINVAL, Mid.Listen, { fd: node });
  refusedAs(t, client, Errno.EBADF, Mid.Accept, { fd: 999 });
  must(client, Mid.Close, { fds: [bound, node] });
  refusedAs(t, client, Errno.EBADF, Mid.Accept, { fd: bound });
  t.equal(gofer.fds().length, before, "no FD is left");
});

test("each flag allows its own half", async (t) => {
  const open = serve(t, ["--host-uds=open"]);
  refusedAs(t, open.client, Errno.EPERM, Mid.BindAt, { ...made, fd: open.client.rootFd });
  const server = createServer().listen(join(open.directory, "sock"));
  t.teardown(() => server.close());
  await new Promise((resolve) => server.once("listening", resolve));
  const [fd] = must(open.client, Mid.Connect, { fd: walkTo(open.client, "sock"), sockType: 0 }).fds;
  native.closeFd(fd!);
  refusedAs(t, open.client, Errno.ECONNREFUSED, Mid.Connect, { fd: open.client.rootFd });
  refusedAs(t, open.client, Errno.ENXIO, Mid.OpenAt, { fd: walkTo(open.client, "sock") });

  const create = serve(t, ["--host-uds=create"]);
  const asNobody = { ...made, uid: 0xffff_ffff, gid: 0xffff_ffff, fd: create.client.rootFd };
  const { payload, fds } = must(create.client, Mid.BindAt, asNobody);
  for (const each of fds) native.closeFd(each);
  const node = Number(payload.readBigUInt64LE(0));
  refusedAs(t, create.client, Errno.EPERM, Mid.Connect, { fd: node });
  refusedAs(t, create.client, Errno.ENXIO, Mid.BindAt, { ...asNobody, sockType: 3, name: "raw" });
  const long = { ...asNobody, name: "n".repeat(108) };
  refusedAs(t, create.client, Errno.ENAMETOOLONG, Mid.BindAt, long);
  t.notOk(existsSync(join(create.directory, "raw")));

  const readOnly = serve(t, ["--host-uds=all"], true);
  refusedAs(t, readOnly.client, Errno.EROFS, Mid.BindAt, { ...made, fd: readOnly.client.rootFd });
});
