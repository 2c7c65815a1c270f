// A request that is refused since its client has all the FDIDs that it may have leaves no name behind.

import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "tap";
import { Errno, errnoName } from "../../lib/base/errno.ts";
import { CONTROL_FDS_MAX } from "../../lib/base/limits.ts";
import { dispatch } from "../../lib/serve/dispatch.ts";
import { Connection } from "../../lib/serve/lisafs/connection.ts";
import { HostTree } from "../../lib/tree/host.ts";
import type { Ino } from "../../lib/tree/tree.ts";
import { Cursor } from "../../lib/wire/cursor.ts";
import { encodeRequest } from "../../lib/wire/lisafs/encode.ts";
import { Request } from "../../lib/wire/lisafs/message.ts";
import { Mid, midName } from "../../lib/wire/lisafs/mid.ts";
import { ALONE, MemoryCommunicator } from "../suite/memory-communicator.ts";
import { temporary } from "../suite/served.ts";

test("what is refused for want of an FDID is not made", (t) => {
  const directory = temporary(t);
  writeFileSync(join(directory, "file"), "");
  const special = { opensFifos: true, connectsSockets: true, bindsSockets: true };
  const tree = HostTree.open(directory, { isReadOnly: false, special });
  if (typeof tree === "number") throw new Error(`not opened: ${tree}`);
  const connection = new Connection(0, tree, false, ALONE);
  t.teardown(() => connection.end());
  const communicator = new MemoryCommunicator();
  const call = (mid: number, fields: Partial<Request> = {}): Buffer | number => {
    const { bytes, payloadStart } = communicator;
    const request = Object.assign(new Request(), fields);
    const to = new Cursor(bytes).seek(payloadStart, bytes.length);
    encodeRequest(mid, request, to);
    dispatch(connection, communicator, mid, to.offset - payloadStart, (line) => t.fail(line));
    const { payload } = communicator;
    return communicator.mid === mid ? payload : payload.readUInt32LE(0);
  };
  const fdidOf = (reply: Buffer | number) => {
    if (typeof reply === "number") throw new Error(`refused: ${errnoName(reply)}`);
    return Number(reply.readBigUInt64LE(0));
  };
  const fd = fdidOf(call(Mid.Mount));
  const { fds } = connection;
  const file = tree.lookup(tree.rootIno, "file" as never) as Ino;
  const otherFd = fds.mintControl(file);
  let last = otherFd;
  for (let count = 2; count < CONTROL_FDS_MAX; count++) {
    tree.acquire(file);
    last = fds.mintControl(file);
  }
  const owner = { uid: process.getuid!(), gid: process.getgid!() };
  const made = { fd, name: "made", mode: 0o100600, ...owner };
  const requests = new Map<number, Partial<Request>>([
    [Mid.MkdirAt, made],
    [Mid.MknodAt, made],
    [Mid.SymlinkAt, { ...made, otherName: "file" }],
    [Mid.LinkAt, { ...made, otherFd }],
    [Mid.OpenCreateAt, { ...made, flags: 2 }],
    [Mid.BindAt, { ...made, sockType: 1 }],
  ]);
  for (const [mid, fields] of requests) {
    t.equal(call(mid, fields), Errno.EMFILE, midName(mid));
    t.same(readdirSync(directory), ["file"], "nothing is there");
  }
  fds.close(last);
  t.ok(fdidOf(call(Mid.MkdirAt, made)) > 0, "with room again it is made");
  t.end();
});
