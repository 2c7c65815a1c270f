// Owns: proof that who watches the start of a view hears what the daemon does for it, its owner alone, and no more than is taken.
// Plane: control.

import net from "node:net";
import { type Test, test } from "tap";
import { encodeBare, encodeHello, FRAME_BYTES, Frame } from "../../lib/cache/mailbox-wire.ts";
import { openSocketName } from "../../lib/cache/socket-name.ts";
import { TraceWatch } from "../../lib/cli/trace-watch.ts";
import { type TraceEvent, Tracing } from "../../lib/daemon/tracing.ts";
import { monotonicMs } from "../../lib/sys/clock.ts";
import { noise, type TestNode } from "../suite/daemon-node.ts";
import { scene } from "../suite/daemon-scene.ts";
import { temporary } from "../suite/served.ts";
import { until } from "../suite/wait.ts";

const FILES = { one: noise(5_000, 1), two: noise(6_000, 2) };

test("who watches hears of requests and of what came along", async (t) => {
  for (const profiles of [true, false]) {
    const { node, server, published, mountId } = await scene(t, FILES);
    await node.start({ profiles });
    const startMs = monotonicMs();
    const watch = await TraceWatch.open(node.cache, mountId);
    t.same(watch.origins, [server.url]);
    const client = await node.connect(mountId);
    await client.askBlob(0, published.row("one"));
    await node.settled();
    await watch.end();
    const endMs = monotonicMs();
    t.equal(watch.dropped, 0);
    const fetches = watch.events.filter((event) => event.kind === "fetch");
    const packs = fetches.filter(({ path }) => path.startsWith("packs/"));
    t.match(packs, [{ origin: 0, isDemand: true, path: /^packs\/\w\w\/\w{64}$/ }]);
    t.ok(packs[0]!.bytes >= 11_000 && packs[0]!.startMs >= startMs && packs[0]!.endMs <= endMs);
    const along = watch.events.filter((event) => event.kind === "prefetch");
    t.match(along, [{ blob: published.refs.get("two")!.digest, piece: 0, bytes: 6_000 }]);
    client.close();
  }
});

/** A connection that sends frames, and whether it was closed for them. */
async function sent(t: Test, node: TestNode, ...frames: readonly Buffer[]): Promise<() => boolean> {
  const { name, close } = openSocketName(node.cache);
  const socket = net.connect(name).on("error", () => undefined);
  t.teardown(() => socket.destroy());
  await new Promise((resolve) => socket.once("connect", resolve));
  close();
  socket.resume();
  socket.write(Buffer.concat(frames));
  return () => socket.destroyed;
}

test("who named no mount is not told", async (t) => {
  const { node } = await scene(t, FILES);
  await node.start();
  const frame = Buffer.alloc(FRAME_BYTES);
  encodeBare(frame, Frame.trace, 1);
  t.ok(await until(await sent(t, node, frame)));
  const hello = Buffer.alloc(64);
  const bytes = encodeHello(hello, 0, "none");
  t.ok(
    await until(await sent(t, node, hello.subarray(0, bytes), frame)),
    "nor who named none that is",
  );
});

test("a daemon that doesn't know how to tell is no reason to wait", async (t) => {
  const folder = temporary(t);
  const server = net.createServer((socket) => {
    socket.on("error", () => undefined).once("data", () => socket.destroy());
  });
  await new Promise<void>((resolve) => server.listen(`${folder}/daemon.sock`, resolve));
  t.teardown(() => server.close());
  const watch = await TraceWatch.open(folder, "mount");
  t.notOk(watch.isHeard);
  await watch.end();
  t.same(watch.events, []);
});

test("a watcher who takes nothing has it counted, and one of others hears nothing", async (t) => {
  const tracing = new Tracing();
  const heard: TraceEvent[] = [];
  const deaf = tracing.watch("view", ["/store"], () => false);
  const other = tracing.watch("other", ["/elsewhere"], (events) => heard.push(...events) > 0);
  const request = { path: `a/${"x".repeat(500)}`, isDemand: true, startMs: 0, bytes: 1 };
  for (let i = 0; i < 250; i++)
    tracing.requested({ ...request, origin: "/store", range: { offset: i, length: 1 } });
  tracing.brought("view", "00" as never, 0, 1);
  deaf.flush();
  other.flush();
  t.equal(deaf.dropped, 251);
  t.same(heard, []);
  tracing.requested({ ...request, origin: "/elsewhere", range: undefined });
  other.flush();
  t.match(heard, [{ kind: "fetch", offset: 0, bytes: 1 }]);
  t.equal((heard[0] as { path: string }).path.length, 200);
  tracing.stop("other", other);
  tracing.requested({ ...request, origin: "/elsewhere", range: undefined });
  other.flush();
  t.equal(heard.length, 1);
});
