// 9P requests whose bytes are not on this node wait without holding up those behind them; flush takes them back; they are EIO at their
// deadline. There is no daemon here, but for the one test that plays it.

import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { NINEP_PARKED_MAX } from "../../lib/base/limits.ts";
import { nextEvent } from "../../lib/sys/wait.ts";
import { Type } from "../../lib/wire/ninep/type.ts";
import { NinepScene } from "../suite/ninep-scene.ts";
import { playDaemon } from "../suite/played-daemon.ts";
import { putBlob } from "../suite/view-cache.ts";
import { blockUntil, until } from "../suite/wait.ts";

const FILES = { here: "here", gone: "gone", other: "other" };
const MISSING = ["gone", "other"];

test("a miss is EIO at its deadline, and what is behind it is answered before", (t) => {
  const scene = new NinepScene(t, { files: FILES, missing: MISSING, missDeadlineMs: 300 });
  const { client, root } = scene.client();
  const gone = client.walk(root, "gone");
  const start = performance.now();
  const tag = client.send(Type.lopen, { fid: gone });
  t.equal(client.read(client.open(root, "here")).toString(), "here", "others go on");
  t.equal(client.take(tag), undefined, "it still waits");
  const duplicate = client.send(Type.getattr, { fid: root }, tag);
  t.equal(client.await(duplicate).errno, Errno.EINVAL, "its tag is taken");
  t.ok(
    blockUntil(() => {
      scene.pump();
      return client.receive() && client.untaken > 0;
    }),
  );
  t.equal(client.take(tag)?.errno, Errno.EIO);
  t.ok(performance.now() - start >= 295);
  t.end();
});

test("a flushed request is answered no more, and its tag is free after Rflush", (t) => {
  const scene = new NinepScene(t, { files: FILES, missing: MISSING });
  const { client, root } = scene.client();
  const gone = client.walk(root, "gone");
  const tag = client.send(Type.lopen, { fid: gone });
  t.equal(client.call(Type.flush, { otherTag: tag }).errno, 0);
  t.equal(client.take(tag), undefined);
  t.equal(client.await(client.send(Type.getattr, { fid: root }, tag)).errno, 0, "used again");
  // One that was answered before the flush came is just answered: its reply is first.
  const done = client.encode(Type.getattr, 0x111, { fid: root });
  const flush = client.encode(Type.flush, 0x112, { otherTag: 0x111 });
  client.sendRaw(Buffer.concat([done, flush]));
  client.await(0x112);
  t.equal(client.take(0x111)?.errno, 0);
  t.equal(client.call(Type.flush, { otherTag: 0x7777 }).errno, 0, "of no request");
  t.end();
});

test("Tversion in mid-flight ends all that is under way", (t) => {
  const scene = new NinepScene(t, { files: FILES, missing: MISSING, missDeadlineMs: 100 });
  const { client, root } = scene.client();
  const gone = client.walk(root, "gone");
  const tags = [0, 1, 2].map(() => client.send(Type.lopen, { fid: gone }));
  t.equal(client.version(4096), "9P2000.L");
  t.equal(client.call(Type.getattr, { fid: root }).errno, Errno.EBADF, "no fid is left");
  const end = performance.now() + 200;
  blockUntil(() => {
    scene.pump();
    return performance.now() > end;
  });
  for (const tag of tags) t.equal(client.take(tag), undefined, "nor is any answered");
  t.ok(client.attach() > 0);
  t.end();
});

test("more misses than may wait are not read until one is done; a flush storm frees them", (t) => {
  const scene = new NinepScene(t, { files: FILES, missing: MISSING, missDeadlineMs: 200 });
  const { client, root } = scene.client();
  const fids = Array.from({ length: 3 * NINEP_PARKED_MAX }, () => client.walk(root, "gone"));
  const tags = fids.map((fid) => client.send(Type.lopen, { fid }));
  const last = client.send(Type.getattr, { fid: root });
  for (let i = 0; i < 20; i++) scene.pump();
  t.equal(client.take(last), undefined, "it is behind them");
  const { client: other, root: otherRoot } = scene.client();
  t.equal(other.getattr(otherRoot).mode, 0o040755, "another client isn't");
  const flushes = tags.map((otherTag) => client.send(Type.flush, { otherTag }));
  t.ok(
    blockUntil(() => {
      scene.pump();
      return [last, ...flushes].every((tag) => client.has(tag));
    }),
    "every flush is answered",
  );
  t.equal(client.take(last)?.errno, 0);
  for (const flush of flushes) t.equal(client.take(flush)?.errno, 0);
  t.end();
});

test("what a client sends that has all its places taken wakes nobody", (t) => {
  const scene = new NinepScene(t, { files: FILES, missing: MISSING });
  const { client, root } = scene.client();
  const fids = Array.from({ length: NINEP_PARKED_MAX + 1 }, () => client.walk(root, "gone"));
  for (const fid of fids) client.send(Type.lopen, { fid });
  for (let i = 0; i < 20; i++) scene.pump();
  client.send(Type.getattr, { fid: root });
  for (let i = 0; i < 3; i++) scene.pump();
  t.equal(nextEvent(-1, 0, 0), -Errno.ETIMEDOUT, "the server sleeps");
  t.end();
});

test("a client that is gone takes its waiting requests with it", (t) => {
  const scene = new NinepScene(t, { files: FILES, missing: MISSING });
  const { client, root } = scene.client();
  client.send(Type.lopen, { fid: client.walk(root, "gone") });
  scene.pump();
  client.close();
  t.ok(
    blockUntil(() => {
      scene.pump();
      return scene.loop.sessionCount === 0;
    }),
  );
  t.end();
});

test("requests are answered when the daemon has brought their blob, and EIO when it can't", async (t) => {
  const scene = new NinepScene(t, { files: FILES, missing: MISSING });
  const { client, root } = scene.client();
  // It has no bytes for the first ask and brings them for the next.
  let asks = 0;
  const server = await playDaemon(scene.directory, () => {
    if (asks++ === 0) return Errno.EIO;
    putBlob(scene.directory, FILES.gone);
    return 0;
  });
  t.teardown(() => {
    server.close();
  });
  const answers = async (tags: number[]) => {
    await until(() => {
      scene.pump();
      client.receive();
      return client.untaken >= tags.length;
    });
    return tags.map((tag) => client.take(tag)?.errno);
  };
  const fids = [0, 1, 2].map(() => client.walk(root, "gone"));
  const first = client.send(Type.lopen, { fid: fids[0]! });
  t.strictSame(await answers([first]), [Errno.EIO]);
  const both = fids.slice(1).map((fid) => client.send(Type.lopen, { fid }));
  t.strictSame(await answers(both), [0, 0]);
  t.equal(client.read(fids[1]!).toString(), "gone");
});
