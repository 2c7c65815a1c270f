// The 9P door as its clients see it: a session of our own client over a socketpair. Errors first, then what works.

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { unixAddress } from "../../lib/sys/address.ts";
import { native } from "../../lib/sys/native.ts";
import { nextEvent } from "../../lib/sys/wait.ts";
import { NOFID, RLERROR, Type } from "../../lib/wire/ninep/type.ts";
import { NinepScene } from "../suite/ninep-scene.ts";
import { blockUntil } from "../suite/wait.ts";

const FILES = {
  "d/e/deep": "deep",
  "d/f": "content of f",
  l: "-> d/f",
  large: Buffer.alloc(100_000, "large "),
  empty: "",
};
const DIRECTORY = 0x80;
const SYMLINK = 0x02;

test("a client must say its version first, and 9P2000.L it must be", (t) => {
  const scene = new NinepScene(t, { files: FILES });
  const client = scene.connect();
  t.equal(client.call(Type.attach, { fid: 1, otherFid: NOFID }).errno, Errno.EPROTO);
  for (const legacy of ["9P2000", "9P2000.u", "9P2000.L2", "9p2000.L", ""]) {
    t.equal(client.version(8192, legacy), "unknown", `version "${legacy}"`);
    t.equal(client.call(Type.attach, { fid: 1, otherFid: NOFID }).errno, Errno.EPROTO);
  }
  t.match(scene.logged[0], /a client speaks 9P2000, this server 9P2000.L alone/);
  t.equal(scene.logged.length, 1, "it is said once a client");
  for (const size of [0, 1, 7, 4095]) {
    t.equal(client.version(size), `errno ${Errno.EINVAL}`, `msize ${size}`);
  }
  t.equal(client.version(4096), "9P2000.L");
  t.equal(client.msize, 4096);
  t.equal(client.version(2 ** 32 - 1), "9P2000.L");
  t.equal(client.msize, 1 << 20, "the server's own largest");
  t.equal(client.attach("none"), -Errno.ENOENT);
  t.ok(client.attach("view") > 0);
  t.ok(client.attach("/view") > 0);
  t.ok(client.attach("/") > 0);
  t.end();
});

test("fids are checked", (t) => {
  const { client, root } = new NinepScene(t, { files: FILES }).client();
  const errno = (type: number, fields = {}) => client.call(type, fields).errno;
  const requests = Object.values(Type).filter(
    (type) => ![Type.version, Type.auth, Type.attach, Type.flush].includes(type as never),
  );
  for (const type of requests) t.equal(errno(type, { fid: 7 }), Errno.EBADF, `type ${type}`);
  t.equal(errno(Type.attach, { fid: root, otherFid: NOFID }), Errno.EBADF, "in use");
  t.equal(errno(Type.attach, { fid: 9, otherFid: root }), Errno.EBADF, "nobody authenticates");
  t.equal(errno(Type.auth, { fid: 9 }), Errno.ENOENT);
  const f = client.walk(root, "d/f");
  t.equal(errno(Type.walk, { fid: root, otherFid: f, names: ["d"] }), Errno.EBADF, "in use");
  t.equal(errno(Type.read, { fid: f, count: 1 }), Errno.EBADF, "not open");
  t.equal(errno(Type.readdir, { fid: f, count: 100 }), Errno.ENOTDIR);
  t.equal(errno(Type.lopen, { fid: f }), 0);
  t.equal(errno(Type.lopen, { fid: f }), Errno.EINVAL, "open already");
  t.equal(errno(Type.walk, { fid: f, otherFid: f }), Errno.EINVAL, "an open fid stays");
  t.equal(client.clunk(f), 0);
  t.equal(client.clunk(f), -Errno.EBADF);
  t.equal(errno(Type.read, { fid: f, count: 1 }), Errno.EBADF);
  t.end();
});

test("walks end where a name ends them", (t) => {
  const { client, root } = new NinepScene(t, { files: FILES }).client();
  const walk = (names: string[], otherFid = 50) =>
    client.call(Type.walk, { fid: root, otherFid, names });
  t.equal(walk(["none"]).errno, Errno.ENOENT);
  t.equal(walk(["d", "none", "x"]).body.readUInt16LE(0), 1, "as far as it came");
  t.equal(client.clunk(50), -Errno.EBADF, "and newfid is none");
  t.equal(walk(["l", "x"]).body.readUInt16LE(0), 1, "symlinks are the client's to follow");
  for (const bad of ["a/b", "", "a\0b"]) t.equal(walk([bad]).errno, Errno.EINVAL);
  t.equal(walk(["x".repeat(256)]).errno, Errno.ENAMETOOLONG);
  t.equal(walk(["x".repeat(255)]).errno, Errno.ENOENT);
  t.equal(walk(Array.from({ length: 17 }, () => "..")).errno, Errno.EINVAL, "17 names");
  const up = Array.from({ length: 16 }, () => "..");
  t.equal(walk(up, 60).errno, 0);
  t.equal(client.getattr(60).qid.path, client.getattr(root).qid.path, "no way out");
  const deep = client.walk(root, "d/e/deep");
  const same = client.walk(deep, "../../../d/./f");
  t.equal(client.getattr(same).size, 12);
  t.equal(client.walk(root, "") > 0, true, "a clone");
  t.end();
});

test("files, directories and links are read", (t) => {
  const { client, root } = new NinepScene(t, { files: FILES }).client("view", 8192);
  t.equal(client.readAll(client.open(root, "large")).equals(FILES.large), true);
  t.equal(client.read(client.open(root, "empty")).length, 0);
  const f = client.open(root, "d/f");
  t.equal(client.read(f, 4, 8).toString(), "of f");
  t.equal(client.read(f, 4, 12).length, 0);
  t.equal(client.read(f, 0xffff_ffff, 0).toString(), FILES["d/f"], "as much as a message takes");
  t.equal(client.call(Type.read, { fid: f, offset: -1, count: 1 }).errno, Errno.EINVAL);
  const { mode, size, valid, qid, nlink, mtimeSec, mtimeNs } = client.getattr(f);
  t.strictSame(
    { mode, size, valid, nlink, mtimeSec, mtimeNs },
    { mode: 0o100644, size: 12, valid: 0x7ffn, nlink: 1, mtimeSec: 1_700_000_000, mtimeNs: 5 },
  );
  t.not(qid.version, 0, "Linux would not keep it in its cache");
  const l = client.walk(root, "l");
  t.equal(client.getattr(l).qid.type, SYMLINK);
  t.equal(client.call(Type.readlink, { fid: l }).body.toString("latin1", 2), "d/f");
  t.equal(client.call(Type.readlink, { fid: root }).errno, Errno.EINVAL);
  t.equal(client.call(Type.lopen, { fid: l }).errno, Errno.ELOOP);
  const top = client.walk(root, "");
  t.equal(client.call(Type.lopen, { fid: top, flags: 1 }).errno, Errno.EROFS);
  t.equal(client.call(Type.lopen, { fid: top }).errno, 0);
  t.equal(client.getattr(top).qid.type, DIRECTORY);
  const names = [".", "..", "d", "empty", "l", "large"];
  t.strictSame(client.list(top), names);
  t.strictSame(client.list(top, 30), names, "one at a time");
  t.strictSame(client.list(top), names, "and again");
  t.equal(client.readdir(top, 0, 10), -Errno.EINVAL, "no room for one, which isn't the end");
  const third = client.readdir(top, 3);
  t.equal(typeof third !== "number" && third[0]!.name, "empty", "from any offset");
  t.strictSame(client.readdir(top, 2 ** 40), []);
  const statfs = client.call(Type.statfs, { fid: top });
  t.equal(statfs.body.readUInt32LE(0), 0x0102_1997);
  t.end();
});

test("a read-only view refuses every change", (t) => {
  const { client, root } = new NinepScene(t, { files: FILES }).client();
  const f = client.walk(root, "d/f");
  for (const [type, fields] of [
    [Type.lcreate, { fid: root, name: "n" }],
    [Type.mkdir, { fid: root, name: "n" }],
    [Type.mknod, { fid: root, name: "n" }],
    [Type.symlink, { fid: root, name: "n", otherName: "t" }],
    [Type.link, { fid: root, otherFid: f, name: "n" }],
    [Type.rename, { fid: f, otherFid: root, name: "n" }],
    [Type.renameat, { fid: root, name: "l", otherFid: root, otherName: "n" }],
    [Type.unlinkat, { fid: root, name: "l" }],
    [Type.setattr, { fid: f, mask: 1, mode: 0o600 }],
    [Type.xattrcreate, { fid: f, name: "user.x", length: 1 }],
    [Type.lopen, { fid: f, flags: 0o1000 }],
    [Type.remove, { fid: f }],
  ] as const) {
    t.equal(client.call(type, fields).errno, Errno.EROFS, `type ${type}`);
  }
  t.equal(client.clunk(f), -Errno.EBADF, "remove clunks whatever comes of it");
  t.end();
});

test("what is no request is refused and the session goes on", (t) => {
  const { client, root } = new NinepScene(t, { files: FILES }).client();
  const tag = client.nextTag();
  const raw = (type: number, ...body: number[]) => {
    const bytes = Buffer.from([0, 0, 0, 0, type, 0, 0, ...body]);
    bytes.writeUInt32LE(bytes.length, 0);
    bytes.writeUInt16LE(tag, 5);
    client.sendRaw(bytes);
    return client.await(tag);
  };
  t.equal(raw(200).errno, Errno.EOPNOTSUPP);
  t.equal(raw(112, 1, 0, 0, 0, 0).errno, Errno.EOPNOTSUPP, "9P2000's own Topen");
  t.equal(raw(Type.clunk, 1).errno, Errno.EPROTO, "short");
  t.equal(raw(Type.clunk, 1, 0, 0, 0, 9).errno, Errno.EPROTO, "long");
  t.equal(raw(RLERROR, 1, 0, 0, 0).errno, Errno.EOPNOTSUPP, "a reply");
  t.equal(client.call(Type.getattr, { fid: root }).errno, 0);
  t.end();
});

test("pipelined requests are answered each by its tag", (t) => {
  const { client, root } = new NinepScene(t, { files: FILES }).client();
  const large = client.open(root, "large");
  const tags = Array.from({ length: 500 }, (_, i) =>
    client.send(Type.read, { fid: large, offset: i * 100, count: 100 }),
  );
  for (const [i, tag] of tags.entries()) {
    const { body } = client.await(tag);
    const wanted = FILES.large.subarray(i * 100, i * 100 + 100);
    if (!body.subarray(4).equals(wanted)) t.fail(`read ${i}`);
  }
  t.equal(client.untaken, 0);
  t.end();
});

test("who is refused hears of it", (t) => {
  const scene = new NinepScene(t);
  const client = scene.connect("user 12 is not among those allowed");
  t.equal(client.version(), `errno ${Errno.EACCES}`);
  scene.pump();
  t.equal(client.receive(), false, "and is disconnected");
  t.equal(scene.loop.sessionCount, 0);
  t.match(scene.logged[0], /a client is refused: user 12/);
  t.end();
});

test("a client for whom there is no FD waits, and so does the server", (t) => {
  const scene = new NinepScene(t, { files: FILES });
  const path = join(scene.directory, "9p.sock");
  const listener = native.listenAt(unixAddress(path)!);
  t.equal(scene.loop.listen(listener), 0);
  const peer = native.connectUnix(path);
  t.ok(peer >= 0);
  const most = native.setNoFile(1_048_576);
  native.setNoFile(Math.max(...readdirSync("/proc/self/fd").map(Number)) + 20);
  const taken: number[] = [];
  for (let fd = 0; fd >= 0; taken.push(fd)) fd = native.openAt(-1, "/dev/null", 0, 0);
  t.equal(taken.pop(), -Errno.EMFILE);
  scene.pump();
  t.equal(nextEvent(-1, 0, 0), -Errno.ETIMEDOUT, "it doesn't hear of the same again and again");
  t.equal(scene.loop.sessionCount, 0);
  for (const fd of taken) native.closeFd(fd);
  native.setNoFile(most);
  const isServed = () => {
    scene.pump();
    return scene.loop.sessionCount === 1;
  };
  t.ok(blockUntil(isServed), "some time later there is");
  native.closeFd(peer);
  t.ok(
    blockUntil(() => {
      scene.pump();
      return scene.loop.sessionCount === 0;
    }),
  );
  t.end();
});
