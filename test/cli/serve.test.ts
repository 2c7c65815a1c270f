// burrow serve as its users see it: what it lets in and what it refuses, what stays behind, and diod's clients on it, which are not ours.

import { spawn } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { setImmediate as turnOfLoop } from "node:timers/promises";
import { type Test, test } from "tap";
import { Capability } from "../../lib/gofer/harden.ts";
import { native } from "../../lib/sys/native.ts";
import { Type } from "../../lib/wire/ninep/type.ts";
import { exitOf } from "../conformance/runsc.ts";
import { findDiod } from "../suite/diod.ts";
import { checkHardened } from "../suite/hardened.ts";
import { NinepClient } from "../suite/ninep-client.ts";
import { until } from "../suite/wait.ts";
import { type Node, newNode, ZEROS } from "./cli.ts";

const { chown, dacOverride, fowner, fsetid } = Capability;
const WRITERS = [chown, dacOverride, fowner, fsetid];
const LARGE = Buffer.alloc(9_000_000, "some words, ");

/** A node with a directory to import. */
function makeNode(t: Test): Node {
  const node = newNode(t);
  node.file("tree/README", "read me\n");
  node.file("tree/sub/f", "content");
  node.file("tree/large", LARGE);
  fs.symlinkSync("sub/f", node.path("tree/link"));
  return node;
}

/** Starts a server and waits until it says where it listens: its JSON line. It gets SIGTERM at the end, and must end by it with 0. */
async function start(t: Test, node: Node, words: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const child = node.start(["serve", ...words, "--json", "--quiet"], { env });
  let [out, errors] = ["", ""];
  child.stdout!.setEncoding("utf8").on("data", (text: string) => {
    out += text;
  });
  child.stderr!.setEncoding("utf8").on("data", (text: string) => {
    errors += text;
  });
  const stop = async () => {
    if (child.exitCode === null) child.kill("SIGTERM");
    return exitOf(child);
  };
  t.teardown(stop);
  await until(() => out.includes("\n") || child.exitCode !== null);
  if (!out.includes("\n")) throw new Error(errors);
  const said = JSON.parse(out) as {
    listening: string[];
    views: string[];
    pid: number;
    server: number;
  };
  return { child, said, stop, errors: () => errors };
}

test("signals one after the other, until it has ended, leave nothing of it", async (t) => {
  const node = makeNode(t);
  for (let turn = 0; turn < 3; turn++) {
    const { child } = await start(t, node, [
      "--listen",
      `unix:${node.path("s")}`,
      node.path("tree"),
    ]);
    let isOver = false;
    child.once("exit", () => {
      isOver = true;
    });
    while (!isOver) {
      child.kill(turn === 1 ? "SIGTERM" : "SIGINT");
      await turnOfLoop();
    }
    for (const folder of ["runs", "mounts"])
      t.same(fs.readdirSync(`${node.state}/${folder}`), [], folder);
    t.notOk(fs.existsSync(node.path("s")));
  }
});

test("what can't be served is refused with a reason", async (t) => {
  const node = makeNode(t);
  const at = `unix:${node.path("s")}`;
  fs.writeFileSync(node.path("plain"), "");
  const long = node.path("x".repeat(100));
  for (const [words, reason] of [
    [["--listen", at], /name a view, \[NAME=\]SOURCE, or say --base/],
    [["a=tree"], /--listen/],
    [["..", "--listen", at], /"\.\." has no name for clients; say NAME=SOURCE/],
    [["a=tree", "a=tree", "--listen", at], /there are two views of the name a: .*NAME=SOURCE/],
    [["tmp=tree", "--writable", "--listen", at], /there are two views of the name tmp/],
    [
      ["a=none", "--listen", at],
      /: none is no digest and no file or directory here, and no mounts/,
    ],
    [["a=tree", "--listen", `unix:${node.path("no/s")}`], /there is no such folder \(ENOENT\)/],
    [["a=tree", "--env", ZEROS, "--listen", at], /--env and --stage go with --base/],
    [["a=tree", "--listen", "here"], /"here" is no address; say unix:PATH/],
    [["a=tree", "--listen", "tcp:127.0.0.1:70000"], /is no address/],
    [["a=tree", "--listen", "tcp:example.org:1"], /is no address/],
    [["a=tree", "--listen", "tcp:0.0.0.0:0"], /others than this machine reach 0.0.0.0/],
    [["a=tree", "--listen", "tcp:[::]:0"], /others than this machine reach ::/],
    [["a=tree", "--listen", "vsock:any:5640"], /which machines to let in by --allow cid:N/],
    [["a=tree", "--listen", at, "--allow", "me"], /"me" is nobody; say uid:N/],
    [["a=tree", "--listen", "fd:77"], /FD 77 is not open/],
    [["a=tree", "--listen", `unix:${node.path("plain")}`], /plain is there, and no socket/],
    [["a=tree", "--listen", `unix:${long}`], /longer than the 107 bytes/],
  ] as const) {
    const { code, stderr } = await node.run(["serve", ...words]);
    t.not(code, 0, words.join(" "));
    t.match(stderr, reason, words.join(" "));
  }
  t.strictSame(node.leftovers(), []);
});

test("it listens, serves and leaves nothing", async (t) => {
  const node = makeNode(t);
  const socket = node.path("s");
  const server = await start(t, node, [
    ...["a=tree", "tree/sub", "--listen", `unix:${socket}`, "--listen", "tcp:127.0.0.1:0"],
  ]);
  t.strictSame(server.said.views, ["a", "sub"]);
  t.equal(server.said.listening[0], `unix:${socket}`);
  t.equal(fs.statSync(socket).mode & 0o777, 0o600, "its user's alone");
  const port = Number(/^tcp:127\.0\.0\.1:(\d+)$/.exec(server.said.listening[1]!)![1]);
  await readAll(t, native.connectUnix(socket));
  const reached = await new Promise<boolean>((resolve) => {
    const probe = net
      .connect(port, "127.0.0.1", () => resolve(true))
      .on("error", () => resolve(false));
    probe.unref();
  });
  t.ok(reached, "by TCP, too");
  if (process.getuid?.() === 0) checkHardened(t, server.said.server, []);
  const second = await node.run(["serve", "a=tree", "--listen", `unix:${socket}`]);
  t.match(second.stderr, /something else listens there/);
  t.match(
    (await node.run(["serve", "a=tree", "--listen", `tcp:127.0.0.1:${port}`])).stderr,
    /something else listens there/,
  );
  t.equal(await server.stop(), 0);
  t.equal(fs.existsSync(socket), false);
  t.strictSame(node.leftovers(), []);
  t.notOk(fs.existsSync(`/proc/${server.said.server}`), "the server is gone, too");
});

/** Reads the tree by a client of our own. */
async function readAll(t: Test, fd: number): Promise<void> {
  t.ok(fd >= 0, "connected");
  const client = new NinepClient(fd);
  const call = (type: number, fields = {}) => client.later(client.send(type, fields));
  await call(Type.version, { count: 65_536, name: "9P2000.L" });
  t.equal((await call(Type.attach, { fid: 1, otherFid: 0xffff_ffff, otherName: "a" })).errno, 0);
  await call(Type.walk, { fid: 1, otherFid: 2, names: ["large"] });
  t.equal((await call(Type.lopen, { fid: 2 })).errno, 0);
  const parts: Buffer[] = [];
  for (let offset = 0; ; offset += parts.at(-1)!.length) {
    const { body } = await call(Type.read, { fid: 2, offset, count: 65_000 });
    parts.push(body.subarray(4));
    if (body.length === 4) break;
  }
  t.ok(Buffer.concat(parts).equals(LARGE), "what was imported");
  client.close();
}

/** Makes a file of another user's in the writable view, reads it and removes it. */
async function writeOne(t: Test, fd: number, view: string, uid: number): Promise<void> {
  const client = new NinepClient(fd);
  const call = async (type: number, fields = {}) => {
    const reply = await client.later(client.send(type, fields));
    t.equal(reply.errno, 0, `message ${type}`);
    return reply.body;
  };
  await call(Type.version, { count: 65_536, name: "9P2000.L" });
  await call(Type.attach, { fid: 1, otherFid: 0xffff_ffff, otherName: view, uid });
  await call(Type.walk, { fid: 1, otherFid: 2, names: [] });
  await call(Type.lcreate, { fid: 2, name: "made", flags: 2, mode: 0o600, gid: uid });
  await call(Type.write, { fid: 2, offset: 0, data: Buffer.from("written") });
  const read = await call(Type.read, { fid: 2, offset: 0, count: 100 });
  t.equal(read.subarray(4).toString(), "written");
  await call(Type.remove, { fid: 2 });
  client.close();
}

test("a socket that a killed server left is replaced", async (t) => {
  const node = makeNode(t);
  const socket = node.path("s");
  const first = await start(t, node, ["a=tree", "--listen", `unix:${socket}`]);
  first.child.kill("SIGKILL");
  await exitOf(first.child);
  t.ok(fs.existsSync(socket), "it is still there");
  t.ok(
    await until(() => !fs.existsSync(`/proc/${first.said.server}`)),
    "the process that answered ends with it",
  );
  const isRoot = process.getuid?.() === 0;
  const words = ["a=tree", ...(isRoot ? ["--writable"] : []), "--listen", `unix:${socket}`];
  const second = await start(t, node, words);
  await readAll(t, native.connectUnix(socket));
  if (isRoot) {
    checkHardened(t, second.said.server, WRITERS);
    await writeOne(t, native.connectUnix(socket), "tmp", 1000);
    await writeOne(t, native.connectUnix(socket), "a", 0);
  }
  // A terminal's Ctrl-C reaches both. seccomp forbids what Node.js makes of it.
  process.kill(second.said.server, "SIGINT");
  t.equal(await second.stop(), 0);
  t.equal(second.errors(), "");
  t.strictSame(node.leftovers(), [], "and what the first left is swept");
});

const { root, libraries, skip } = findDiod();

test("diod's clients list and read what is served", { skip }, async (t) => {
  const node = makeNode(t);
  const server = await start(t, node, ["a=tree", "--listen", "tcp:127.0.0.1:0"]);
  const address = server.said.listening[0]!.replace("tcp:", "");
  const run = (program: string, ...words: string[]) =>
    new Promise<{ stdout: Buffer; stderr: string }>((resolve) => {
      const child = spawn(path.join(root, "usr/sbin", program), ["-s", address, ...words], {
        env: { PATH: process.env["PATH"], LD_LIBRARY_PATH: libraries },
        stdio: ["ignore", "pipe", "pipe"],
        timeout: 20_000,
      });
      const parts: Buffer[] = [];
      let stderr = "";
      child.stdout.on("data", (part: Buffer) => parts.push(part));
      child.stderr.setEncoding("utf8").on("data", (text: string) => {
        stderr += text;
      });
      child.once("close", () => resolve({ stdout: Buffer.concat(parts), stderr }));
    });
  const listed = await run("diodls", "-a", "a", "-l", "/");
  t.equal(listed.stderr, "");
  const lines = listed.stdout.toString().trim().split("\n");
  t.strictSame(lines.map((line) => line.split(" ").at(-1)).sort(), [
    ...[".", "..", "README", "large", "link", "sub"],
  ]);
  t.match(
    lines.find((line) => line.endsWith(" large")),
    /^-rw-r--r--.* 9000000 /,
  );
  const sub = await run("diodls", "-a", "a", "sub");
  t.match(sub.stdout.toString(), /^f\s*$/m);
  t.ok((await run("diodcat", "-a", "a", "large")).stdout.equals(LARGE));
  t.equal((await run("diodcat", "-a", "a", "sub/f")).stdout.toString(), "content");
  t.match((await run("diodcat", "-a", "a", "none")).stderr, /No such file/);
  t.match((await run("diodls", "-a", "none", "/")).stderr, /No such file/);
  t.equal(await server.stop(), 0);
});
