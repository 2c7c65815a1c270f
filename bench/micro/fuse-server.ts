// A server of the fuse bench: `node fuse-server.js WAY FOLDER FILE` serves a file as FOLDER/file, prints "mounted", and ends when it is
// unmounted.

import fs from "node:fs";
import { mountFuse } from "../../lib/daemon/fuse-mount.ts";
import { FuseSession } from "../../lib/daemon/fuse-session.ts";
import { native } from "../../lib/sys/native.ts";
import { loadFuse } from "../fuse-native.ts";

const [way, folder, path] = process.argv.slice(2) as [string, string, string];
const fd = fs.openSync(path, "r");
const { size } = fs.fstatSync(fd);

async function serveOurs(): Promise<void> {
  const facts = { node: 2, mode: 0o100444, size };
  const files = {
    lookup: (name: string) => (name === "file" ? facts : undefined),
    facts: () => facts,
    forget: () => undefined,
    read: (_node: number, offset: number, out: Uint8Array) =>
      fs.readSync(fd, out, 0, out.length, offset),
    fetch: async () => 0,
  };
  const session = new FuseSession(await mountFuse(folder), files, () => undefined);
  process.stdout.write("mounted\n");
  await session.ended;
  native.exitNow(0);
}

type Done = (errno: number, value?: unknown) => void;

function serveLibfuse(): void {
  const Fuse = loadFuse();
  const time = new Date(0);
  const stat = (mode: number, bytes: number) => ({
    ...{ mode, size: bytes, nlink: 1, uid: 0, gid: 0 },
    ...{ mtime: time, atime: time, ctime: time },
  });
  const handlers = {
    readdir: (_path: string, done: Done) => done(0, ["file"]),
    getattr: (name: string, done: Done) =>
      done(0, name === "/" ? stat(0o40755, 0) : stat(0o100444, size)),
    open: (_path: string, _flags: number, done: Done) => done(0, 1),
    read: (_p: string, _fd: number, out: Buffer, length: number, at: number, done: Done) =>
      done(fs.readSync(fd, out, 0, length, at)),
    release: (_path: string, _fd: number, done: Done) => done(0),
  };
  const options = { kernelCache: true, attrTimeout: 3600, entryTimeout: 3600, force: true };
  new Fuse(folder, handlers, options).mount((error: Error | null) => {
    if (error) throw error;
    process.stdout.write("mounted\n");
  });
}

if (way === "ours") await serveOurs();
else serveLibfuse();
