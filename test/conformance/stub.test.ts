// Owns: what burrow-stub promises in docs/protocol/adopt.md, with adopter.py as its server: the argv
// of three revisions, adoption, keeping and dropping, signals and ends. Plane: control.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import type { Socket } from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import t from "tap";
import { sleep, until } from "../suite/wait.ts";
import { ADOPTER, exitOf, STUB } from "./runsc.ts";

const missing = !fs.existsSync(STUB)
  ? `${STUB} isn't built`
  : process.getuid?.() !== 0
    ? "not root"
    : spawnSync("python3", ["-c", "import socket; socket.recv_fds"]).status !== 0
      ? "no python3 of 3.9 or later"
      : "";
if (missing) {
  t.pass("skipped", { skip: missing });
  process.exit(0);
}

/** What adopter.py wrote: see there. */
interface Report {
  argv: string[];
  records: [role: number, index: number, sub: number][];
  messages: number;
  links: string[];
  ownFds: number[];
  stubFds: Record<string, string>;
  umask: string;
  noNewPrivs: string;
  blocked: string;
  fileLimit: number;
  ids: [number, number];
  stubPid: number;
  signal?: number;
  zombies?: string[];
  [look: string]: unknown;
}

interface Run {
  child: ChildProcess;
  /** The other end of FD 3 and up. */
  sockets: Socket[];
  report(): Report | undefined;
  /** Waits for the end; closes all. */
  end(): Promise<{ code: number; report: Report; stderr: string }>;
}

/** Starts the stub with `count` sockets as FD 3 and up; ADOPTER_DO is `words`. */
function start(
  argv: string[],
  count: number,
  words: string,
  more: { inNamespace?: boolean } = {},
): Run {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "burrow-stub-"));
  fs.chmodSync(dir, 0o777); // one server isn't root
  const file = path.join(dir, "report");
  const log = path.join(dir, "log");
  const program = path.join(dir, "main.js");
  fs.writeFileSync(`${program}.flags`, "--from-the-build\n--another\n");
  const command = more.inNamespace ? ["unshare", "--pid", "--fork", STUB] : [STUB];
  const child = spawn(command[0]!, [...command.slice(1), ...argv], {
    stdio: ["ignore", "ignore", "ignore", ...Array.from({ length: count }, () => "pipe" as const)],
    env: {
      PATH: process.env["PATH"],
      BURROW_NODE: ADOPTER,
      BURROW_NODE_FLAGS: "--one  --two",
      BURROW_GOFER: program,
      BURROW_LOG: log,
      ADOPTER_REPORT: file,
      ADOPTER_DO: words,
    },
  });
  const sockets = child.stdio.slice(3) as Socket[];
  for (const socket of sockets) socket.on("error", () => {});
  const report = () =>
    fs.existsSync(file) ? (JSON.parse(fs.readFileSync(file, "utf8")) as Report) : undefined;
  const end = async () => {
    const code = await exitOf(child);
    for (const socket of sockets) socket.destroy();
    const last = report();
    const stderr = fs.existsSync(log) ? fs.readFileSync(log, "utf8") : "";
    fs.rmSync(dir, { recursive: true });
    return { code, report: last as Report, stderr };
  };
  return { child, sockets, report, end };
}

const bundle = ["gofer", "--bundle", "/some/where"];

t.test("2022: argv, and an FD that the caller leaked", async (t) => {
  const argv = ["--root=/x", "--log-fd=3", ...bundle, "--spec-fd=4", "--mounts-fd=5"];
  const run = start([...argv, "--io-fds=6", "--io-fds=7"], 6, "exit=9");
  const { code, report, stderr } = await run.end();
  t.equal(code, 9, `the server's code\n${stderr}`);
  const flags = ["--no-warnings", "--from-the-build", "--another", "--one", "--two"];
  t.same(report.argv.slice(1, 6), flags, "the build's flags, then the caller's");
  t.match(report.argv[6], /\/main\.js$/);
  t.same(report.argv.slice(7), [...argv, "--io-fds=6", "--io-fds=7"], "argv is passed on");
  t.same(report.records, [
    [8, 0, 0],
    [2, 0, 0],
    [3, 0, 0],
    [1, 0, 0],
    [1, 1, 0],
  ]);
  t.equal(report.messages, 1);
  t.same(report.ownFds.slice(0, 4), [0, 1, 2, 3], "the control socket is FD 3");
  t.equal(report.ownFds.length, 4 + 5 + 1, "the server has what it adopted and nothing else");
  t.equal(report.umask, "0000");
  t.equal(report.noNewPrivs, "1");
  t.match(report.blocked, /^0*$/, "no signal is blocked in the server");
  const held = Object.keys(report.stubFds).map(Number);
  t.ok(
    [3, 4, 6, 7].every((fd) => held.includes(fd)),
    "the stub keeps log, spec and io",
  );
  t.notOk(Object.values(report.stubFds).includes(report.links[2]!), "but not mounts");
  t.notOk(
    Object.values(report.stubFds).filter((link) => link.startsWith("pipe:")).length,
    "nor else",
  );
});

t.test("2026: every FD of its launch contract, and the container's id", async (t) => {
  const names = ["spec", "mounts", "rpc", "pin-ring", "sync-sentry-exit"];
  const flags = names.map((name, i) => `--${name}-fd=${i + 3}`);
  const argv = [
    "--directfs=false",
    ...bundle,
    "--gofer-mount-confs=lisafs:none",
    "--uid=0",
    "--gid=0",
  ];
  const tail = ["--io-fds=8", "--dev-io-fd=9", "--sync-chroot-fd=10", "--new-flag=77", "some-id"];
  const { code, report } = await start([...argv, ...flags, ...tail], 8, "").end();
  t.equal(code, 0);
  t.same(
    report.records.map(([role]) => role),
    [2, 3, 6, 10, 1, 7, 4],
    "all but pin-ring",
  );
  const held = Object.keys(report.stubFds);
  t.ok(
    ["3", "6", "8", "9"].every((fd) => held.includes(fd)),
    "spec, pin-ring, io and dev are kept",
  );
  const links = new Set(Object.values(report.stubFds));
  for (const i of [1, 2, 3, 6]) t.notOk(links.has(report.links[i]!), `record ${i} isn't kept`);
});

t.test("450 connections take three messages", async (t) => {
  const io = Array.from({ length: 450 }, (_, i) => `--io-fds=${i + 4}`);
  const { report } = await start([...bundle, "--spec-fd=3", ...io], 451, "").end();
  t.equal(report.messages, 3);
  const wanted = Array.from({ length: 450 }, (_, i) => [1, i, 0]);
  t.same(report.records, [[2, 0, 0], ...wanted]);
});

t.test("the limit of --fdlimit is the server's", async (t) => {
  const { report } = await start(["--fdlimit=333", ...bundle, "--io-fds=3"], 1, "").end();
  t.equal(report.fileLimit, 333);
});

t.test("rootless: nothing starts before the id maps are there, then ids change", async (t) => {
  const argv = [...bundle, "--uid=65534", "--gid=65533", "--io-fds=3", "--sync-userns-fd=4"];
  const run = start(argv, 2, "");
  await sleep(300);
  t.equal(run.report(), undefined, "the server hasn't started");
  run.sockets[1]!.end();
  const { code, report, stderr } = await run.end();
  t.equal(code, 0, stderr);
  t.same(report.ids, [65534, 65533]);
  t.same(report.records, [[1, 0, 0]], "the sync FD isn't the server's");
});

t.test("KEEP holds copies, replaces equal keys, and DROP closes a connection's", async (t) => {
  const words =
    "keep=1/3 look=kept keep=1/2 look=again junk look=junk keep=0/1 drop=1 look=dropped";
  const argv = [...bundle, "--io-fds=3", "--io-fds=4"];
  const { code, report, stderr } = await start(argv, 2, words).end();
  t.equal(code, 0, stderr);
  const count = (look: string, what: string) =>
    Object.values(report[look] as Record<string, string>).filter((l) => l.includes(what)).length;
  t.equal(count("kept", "memfd:kept-1-"), 3);
  t.equal(count("again", "memfd:kept-1-"), 3, "two were replaced, one is still there");
  t.same(
    Object.keys(report["again"] as object).length,
    Object.keys(report["kept"] as object).length,
  );
  t.same(report["junk"], report["again"], "bad messages change nothing");
  t.match(stderr, /refused/, "but are spoken of");
  t.equal(count("dropped", "memfd:kept-1-"), 0);
  t.equal(count("dropped", "memfd:kept-0-"), 1, "another connection's stay");
  t.notOk("4" in (report["dropped"] as object), "its io FD is closed");
  t.ok("3" in (report["dropped"] as object), "another's isn't");
});

t.test("a server killed by a signal: 128 + number", async (t) => {
  const { code } = await start([...bundle, "--io-fds=3"], 1, "kill=9").end();
  t.equal(code, 137);
});

t.test("a server that its filter killed: the log says what to look at", async (t) => {
  const { code, stderr } = await start([...bundle, "--io-fds=3"], 1, "kill=31").end();
  t.equal(code, 128 + 31);
  t.match(stderr, /the server was killed by seccomp: .*BURROW_HARDEN=log/);
});

t.test("a server that closes the control socket is waited for all the same", async (t) => {
  const { code } = await start([...bundle, "--io-fds=3"], 1, "close exit=5").end();
  t.equal(code, 5);
});

t.test("SIGTERM and SIGINT go on to the server", async (t) => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    const run = start([...bundle, "--io-fds=3"], 1, "wait exit=4");
    t.ok(await until(() => run.report() !== undefined));
    run.child.kill(signal);
    const { code, report, stderr } = await run.end();
    t.equal(code, 4);
    t.equal(stderr, "", "an end that was asked for is no failure");
    t.equal(report.signal, os.constants.signals[signal]);
  }
});

t.test("the server doesn't outlive the stub", async (t) => {
  const run = start([...bundle, "--io-fds=3"], 1, "wait");
  t.ok(await until(() => run.report() !== undefined));
  const children = `/proc/${run.child.pid}/task/${run.child.pid}/children`;
  const server = Number(fs.readFileSync(children, "utf8"));
  run.child.kill("SIGKILL");
  t.equal((await run.end()).code, 137);
  const isGone = () => {
    const file = `/proc/${server}/stat`;
    return !fs.existsSync(file) || / Z /.test(fs.readFileSync(file, "utf8"));
  };
  t.ok(await until(isGone));
});

t.test("as pid 1 it reaps orphans", async (t) => {
  const run = start([...bundle, "--io-fds=3"], 1, "orphan exit=6", { inNamespace: true });
  const { code, report, stderr } = await run.end();
  t.equal(code, 6, stderr);
  t.same(report.zombies, []);
});

t.test("an end is seen through the stub only once all copies are closed", async (t) => {
  const run = start([...bundle, "--io-fds=3"], 1, "drop=0 wait");
  t.ok(await until(() => run.report() !== undefined));
  t.equal(run.sockets[0]!.readableEnded, false, "the server still holds its own");
  const ended = new Promise((resolve) => run.sockets[0]!.on("close", resolve).resume());
  run.child.kill("SIGTERM");
  await run.end();
  await ended;
});

t.test("used wrongly it says what starts it", async (t) => {
  const bare = spawnSync(STUB, [], { encoding: "utf8" });
  t.equal(bare.status, 127);
  t.match(bare.stderr, /started by runsc/);
  const closed = spawnSync(STUB, [...bundle, "--io-fds=99"], { encoding: "utf8" });
  t.equal(closed.status, 127, "an FD that isn't open is none");
  const run = spawnSync(STUB, [...bundle, "--io-fds=3"], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe", "pipe"],
    env: {},
  });
  t.equal(run.status, 127);
  t.match(run.stderr, /burrow-runsc/);
});
