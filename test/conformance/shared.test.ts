// Owns: a shared server with real stubs and a broker: that sandboxes of one tenant have one server and nothing of each other, that what
// happens to one of them or to the server stays within what docs/design/0025 says, and who gets a server of his own. Plane: control.
import { readdirSync } from "node:fs";
import { constants } from "node:os";
import t, { type Test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { Role, sendAdopt } from "../../lib/gofer/adopt.ts";
import { WRITERS } from "../../lib/gofer/harden.ts";
import { Count } from "../../lib/serve/counters.ts";
import { native } from "../../lib/sys/native.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { writeMount } from "../suite/gofer-process.ts";
import { checkHardened } from "../suite/hardened.ts";
import * as calls from "../suite/lisafs-calls.ts";
import type { LisafsClient } from "../suite/lisafs-client.ts";
import { temporary } from "../suite/served.ts";
import { noShared, SharedScene, type SharedStub } from "../suite/shared-scene.ts";
import { until } from "../suite/wait.ts";

if (noShared) {
  t.pass("skipped", { skip: noShared });
  process.exit(0);
}

const { O_RDWR } = constants as unknown as { O_RDWR?: number } & typeof constants;
const READ_WRITE = O_RDWR ?? 2;
const isOwn = ({ children }: SharedStub) => children.length > 0;

/** A file in an upper with this content: FDIDs of its inode and of it, open. */
function create(client: LisafsClient, name: string, content: string): [number, number] {
  const fields = { fd: client.rootFd, name, mode: 0o600, flags: READ_WRITE };
  const { payload, fds } = calls.must(client, Mid.OpenCreateAt, fields);
  client.takeBack(fds);
  const [inode, open] = [Number(payload.readBigUInt64LE(0)), Number(payload.readBigUInt64LE(152))];
  calls.write(client, open, 0, Buffer.from(content));
  return [inode, open];
}

const text = (client: LisafsClient, open: number) =>
  calls.read(client, open, 0, 100).toString("latin1");

/** A scene with a broker, a server to be had, and two sandboxes of one tenant on it. */
async function withTwo(t: Test): Promise<{
  scene: SharedScene;
  server: Awaited<ReturnType<SharedScene["startStandby"]>>;
  stubs: [SharedStub, SharedStub];
}> {
  const scene = new SharedScene(t, { hello: "world", "lib/a.py": "a" });
  const [, server] = await Promise.all([scene.startBroker(), scene.startStandby()]);
  const first = await scene.startStub();
  const second = await scene.startStub();
  t.same([first, second].map(isOwn), [false, false], `${first.log}${second.log}`);
  return { scene, server, stubs: [first, second] };
}

t.test("two sandboxes have one server, hardened, and nothing of each other", async (t) => {
  const { scene, server, stubs } = await withTwo(t);
  const [first, second] = stubs;
  const pids = stubs.map(({ pid }) => pid);
  t.same(await scene.serversOf(2), [{ tenant: "acme", pid: server.pid, stubs: pids }]);
  checkHardened(t, server.pid!, WRITERS);
  const [ours, theirs] = [first.clients[1]!, second.clients[1]!];
  const [inode, open] = create(ours, "secret", "canary");
  t.equal(text(ours, open), "canary");
  t.equal(calls.errnoOf(theirs, Mid.Walk, { fd: theirs.rootFd, names: ["secret"] }), 0);
  t.equal(calls.walk(theirs, theirs.rootFd, "secret").inodes.length, 0, "names are each one's own");
  for (let fd = 0; fd <= open + 8; fd++) {
    if (fd === theirs.rootFd) continue;
    t.equal(calls.errnoOf(theirs, Mid.PRead, { fd, offset: 0, count: 10 }), Errno.EBADF, `${fd}`);
    t.equal(calls.errnoOf(theirs, Mid.OpenAt, { fd, flags: 0 }), Errno.EBADF, `FDID ${fd}`);
  }
  t.equal(calls.errnoOf(theirs, Mid.Close, { fds: [inode, open], fdCount: 2 }), 0);
  t.equal(text(ours, open), "canary", "what one closes is its own");
  const before = second.counters[Mid.FStat]!;
  for (let i = 0; i < 5; i++) calls.stat(first.clients[0]!, first.clients[0]!.rootFd);
  t.equal(second.counters[Mid.FStat], before, "what one asks counts for it alone");
  t.equal(first.counters[Count.connections], 2);
  t.equal(await first.end(), 0, "the stub ends with its own sandbox");
  t.equal(calls.errnoOf(theirs, Mid.FStat, { fd: theirs.rootFd }), 0, "the other goes on");
  t.equal((await scene.serversOf(1))[0]!.stubs.length, 1, "the broker knows");
  await until(() => scene.told.figures?.sandboxes === 1);
  t.same(scene.told.figures, { servers: 1, sandboxes: 1, placed: 2, refused: 0 }, "and tells");
});

t.test("each upper has its own quota, and is freed with its sandbox", async (t) => {
  const scene = new SharedScene(t, { hello: "world" });
  const [, server] = await Promise.all([scene.startBroker(), scene.startStandby()]);
  const keeper = await scene.startStub();
  const openFiles = () => readdirSync(`/proc/${server.pid}/fd`).length;
  const before = openFiles();
  const stub = await scene.startStub({}, [scene.upper({ sizeBytes: 8192, inodes: 4 })]);
  const client = stub.clients[1]!;
  const [, open] = create(client, "full", "");
  const data = Buffer.alloc(8192);
  t.equal(calls.write(client, open, 0, data), data.length);
  const more = calls.errnoOf(
    client,
    Mid.PWrite,
    { fd: open, offset: 8192, count: 1 },
    data.subarray(0, 1),
  );
  t.equal(more, Errno.ENOSPC);
  const [, other] = create(keeper.clients[1]!, "room", "here");
  t.equal(text(keeper.clients[1]!, other), "here");
  const opened = openFiles();
  t.equal(await stub.end(), 0);
  // Its place among the uppers goes with it; the keeper's new file has two.
  t.ok(await until(() => openFiles() < before + 2), `${before} ${opened} ${openFiles()}`);
});

t.test("what breaks the protocol ends its own connection alone", async (t) => {
  const { stubs } = await withTwo(t);
  const [hostile, other] = stubs;
  const [root, upper] = hostile.clients as [LisafsClient, LisafsClient];
  for (let i = 0; i < 200; i++) {
    root.callRaw(i % 40, Buffer.alloc(i * 7, i));
    upper.callRaw(i % 40, Buffer.alloc(i * 7, 255 - i));
  }
  upper.socket.send(Buffer.alloc(8, 0xff)); // more than a message may have
  root.channels[0]!.transactRaw(0xffffffff);
  const [view] = other.clients as [LisafsClient, LisafsClient];
  const { hostFd } = calls.open(view, calls.walkTo(view, "hello"));
  t.equal(String(calls.contentOf(hostFd)), "world", "the other opens files");
  view.takeBack([hostFd]);
  t.same([hostile, other].map(isOwn), [false, false], "the server lives");
});

t.test("killed, it is replaced by a server of each sandbox's own", async (t) => {
  const { scene, server, stubs } = await withTwo(t);
  const opens = stubs.map(({ clients }, i) => create(clients[1]!, "kept", `of ${i}`)[1]);
  await scene.startStandby(); // for the broker, which must not be asked
  server.kill("SIGKILL");
  for (const [i, { clients }] of stubs.entries()) {
    t.equal(text(clients[1]!, opens[i]!), `of ${i}`, "what was open is");
    t.equal(calls.walk(clients[0]!, clients[0]!.rootFd, "hello").inodes.length, 1);
  }
  t.same(stubs.map(isOwn), [true, true], "who ended it ends no other's again");
  t.ok(await until(() => scene.servers.length === 0), "the broker has forgotten it");
  t.same(await Promise.all(stubs.map((stub) => stub.end())), [0, 0]);
});

t.test(
  "relieved of one sandbox (SIGHUP) it leaves all as it is to a server of that one's",
  async (t) => {
    const { scene, stubs } = await withTwo(t);
    const [first, second] = stubs;
    const opens = stubs.map(({ clients }, i) => create(clients[1]!, "kept", `of ${i}`)[1]);
    first.child.kill("SIGHUP");
    t.ok(await until(() => scene.servers[0]!.stubs.length === 1), first.log);
    t.equal(text(first.clients[1]!, opens[0]!), "of 0", "over the same channel");
    t.equal(text(second.clients[1]!, opens[1]!), "of 1");
    t.same(stubs.map(isOwn), [true, false]);
    t.same(await Promise.all(stubs.map((stub) => stub.end())), [0, 0]);
  },
);

t.test("where few files may be open fewer share, and the log of who doesn't says so", async (t) => {
  const scene = new SharedScene(t, { hello: "world" });
  await Promise.all([scene.startBroker(30, 4096), scene.startStandby()]);
  const stubs = [await scene.startStub(), await scene.startStub()];
  t.same(stubs.map(isOwn), [false, true]);
  const lack =
    /no standby, and a server that may have 4096 files open has room for 1 writable mount/;
  t.match(stubs[1]!.log, lack);
  await scene.startStandby();
  t.notOk(isOwn(await scene.startStub()), "a standby takes the next");
});

t.test("another tenant gets another server; who finds none has its own", async (t) => {
  const { scene } = await withTwo(t);
  const alone = await scene.startStub({ BURROW_TENANT: "other" });
  t.ok(isOwn(alone), "no standby is left");
  t.match(alone.log, /shares no server: no standby/);
  const server = await scene.startStandby();
  const third = await scene.startStub({ BURROW_TENANT: "other" });
  t.notOk(isOwn(third));
  const theirs = (await scene.serversOf(3)).find(({ tenant }) => tenant === "other");
  t.same(theirs, { tenant: "other", pid: server.pid, stubs: [third.pid] });
});

t.test("who waited for a standby that ends is told, too", async (t) => {
  const scene = new SharedScene(t, { hello: "world" });
  const [, standby] = await Promise.all([scene.startBroker(), scene.startStandby()]);
  standby.kill("SIGSTOP"); // as one that is another's already: it takes the SHARE, and never is ready
  const stub = await scene.startStub();
  t.ok(isOwn(stub), "it waits no longer than a second");
  standby.kill("SIGKILL");
  const why = /shares no server: its server ended before it was ready/;
  t.ok(await until(() => why.test(stub.log)), stub.log);
  t.equal(await stub.end(), 0);
});

t.test("who may not share has a server of its own, and its log says why", async (t) => {
  const scene = new SharedScene(t, { hello: "world" });
  await Promise.all([scene.startBroker(), scene.startStandby()]);
  const host = { destination: "/host", source: temporary(t) };
  const passing = await scene.startStub({}, [host]);
  t.match(passing.log, /passes a directory of the host through/);
  const cases: [Record<string, string>, RegExp][] = [
    [{ BURROW_HARDEN: "log" }, /hardened less/],
    [{ BURROW_TENANT: "" }, /is no tenant/],
    [{ BURROW_SHARED: "0" }, /doesn't ask/],
  ];
  for (const [env, why] of cases) {
    const stub = await scene.startStub(env);
    t.ok(isOwn(stub), JSON.stringify(env));
    t.match(stub.log, why);
  }
  t.same(scene.servers, [], "no server was asked");
});

t.test("a sandbox that can't be served leaves nothing in its server", async (t) => {
  const scene = new SharedScene(t, { hello: "world" });
  const [, server] = await Promise.all([scene.startBroker(), scene.startStandby()]);
  const keeper = await scene.startStub();
  const openFiles = () => readdirSync(`/proc/${server.pid}/fd`).length;
  const before = openFiles();
  const cache = `${scene.directory}/cache`;
  const base = { snapshot: `sha256:${"a".repeat(64)}`, origin: scene.directory };
  const gone = writeMount(scene.directory, "gone", { kind: "view", cache, base, grafts: [] });
  for (let i = 0; i < 3; i++) {
    const mounts = [scene.upper(), { destination: "/gone", source: gone, isReadOnly: true }];
    await t.rejects(scene.startStub({}, mounts), { message: /no index of/ });
  }
  t.ok(await until(() => openFiles() <= before), `${before} ${openFiles()}`);
  t.equal(calls.walk(keeper.clients[0]!, keeper.clients[0]!.rootFd, "hello").inodes.length, 1);
  t.equal((await scene.serversOf(1))[0]!.pid, server.pid, "the server lives");
});

t.test("a server that sends its broker FDs fills no table of it", async (t) => {
  const scene = new SharedScene(t, { hello: "world" });
  const broker = await scene.startBroker();
  const openFiles = () => readdirSync(`/proc/${broker.pid}/fd`).length;
  const listener = native.listenPackets(`${scene.folder}/standby-x`, 1);
  const before = openFiles();
  const starting = scene.startStub(); // it has a server of its own
  let fd = -1;
  await until(() => {
    fd = native.acceptPeer(listener);
    return fd >= 0;
  });
  for (const each of [listener, fd]) t.teardown(() => native.closeFd(each));
  const fds = Array.from({ length: 100 }, (_, index) => ({ role: Role.io, index, sub: 0, fd }));
  for (let i = 0; i < 10 && sendAdopt(fd, fds) >= 0; i++);
  t.ok(isOwn(await starting));
  t.ok(await until(() => openFiles() <= before), `${before} ${openFiles()}`);
  t.same(scene.servers, [], "it is let go of");
});

t.test("a server takes as many as it may; the next has another", async (t) => {
  const scene = new SharedScene(t, { hello: "world" });
  await Promise.all([scene.startBroker(1), scene.startStandby(), scene.startStandby()]);
  const stubs = [await scene.startStub(), await scene.startStub()];
  t.same(stubs.map(isOwn), [false, false]);
  t.same(
    (await scene.serversOf(2)).map((each) => each.stubs),
    stubs.map(({ pid }) => [pid]),
  );
});
