// A hostile 9P client: sizes, floods, silence and slowness. Whatever it does, others are served, nothing grows without bound, and what
// it may not have it doesn't get.

import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { NINEP_FIDS_MAX, NINEP_REFUSED_MAX, NINEP_SESSIONS_MAX } from "../../lib/base/limits.ts";
import { Type } from "../../lib/wire/ninep/type.ts";
import type { NinepClient } from "../suite/ninep-client.ts";
import { NinepScene } from "../suite/ninep-scene.ts";
import { noUpper } from "../suite/served.ts";
import { blockUntil } from "../suite/wait.ts";

const FILES = { "d/f": "content", large: Buffer.alloc(1 << 20, 7) };

function pumpUntil(scene: NinepScene, done: () => boolean): boolean {
  return blockUntil(() => {
    scene.pump();
    return done();
  });
}

/** That a client is served as if there were no other. */
function isServed(client: NinepClient, root: number): boolean {
  const fid = client.open(root, "d/f");
  const isRead = client.read(fid).toString() === FILES["d/f"];
  return isRead && client.clunk(fid) === 0;
}

test("a message of a size that can't be ends its connection and no other", (t) => {
  const scene = new NinepScene(t, { files: FILES });
  const { client: honest, root } = scene.client();
  for (const size of [0, 1, 4, 6, 65_537, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]) {
    const { client } = scene.client("view", 65_536);
    const bytes = Buffer.alloc(11);
    bytes.writeUInt32LE(size, 0);
    client.sendRaw(bytes);
    t.ok(
      pumpUntil(scene, () => !client.receive()),
      `size ${size}`,
    );
  }
  const early = scene.connect();
  const hello = Buffer.alloc(9000);
  hello.writeUInt32LE(9000, 0);
  early.sendRaw(hello);
  t.ok(
    pumpUntil(scene, () => !early.receive()),
    "nothing is large before a size is agreed upon",
  );
  t.ok(isServed(honest, root));
  t.equal(scene.loop.sessionCount, 1);
  t.end();
});

test("counts and lengths that lie are refused", (t) => {
  const { client, root } = new NinepScene(t, { files: FILES }).client("view", 4096);
  const tag = 77;
  const send = (type: number, body: Buffer) => {
    const head = Buffer.alloc(7);
    head.writeUInt32LE(7 + body.length, 0);
    head[4] = type;
    head.writeUInt16LE(tag, 5);
    client.sendRaw(Buffer.concat([head, body]));
    return client.await(tag).errno;
  };
  const walk = Buffer.alloc(10);
  walk.writeUInt32LE(root, 0);
  walk.writeUInt16LE(0xffff, 8);
  t.equal(send(Type.walk, walk), Errno.EPROTO, "65535 names and none");
  const write = Buffer.alloc(20);
  write.writeUInt32LE(0xffff_ffff, 12);
  t.equal(send(Type.write, write), Errno.EPROTO, "4 GiB in 4 bytes");
  const attach = Buffer.from([9, 0, 0, 0, 255, 255, 255, 255, 255, 255, 1, 2]);
  t.equal(send(Type.attach, attach), Errno.EPROTO, "a name of 64 KiB");
  const large = client.open(root, "large");
  t.equal(client.read(large, 0xffff_ffff).length, 4096 - 11, "a message at most");
  t.end();
});

test("a client that never reads its replies delays only itself", (t) => {
  const scene = new NinepScene(t, { files: FILES });
  const { client: honest, root } = scene.client();
  const { client, root: own } = scene.client("view", 1 << 20);
  const fid = client.open(own, "large");
  const request = client.encode(Type.read, 5, { fid, offset: 0, count: 1 << 20 });
  const { pump } = client;
  client.pump = undefined;
  let sent = 0;
  for (let idle = 0; idle < 50; ) {
    const isTaken = client.sendRaw(request);
    scene.pump();
    if (isTaken) sent++;
    else idle++;
  }
  client.pump = pump;
  t.ok(sent > 0 && sent < 100_000, `its requests back up after ${sent}`);
  t.ok(isServed(honest, root));
  t.end();
});

test("a client that never says its version is disconnected", (t) => {
  const scene = new NinepScene(t, { files: FILES, helloMs: 100 });
  const silent = scene.connect();
  silent.sendRaw(Buffer.from([19]));
  t.ok(pumpUntil(scene, () => !silent.receive()));
  t.equal(scene.loop.sessionCount, 0);
  t.end();
});

test("a slow client is waited for by nobody", (t) => {
  const scene = new NinepScene(t, { files: FILES });
  const { client: honest, root } = scene.client();
  const slow = scene.connect();
  const hello = slow.encode(Type.version, 0xffff, { count: 8192, name: "9P2000.L" });
  for (let i = 0; i < hello.length; i++) {
    t.equal(slow.take(0xffff), undefined);
    slow.sendRaw(hello.subarray(i, i + 1));
    if (!isServed(honest, root)) t.fail("the other waits");
  }
  t.ok(pumpUntil(scene, () => slow.has(0xffff)));
  t.end();
});

test("connections past the limit are refused, refused ones can't crowd it", (t) => {
  const scene = new NinepScene(t, { files: FILES });
  const refused = Array.from({ length: 20 }, () => scene.connect("a stranger"));
  scene.pump();
  t.equal(scene.loop.sessionCount, NINEP_REFUSED_MAX);
  t.equal(refused.filter((client) => !client.receive()).length, 20 - NINEP_REFUSED_MAX);
  const clients = Array.from({ length: NINEP_SESSIONS_MAX }, () => scene.client());
  t.ok(clients.every(({ client, root }) => isServed(client, root)));
  t.equal(scene.connect().receive(), false, "one more is disconnected");
  clients[0]!.client.close();
  t.ok(pumpUntil(scene, () => scene.loop.sessionCount < NINEP_REFUSED_MAX + NINEP_SESSIONS_MAX));
  const { client, root } = scene.client();
  t.ok(isServed(client, root), "there is room again");
  t.end();
});

test("a fid that is used again while a request by it waits stays the new file's", (t) => {
  const scene = new NinepScene(t, {
    files: { ...FILES, gone: "gone" },
    missing: ["gone"],
    missDeadlineMs: 200,
  });
  const { client, root } = scene.client();
  const fid = client.walk(root, "gone");
  const late = client.send(Type.lopen, { fid });
  t.equal(client.clunk(fid), 0);
  t.equal(client.call(Type.walk, { fid: root, otherFid: fid, names: ["d", "f"] }).errno, 0);
  t.ok(pumpUntil(scene, () => client.has(late)));
  t.equal(client.take(late)?.errno, Errno.EIO, "of the file that it was sent for");
  t.equal(client.call(Type.read, { fid, count: 9 }).errno, Errno.EBADF, "nothing was opened");
  t.equal(client.call(Type.lopen, { fid }).errno, 0);
  t.equal(client.read(fid).toString(), FILES["d/f"]);
  t.end();
});

test("fids are a client's own, and there is an end to them", (t) => {
  const scene = new NinepScene(t, { files: FILES });
  const { client: honest, root } = scene.client();
  const { client, root: own } = scene.client("view", 65_536);
  const secret = honest.open(root, "d/f");
  t.equal(client.call(Type.read, { fid: secret + 1000, count: 1 }).errno, Errno.EBADF);
  let errno = 0;
  let made = 0;
  while (errno === 0 && made <= NINEP_FIDS_MAX) {
    const tags = Array.from({ length: 256 }, () =>
      client.send(Type.walk, { fid: own, otherFid: client.nextFid(), names: ["d"] }),
    );
    for (const tag of tags) {
      const reply = client.await(tag);
      if (reply.errno === 0) made++;
      else errno = reply.errno;
    }
  }
  t.equal(errno, Errno.EMFILE);
  t.ok(made < NINEP_FIDS_MAX);
  t.ok(isServed(honest, root));
  t.equal(client.version(), "9P2000.L");
  t.ok(isServed(client, client.attach("view")), "Tversion frees them");
  t.end();
});

test("one client can't take all inodes of an upper", { skip: noUpper }, (t) => {
  const scene = new NinepScene(t, { upper: { sizeBytes: 1 << 26, inodes: 70_000 } });
  const { client: honest, root } = scene.client("tmp");
  const { client, root: own } = scene.client("tmp", 65_536);
  let failed = 0;
  let made = 0;
  for (; failed === 0 && made < 66_000; made++) {
    const fid = client.nextFid();
    const walked = client.call(Type.walk, { fid: own, otherFid: fid, names: [] }).errno;
    const create = { fid, name: `f${made}`, flags: 2, mode: 0o600 };
    failed = walked || client.call(Type.lcreate, create).errno;
  }
  t.equal(failed, Errno.EMFILE, `after ${made}`);
  const fid = honest.walk(root, "");
  t.equal(honest.call(Type.lcreate, { fid, name: "mine", flags: 2, mode: 0o600 }).errno, 0);
  t.end();
});

test("a client whose requests take long has fewer of them at a time", { skip: noUpper }, (t) => {
  const scene = new NinepScene(t);
  const { client, root } = scene.client("tmp");
  for (let i = 0; i < 3_000; i++)
    client.call(Type.symlink, { fid: root, name: `name${i}`, otherName: "x" });
  const directory = client.open(root, "");
  // From any other place than the last, a listing starts anew.
  const listings = Array.from({ length: 64 }, (_, i) =>
    client.encode(Type.readdir, i, { fid: directory, offset: 2_900 - i, count: 100 }),
  );
  client.sendRaw(Buffer.concat(listings));
  scene.pump();
  client.receive();
  t.ok(client.untaken < 64, `${client.untaken} in one turn`);
  t.ok(
    pumpUntil(scene, () => {
      client.receive();
      return client.untaken === 64;
    }),
  );
  t.end();
});

test("few FDs bound a writable view alone", { skip: noUpper }, (t) => {
  const scene = new NinepScene(t, { files: FILES, fdLimit: 1024 });
  const { client, root } = scene.client("view");
  for (let i = 0; i < 2_000; i++) {
    if (client.walk(root, "d/f") < 0) t.fail(`walk ${i}: Linux keeps a fid for each file`);
  }
  const tmp = client.attach("tmp");
  let made = 0;
  while (made < 1_000 && client.open(tmp, "") >= 0) made++;
  t.ok(made > 50 && made < 500, `${made} open directories`);
  t.end();
});

test("Tversion storms and attach storms leave nothing", (t) => {
  const scene = new NinepScene(t, { files: FILES });
  const { client } = scene.client();
  for (let i = 0; i < 2_000; i++) {
    client.version(i % 2 === 0 ? 4096 : 1 << 20);
    client.open(client.attach("view"), "large");
  }
  t.ok(isServed(client, client.attach("view")));
  t.equal(scene.loop.sessionCount, 1);
  t.end();
});

test("nothing that the server keeps for itself has a name in a view", (t) => {
  const { client, root } = new NinepScene(t, { files: FILES }).client();
  for (const name of ["cache", "mounts", "indexes", ".burrow", ".wh.d", ".wh..wh..opq"])
    t.equal(client.walk(root, name), -Errno.ENOENT, name);
  t.end();
});
