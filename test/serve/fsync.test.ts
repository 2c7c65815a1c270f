// FSync: what a client has synced is on the disk: each file of a request, once, whatever came of the one before it, and the names in a
// directory.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { fdidIn, hostClient, type MemoryClient } from "../suite/memory-client.ts";
import { temporary } from "../suite/served.ts";

const O_RDWR = 2;
const FIRST_FDID_OF_WALK = 3;

function open(client: MemoryClient, name: string): number {
  const walked = client.call(Mid.Walk, { fd: client.root, names: [name] });
  return fdidIn(client.call(Mid.OpenAt, { fd: fdidIn(walked, FIRST_FDID_OF_WALK), flags: O_RDWR }));
}

const openRoot = (client: MemoryClient) => fdidIn(client.call(Mid.OpenAt, { fd: client.root }));

function sync(client: MemoryClient, ...fds: number[]): number {
  const reply = client.call(Mid.FSync, { fds });
  return typeof reply === "number" ? reply : 0;
}

test("a directory is synced", (t) => {
  const directory = temporary(t);
  mkdirSync(join(directory, "d"));
  const { client: own } = hostClient(t, directory);
  t.equal(sync(own, openRoot(own)), 0);
  // No file of procfs can be synced, which its kernel says. Linux: fs/sync.c, vfs_fsync_range
  const { client: proc } = hostClient(t, "/proc/self/task");
  t.equal(sync(proc, openRoot(proc)), Errno.EINVAL, "the file system is asked");
  t.end();
});

test("all files of a request are synced, and its first error is the answer", (t) => {
  const directory = temporary(t);
  for (const name of ["a", "b", "c"]) writeFileSync(join(directory, name), name);
  const { tree, client } = hostClient(t, directory);
  const opened = ["a", "b", "c"].map((name) => open(client, name));
  const handles: number[] = [];
  tree.fsync = (_ino, handle) => {
    handles.push(handle);
    return handles.length === 2 ? -Errno.EIO : 0;
  };
  t.equal(sync(client, 99_999, ...opened), Errno.EBADF);
  t.equal(new Set(handles).size, 3, "the disk's error and the unknown FDID stopped none");
  handles.length = 0;
  t.equal(sync(client, ...opened, 99_999), Errno.EIO);
  t.end();
});

test("a file that a request names 65,535 times is synced once", (t) => {
  const directory = temporary(t);
  for (const name of ["a", "b"]) writeFileSync(join(directory, name), name);
  const { tree, client } = hostClient(t, directory);
  const [a = 0, b = 0] = ["a", "b"].map((name) => open(client, name));
  const root = openRoot(client);
  const synced: string[] = [];
  tree.fsync = (_ino, handle) => {
    synced.push(`file ${handle}`);
    return -Errno.EIO;
  };
  tree.fsyncdir = (_ino, handle) => {
    synced.push(`directory ${handle}`);
    return 0;
  };
  const fds = Array.from({ length: 65_535 }, (_, i) => [root, a, b, 99_999][i % 4]!);
  t.equal(sync(client, ...fds), Errno.EIO);
  t.equal(synced.length, 3, "each of the three that are open");
  t.equal(new Set(synced).size, 3);
  synced.length = 0;
  sync(client, a);
  t.equal(synced.length, 1, "and again by the next request");
  t.end();
});
