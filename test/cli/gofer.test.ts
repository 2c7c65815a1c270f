// Owns: proof that burrow gofer shows the sandboxes that run and has the installed program take over in them, and that one that can't
// leaves all as it was. Plane: control.
import { spawn } from "node:child_process";
import fs from "node:fs";
import { type Test, test } from "tap";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { GOFER, HotStub, hotDirectory } from "../conformance/hot.ts";
import { makeView } from "../suite/view-cache.ts";
import { until } from "../suite/wait.ts";
import { type Node, newNode } from "./cli.ts";

const notRoot = process.getuid?.() === 0 ? false : "it takes another user";

interface Row {
  readonly pid: number;
  readonly served: number | null;
  readonly bundle: string;
  readonly outcome?: string;
}

/** Stubs with servers of a program of the test's own, and burrow with their state. */
function scene(t: Test, count: number) {
  const node = newNode(t);
  const directory = hotDirectory(t);
  const source = makeView(directory, { hello: "world" });
  const program = node.file("gofer.cjs", `require(${JSON.stringify(GOFER)});`);
  const stubs = Array.from({ length: count }, () => {
    const mounts = [{ source, isReadOnly: true }];
    const hot = new HotStub(t, directory, mounts, { BURROW_GOFER: program });
    hot.start();
    return hot;
  });
  const gofer = async (node: Node, ...words: string[]) => {
    const outcome = await node.run(["gofer", ...words, "--state", directory, "--json"]);
    return { ...outcome, rows: outcome.stdout === "" ? [] : (JSON.parse(outcome.stdout) as Row[]) };
  };
  return {
    node,
    directory,
    program,
    stubs,
    gofer: (...words: string[]) => gofer(node, ...words),
    hasServed: async () => (await gofer(node, "ls")).rows.every(({ served }) => served === 1),
  };
}

test("gofer upgrade: another server, and the client's files are open as ever", async (t) => {
  const { node, directory, stubs, gofer, hasServed } = scene(t, 1);
  const [hot] = stubs as [HotStub];
  const client = hot.mount(t);
  const walked = client.call(Mid.Walk, { fd: client.rootFd, names: ["hello"] });
  const opened = client.call(Mid.OpenAt, { fd: Number(walked.payload.readBigUInt64LE(3)) });
  client.takeBack(opened.fds);
  const fd = Number(opened.payload.readBigUInt64LE(0));
  t.ok(await until(hasServed));
  const [server] = hot.servers();
  const row = { pid: hot.stub.pid!, bundle: directory };
  const done = await gofer("upgrade");
  t.equal(done.code, 0, done.stderr);
  t.same(done.rows, [{ ...row, outcome: "upgraded" }]);
  t.notSame(hot.servers(), [server]);
  const read = client.call(Mid.PRead, { fd, offset: 0, count: 9 });
  t.equal(read.payload.toString("latin1", 8), "world");
  t.same((await gofer("ls")).rows, [{ ...row, served: 2, shared: null }]);
  const shown = await node.run(["gofer", "ls", "--state", directory]);
  t.match(
    shown.stdout,
    new RegExp(`PID +SERVERS +SERVED BY +BUNDLE\\n${row.pid} +2 +own +${directory}\n`),
  );
  const none = await node.run(["gofer", "upgrade"]);
  t.match(none, { code: 0, stdout: "none runs\n" }, "those of another state aren't touched");
  t.match(await gofer("upgrade", "1"), { code: 1, stderr: /BURROW_NOT_FOUND/ });
  t.match(await gofer("upgrade", "x"), { code: 2, stderr: /x is no pid/ });
});

test("a program that can't serve: the first sandbox keeps its server, the others aren't asked", async (t) => {
  const { program, stubs, gofer, hasServed } = scene(t, 2);
  t.ok(await until(hasServed));
  const servers = stubs.map((hot) => hot.servers());
  fs.writeFileSync(program, "process.exit(3);");
  for (const words of [["upgrade"], ["upgrade"]]) {
    const { code, rows, stderr } = await gofer(...words);
    t.equal(code, 1);
    t.same(
      rows.map(({ outcome }) => outcome),
      ["failed", "left"],
    );
    t.match(JSON.parse(stderr).error, { code: "BURROW_START", context: { pid: rows[0]!.pid } });
  }
  t.same(
    stubs.map((hot) => hot.servers()),
    servers,
  );
  fs.writeFileSync(program, `require(${JSON.stringify(GOFER)});`);
  const { code, rows } = await gofer("upgrade", String(stubs[1]!.stub.pid));
  t.equal(code, 0);
  t.match(rows, [{ pid: stubs[1]!.stub.pid, outcome: "upgraded" }]);
});

test("a sandbox that ends meanwhile is no failure; a stub of an older build is left alone", async (t) => {
  const { node, directory, program, stubs, gofer, hasServed } = scene(t, 1);
  const [hot] = stubs as [HotStub];
  t.ok(await until(hasServed));
  fs.writeFileSync(program, "setInterval(() => {}, 1000);");
  const upgrading = gofer("upgrade");
  t.ok(await until(() => hot.servers().length === 2), "the next gets ready, and never is");
  hot.stub.kill("SIGKILL");
  t.match(await upgrading, { code: 0, rows: [{ outcome: "ended" }] });

  fs.copyFileSync("/bin/sleep", node.path("burrow-stub"));
  const old = spawn(node.path("burrow-stub"), ["100"], { env: { BURROW_STATE: directory } });
  t.teardown(() => old.kill("SIGKILL"));
  t.ok(await until(async () => (await gofer("ls")).rows.length === 1));
  t.match((await gofer("ls")).rows, [{ pid: old.pid, served: null, bundle: "" }]);
  t.match(await gofer("upgrade"), {
    code: 1,
    rows: [{ outcome: "failed" }],
    stderr: /older build/,
  });
  t.equal(old.exitCode ?? old.signalCode, null, "it runs");
});

test("a process of another user that calls itself a stub is none", { skip: notRoot }, async (t) => {
  const { node, directory, gofer } = scene(t, 0);
  const program = node.path("burrow-stub");
  fs.copyFileSync("/bin/sleep", program);
  // With a name as a stub's own, which never says that it is done: root would wait for it, and leave those behind it as they are.
  const mimic = spawn("setpriv", ["--reuid", "65534", "--clear-groups", program, "100"], {
    env: { PATH: process.env["PATH"], BURROW_STATE: directory },
  });
  t.teardown(() => mimic.kill("SIGKILL"));
  const isRunning = () => fs.readlinkSync(`/proc/${mimic.pid}/exe`) === program;
  t.ok(await until(isRunning));
  t.match(await gofer("ls"), { code: 0, rows: [] });
  t.match(await gofer("upgrade"), { code: 0, rows: [] });
  t.match(await gofer("upgrade", String(mimic.pid)), { code: 1, stderr: /BURROW_NOT_FOUND/ });
  t.equal(mimic.exitCode ?? mimic.signalCode, null, "and has no signal");
});
