// Owns: a server that is killed is replaced, and its clients notice nothing: what docs/protocol/adopt.md, section 8, promises.
// Needs root: what a tmpfs keeps. Plane: control.
import * as fs from "node:fs";
import t from "tap";
import { native } from "../../lib/sys/native.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { writeMount } from "../suite/gofer-process.ts";
import type { LisafsClient, Reply } from "../suite/lisafs-client.ts";
import { makeView } from "../suite/view-cache.ts";
import { until } from "../suite/wait.ts";
import { GOFER, HotStub, hotDirectory, noHot } from "./hot.ts";
import { exitOf } from "./runsc.ts";

if (noHot) {
  t.pass("skipped", { skip: noHot });
  process.exit(0);
}

t.test("idle: what was walked to and opened before a kill is there after it", async (t) => {
  const directory = hotDirectory(t);
  const source = makeView(directory, { hello: "world", d: "/", "d/one": "1", "d/two": "2" });
  const hot = new HotStub(t, directory, [{ source, isReadOnly: true }]);
  hot.start();
  const client = hot.mount(t);
  const walked = client.call(Mid.Walk, { fd: client.rootFd, names: ["hello"] });
  t.equal(walked.errno, 0);
  const hello = Number(walked.payload.readBigUInt64LE(3));
  const opened = client.call(Mid.OpenAt, { fd: hello });
  t.equal(opened.errno, 0);
  client.takeBack(opened.fds);
  const openFd = Number(opened.payload.readBigUInt64LE(0));
  await hot.kill();
  const read = client.call(Mid.PRead, { fd: openFd, offset: 0, count: 100 });
  t.equal(read.errno, 0, hot.log);
  t.equal(read.payload.toString("latin1", 8), "world");
  await hot.kill();
  const again = client.call(
    Mid.PRead,
    { fd: openFd, offset: 1, count: 100 },
    undefined,
    client.socket,
  );
  t.equal(again.errno, 0, hot.log);
  t.equal(again.payload.toString("latin1", 8), "orld");
  t.equal(client.call(Mid.Close, { fds: [openFd] }).errno, 0);
  t.equal(client.call(Mid.PRead, { fd: openFd, offset: 0, count: 100 }).errno, 9, "closed");
  t.match(hot.log, /the server died and is replaced: signal 9/);
  client.close();
  t.equal(await new Promise((resolve) => hot.stub.on("exit", resolve)), 0, "its end is as ever");
});

/** The control FD of a path below the root, with an errno of 0. */
function walk(client: LisafsClient, ...names: string[]): number {
  const { payload } = client.call(Mid.Walk, { fd: client.rootFd, names });
  return Number(payload.readBigUInt64LE(3 + 152 * (names.length - 1)));
}

const TREE = {
  hello: "world",
  empty: "",
  link: "-> hello",
  d: "/",
  ...Object.fromEntries(
    Array.from({ length: 300 }, (_, i) => [`d/name-${String(i).padStart(200, "0")}`, `${i}`]),
  ),
};

/** The names that one Getdents64 of 16 KiB gives. */
function someNames(client: LisafsClient, fd: number): string[] {
  const { payload } = client.call(Mid.Getdents64, { fd, count: 16_384 });
  const names: string[] = [];
  for (let at = 2, i = payload.readUInt16LE(0); i > 0; i--) {
    const length = payload.readUInt16LE(at + 25);
    names.push(payload.toString("latin1", at + 27, at + 27 + length));
    at += 27 + length;
  }
  return names;
}

t.test("a listing goes on where it was: each name once, none left out", async (t) => {
  const directory = hotDirectory(t);
  const source = makeView(directory, TREE);
  const hot = new HotStub(t, directory, [{ source, isReadOnly: true }]);
  hot.start();
  const client = hot.mount(t);
  const opened = client.call(Mid.OpenAt, { fd: walk(client, "d") });
  const fd = Number(opened.payload.readBigUInt64LE(0));
  const names: string[] = [];
  for (let part = someNames(client, fd); part.length > 0; part = someNames(client, fd)) {
    names.push(...part);
    if (names.length < 200) await hot.kill();
  }
  t.equal(names.length, 300);
  t.equal(new Set(names).size, 300);
});

t.test("a request that the dead server had, or had not yet, is answered", async (t) => {
  const directory = hotDirectory(t);
  const source = makeView(directory, TREE);
  const hot = new HotStub(t, directory, [{ source, isReadOnly: true }]);
  hot.start();
  const client = hot.mount(t);
  const hello = walk(client, "hello");
  process.kill(hot.servers()[0]!, "SIGSTOP");
  const overChannel = client.callBeside(Mid.OpenAt, { fd: hello });
  const message = Buffer.alloc(16);
  message.writeUInt32LE(8, 0);
  message.writeUInt16LE(Mid.FStat, 4);
  message.writeBigUInt64LE(BigInt(hello), 8);
  t.equal(client.socket.send(message), 0);
  await hot.kill();
  const opened = await overChannel;
  t.equal(opened.errno, 0, hot.log);
  t.equal(opened.fds.length, 1, "donated once");
  const text = Buffer.alloc(5);
  t.equal(native.preadFd(opened.fds[0]!, text, 0), 5);
  t.equal(text.toString(), "world");
  client.takeBack(opened.fds);
  const stat = client.socket.receive();
  t.equal(stat.errno, 0);
  t.equal(stat.payload.length, 144);
});

/** What both pathways answer to one of each reading message, as far as it doesn't count up. */
function matrix(client: LisafsClient): unknown[] {
  const answers: unknown[] = [];
  const note = ({ errno, mid, payload, fds }: Reply, from = 0) => {
    answers.push([errno, mid, fds.length, payload.subarray(from).toString("hex")]);
    client.takeBack(fds);
    return payload;
  };
  for (const via of [client.socket, client.channels[0]!]) {
    client.pathway = via;
    const fd = client.rootFd;
    note(client.call(Mid.FStat, { fd }));
    note(client.call(Mid.FStatFS, { fd }));
    note(client.call(Mid.Walk, { fd, names: ["d", "missing"] }));
    note(client.call(Mid.WalkStat, { fd, names: ["", "hello"] }));
    note(client.call(Mid.ReadLinkAt, { fd: walk(client, "link") }));
    note(client.call(Mid.ReadLinkAt, { fd: walk(client, "hello") }));
    note(client.call(Mid.FGetXattr, { fd, name: "user.none", count: 10 }));
    note(client.call(Mid.FListXattr, { fd, count: 10 }));
    note(client.call(Mid.MkdirAt, { fd, name: "new" }));
    note(client.call(Mid.UnlinkAt, { fd, name: "hello" }));
    note(client.call(Mid.FStat, { fd: 77_777 }));
    for (const [name, count] of [
      ["hello", 5],
      ["empty", 0],
    ] as const) {
      const opened = note(client.call(Mid.OpenAt, { fd: walk(client, name) }), 8);
      const open = Number(opened.readBigUInt64LE(0));
      t.equal(note(client.call(Mid.PRead, { fd: open, offset: 0, count: 9 })).length, 8 + count);
      note(client.call(Mid.FSync, { fds: [open] }));
      note(client.call(Mid.Flush, { fd: open }));
      note(client.call(Mid.Close, { fds: [open] }));
    }
    const listed = note(client.call(Mid.OpenAt, { fd: walk(client, "d") }), 8);
    const open = Number(listed.readBigUInt64LE(0));
    note(client.call(Mid.Getdents64, { fd: open, count: -65_536 }));
    note(client.call(Mid.Close, { fds: [open] }));
  }
  return answers;
}

t.test("every operation answers after a kill as before it", async (t) => {
  const directory = hotDirectory(t);
  const source = makeView(directory, TREE);
  const hot = new HotStub(t, directory, [{ source, isReadOnly: true }]);
  hot.start();
  const client = hot.mount(t);
  const before = matrix(client);
  await hot.kill();
  t.same(matrix(client), before);
  await hot.kill("SIGABRT");
  t.same(matrix(client), before);
  t.type(client.openChannel(), "object", "one more channel can be had");
});

t.test(
  "a tmpfs keeps what was written, and the FDIDs of renamed and of unlinked files",
  async (t) => {
    const directory = hotDirectory(t);
    const root = makeView(directory, TREE);
    const upper = { kind: "upper", sizeBytes: 1 << 24, inodes: 100, mode: 0o1777 };
    const source = writeMount(directory, "tmp", upper);
    const hot = new HotStub(t, directory, [
      { source: root, isReadOnly: true },
      { source, isReadOnly: false },
    ]);
    hot.start();
    const client = hot.mount(t, 1);
    const fd = client.rootFd;
    const create = (name: string) => {
      const { errno, payload, fds } = client.call(Mid.OpenCreateAt, {
        fd,
        name,
        mode: 0o644,
        flags: 2,
      });
      t.equal(errno, 0, name);
      return {
        control: Number(payload.readBigUInt64LE(0)),
        open: Number(payload.readBigUInt64LE(152)),
        fds,
      };
    };
    const [kept, moved, gone] = ["kept", "moved", "gone"].map(create);
    for (const [i, file] of [kept!, moved!, gone!].entries()) {
      const wrote = client.call(Mid.PWrite, { fd: file.open, offset: 0 }, Buffer.from(`file ${i}`));
      t.equal(wrote.errno, 0);
    }
    t.equal(client.call(Mid.MkdirAt, { fd, name: "dir", mode: 0o755 }).errno, 0);
    const dir = walk(client, "dir");
    const move = { fd, otherFd: dir, name: "moved", otherName: "elsewhere" };
    t.equal(client.call(Mid.RenameAt, move).errno, 0);
    t.equal(client.call(Mid.UnlinkAt, { fd, name: "gone" }).errno, 0);
    const lost = create("lost");
    client.takeBack(lost.fds);
    t.equal(client.call(Mid.UnlinkAt, { fd, name: "lost" }).errno, 0);
    await hot.kill();
    for (const [i, file] of [kept!, moved!, gone!].entries()) {
      const read = client.call(Mid.PRead, { fd: file.open, offset: 0, count: 99 });
      t.equal(read.errno, 0, `${i}: ${hot.log}`);
      t.equal(read.payload.toString("latin1", 8), `file ${i}`);
      t.equal(client.call(Mid.FStat, { fd: file.control }).errno, 0);
      t.equal(client.call(Mid.PWrite, { fd: file.open, offset: 6 }, Buffer.from("!")).errno, 0);
    }
    t.equal(
      client.call(Mid.WalkStat, { fd: dir, names: ["elsewhere"] }).payload.readUInt16LE(0),
      1,
    );
    t.equal(client.call(Mid.FStat, { fd: lost.control }).errno, 5, "EIO: nobody held it any more");
    t.equal(client.call(Mid.PRead, { fd: lost.open, offset: 0, count: 1 }).errno, 5);
    t.match(hot.log, /2 FDs of the client are lost/);
    t.equal(client.call(Mid.Close, { fds: [lost.control, lost.open] }).errno, 0);
    const more = create("more");
    t.notOk(
      [kept, moved, gone].some(
        (file) => file!.open === more.open || file!.control === more.control,
      ),
    );
    for (const { fds } of [kept!, moved!, gone!, more]) client.takeBack(fds);
  },
);

t.test("a server that dies again and again ends the sandbox, and says so", async (t) => {
  const directory = hotDirectory(t);
  const source = makeView(directory, TREE);
  const hot = new HotStub(t, directory, [{ source, isReadOnly: true }], { BURROW_RESTARTS: "3" });
  hot.start();
  const client = hot.mount(t);
  for (let i = 0; i < 4; i++) {
    t.equal(client.call(Mid.FStat, { fd: client.rootFd }).errno, 0);
    await hot.kill();
  }
  t.equal(await exitOf(hot.stub), 128 + 9);
  t.match(hot.log, /its servers died too often/);
});

t.test(
  "SIGHUP: the program that is installed now takes over; one that fails leaves the old",
  async (t) => {
    const directory = hotDirectory(t);
    const source = makeView(directory, TREE);
    const program = `${directory}/gofer.cjs`;
    fs.writeFileSync(program, `require(${JSON.stringify(GOFER)});`);
    const hot = new HotStub(t, directory, [{ source, isReadOnly: true }], {
      BURROW_GOFER: program,
    });
    hot.start();
    const client = hot.mount(t);
    const opened = client.call(Mid.OpenAt, { fd: walk(client, "hello") });
    client.takeBack(opened.fds);
    const fd = Number(opened.payload.readBigUInt64LE(0));
    const [first] = hot.servers();
    hot.stub.kill("SIGHUP");
    t.ok(await until(() => hot.servers().length === 1 && hot.servers()[0] !== first), "another");
    t.equal(
      client.call(Mid.PRead, { fd, offset: 0, count: 9 }).payload.toString("latin1", 8),
      "world",
    );
    const [second] = hot.servers();
    fs.writeFileSync(program, "process.exit(3);");
    hot.stub.kill("SIGHUP");
    t.ok(await until(() => hot.log.includes("the successor failed")));
    t.same(hot.servers(), [second], "the one that was there");
    t.equal(client.call(Mid.FStat, { fd }).errno, 0);
    t.notMatch(hot.log, /died/);
  },
);

t.test("a server that dies while the next gets ready: one serves in the end", async (t) => {
  const directory = hotDirectory(t);
  const source = makeView(directory, TREE);
  const hot = new HotStub(t, directory, [{ source, isReadOnly: true }]);
  hot.start();
  const client = hot.mount(t);
  for (let i = 0; i < 5; i++) {
    const [server] = hot.servers();
    hot.stub.kill("SIGHUP");
    if (i > 0) t.ok(await until(() => hot.servers().some((pid) => pid !== server)), "the next");
    try {
      process.kill(server!, "SIGKILL");
    } catch {} // it was relieved meanwhile
    t.equal(client.call(Mid.FStat, { fd: client.rootFd }).errno, 0);
    t.ok(await until(() => hot.servers().length === 1), "one");
    t.equal(client.call(Mid.FStat, { fd: client.rootFd }).errno, 0);
  }
});
