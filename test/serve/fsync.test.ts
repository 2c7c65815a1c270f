// FSync: what a client has synced is on the disk: each file of a request, whatever came of the one before it, and the names in a directory.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Test, test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { dispatch } from "../../lib/serve/dispatch.ts";
import { Connection } from "../../lib/serve/lisafs/connection.ts";
import { HostTree } from "../../lib/tree/host.ts";
import { Cursor } from "../../lib/wire/cursor.ts";
import { encodeRequest } from "../../lib/wire/lisafs/encode.ts";
import { Request } from "../../lib/wire/lisafs/message.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { ALONE, MemoryCommunicator } from "../suite/memory-communicator.ts";
import { temporary } from "../suite/served.ts";

const O_RDWR = 2;
const FIRST_FDID_OF_WALK = 3;

/** A client of a directory of the host that may be written to; `call` gives the payload of a reply, or its errno as a number. */
function clientOf(t: Test, directory: string) {
  const tree = HostTree.open(directory, { isReadOnly: false });
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
  const fdidIn = (reply: Buffer | number, at = 0) => {
    if (typeof reply === "number") throw new Error(`refused: ${reply}`);
    return Number(reply.readBigUInt64LE(at));
  };
  const root = fdidIn(call(Mid.Mount));
  return {
    tree,
    openRoot: () => fdidIn(call(Mid.OpenAt, { fd: root })),
    open(name: string): number {
      const walked = call(Mid.Walk, { fd: root, names: [name], nameCount: 1 });
      return fdidIn(call(Mid.OpenAt, { fd: fdidIn(walked, FIRST_FDID_OF_WALK), flags: O_RDWR }));
    },
    sync(...fds: number[]): number {
      const reply = call(Mid.FSync, { fds, fdCount: fds.length });
      return typeof reply === "number" ? reply : 0;
    },
  };
}

test("a directory is synced", (t) => {
  const directory = temporary(t);
  mkdirSync(join(directory, "d"));
  const own = clientOf(t, directory);
  t.equal(own.sync(own.openRoot()), 0);
  // No file of procfs can be synced, which its kernel says. Linux: fs/sync.c, vfs_fsync_range
  const proc = clientOf(t, "/proc/self/task");
  t.equal(proc.sync(proc.openRoot()), Errno.EINVAL, "the file system is asked");
  t.end();
});

test("all files of a request are synced, and its first error is the answer", (t) => {
  const directory = temporary(t);
  for (const name of ["a", "b", "c"]) writeFileSync(join(directory, name), name);
  const client = clientOf(t, directory);
  const opened = ["a", "b", "c"].map((name) => client.open(name));
  const handles: number[] = [];
  client.tree.fsync = (_ino, handle) => {
    handles.push(handle);
    return handles.length === 2 ? -Errno.EIO : 0;
  };
  t.equal(client.sync(99_999, ...opened), Errno.EBADF);
  t.equal(new Set(handles).size, 3, "the disk's error and the unknown FDID stopped none");
  handles.length = 0;
  t.equal(client.sync(...opened, 99_999), Errno.EIO);
  t.end();
});
