// Owns: burrow-runsc by itself, with a stand-in for runsc that prints its argv: flags, the cache of
// them, what is replaced and what isn't, errors, the daemon. Real sandboxes: lifecycle.test.ts.
// Plane: control.
import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as net from "node:net";
import * as path from "node:path";
import t from "tap";
import { Bench, LAUNCHER, stockGofer } from "./runsc.ts";

t.setTimeout(120_000);
if (!fs.existsSync(LAUNCHER)) {
  t.pass("skipped", { skip: `${LAUNCHER} isn't built` });
  process.exit(0);
}

/** As `runsc flags` prints them; net-raw is a switch whose usage text quotes a word. */
const FLAGS_2022 = `  -dcache int
    \tSet the global dentry cache size. (default -1)
  -debug
    \tenable debug logging.
  -net-raw runsc exec
    \tenable raw sockets.
  -overlay2 value
    \twrap mounts with overlayfs.
  -platform string
    \tspecifies which platform to use (default "ptrace")
  -root string
    \troot directory for storage of container state.
`;
const FLAGS_2024 = `${FLAGS_2022}  -directfs
    \tdirectly access the container filesystems from the sentry. (default true)
`;
const ADDED_2022 = ["--dcache=100000"];
const ADDED_2024 = ["--directfs=false", "--overlay2=none", ...ADDED_2022];

/** Runs body with a bench whose runsc is a shell script: `flags` lists, anything else does `what`. */
function withFake(
  name: string,
  flags: string,
  what: string,
  body: (t: Tap, bench: Bench, fake: string) => Promise<void> | void,
) {
  t.test(name, async (t) => {
    const bench = new Bench(stockGofer, { name: "fake", path: "/bin/true", platforms: [] }, "");
    try {
      const fake = path.join(bench.dir, "runsc");
      fs.writeFileSync(path.join(bench.dir, "flags"), flags);
      const ask = `if [ "$1" = flags ]; then echo >>"$0.asked"; cat "\${0%/*}/flags" >&2; exit 0; fi`;
      fs.writeFileSync(fake, `#!/bin/bash\n${ask}\n${what}\n`, { mode: 0o755 });
      bench.env["BURROW_RUNSC"] = fake;
      await body(t as unknown as Tap, bench, fake);
      t.same(await bench.leftovers(), [], "nothing is left");
    } finally {
      bench.close();
    }
  });
}
type Tap = typeof t;

const ECHO = `printf '%s\\n' "$@"`;
const asked = (fake: string) => fs.readFileSync(`${fake}.asked`, "utf8").length;
const lines = (bench: Bench, ...words: string[]) =>
  bench
    .exec([LAUNCHER, ...words])
    .stdout.split("\n")
    .slice(0, -1);

withFake("2022 gets the flags it knows, in front", FLAGS_2022, ECHO, (t, bench) => {
  for (const command of ["run", "create", "start", "restore", "do"]) {
    t.same(lines(bench, "-root", "/r", command, "x"), [...ADDED_2022, "-root", "/r", command, "x"]);
  }
});

withFake(
  "2024 gets directfs and overlay2 too, unless given in any spelling",
  FLAGS_2024,
  ECHO,
  (t, bench) => {
    t.same(lines(bench, "run", "x"), [...ADDED_2024, "run", "x"]);
    const cases: [given: string[], added: string[]][] = [
      [["--directfs=false"], ADDED_2024.slice(1)],
      [["-directfs=0"], ADDED_2024.slice(1)],
      [["--directfs"], ADDED_2024.slice(1)],
      [["--overlay2=root:memory"], [ADDED_2024[0]!, ...ADDED_2022]],
      [
        ["-overlay2", "all:dir=/x"],
        [ADDED_2024[0]!, ...ADDED_2022],
      ],
      [["-dcache", "5"], ADDED_2024.slice(0, 2)],
      [
        ["--overlay2", "run"],
        [ADDED_2024[0]!, ...ADDED_2022],
      ],
    ];
    for (const [given, added] of cases) {
      t.same(lines(bench, ...given, "run", "x"), [...added, ...given, "run", "x"], given.join(" "));
    }
    const after = ["run", "--directfs=true", "--overlay2=root:self"];
    t.same(
      lines(bench, ...after),
      [...ADDED_2024, ...after],
      "words after the command aren't globals",
    );
  },
);

withFake("what doesn't start a gofer passes untouched", FLAGS_2024, ECHO, (t, bench, fake) => {
  for (const words of [
    ["list"],
    ["--root", "run", "list"],
    ["-net-raw", "state", "run"],
    ["help", "run"],
  ]) {
    t.same(lines(bench, ...words), words);
  }
  t.same(lines(bench, "-net-raw", "run", "x").slice(-3), ["-net-raw", "run", "x"]);
  t.same(lines(bench, "--debug", "--", "run", "x"), [...ADDED_2024, "--debug", "--", "run", "x"]);
  fs.rmSync(`${fake}.asked`);
  bench.env["BURROW_STUB"] = "/nope";
  t.same(lines(bench, "kill", "x"), ["kill", "x"], "nor does it need a stub");
  t.notOk(fs.existsSync(`${fake}.asked`), "nor the flags");
});

withFake("flags are asked for once per binary", FLAGS_2024, ECHO, (t, bench, fake) => {
  const folder = path.join(bench.state, "launcher");
  t.same(lines(bench, "run"), lines(bench, "run"));
  t.equal(asked(fake), 1);
  const [file] = fs.readdirSync(folder);
  t.equal(fs.statSync(path.join(folder, file!)).mode & 0o022, 0, "others can't write the answer");

  fs.utimesSync(fake, 1, 1);
  fs.writeFileSync(path.join(bench.dir, "flags"), FLAGS_2022);
  t.same(lines(bench, "run"), [...ADDED_2022, "run"], "another mtime is another binary");
  t.equal(asked(fake), 2);

  for (const entry of fs.readdirSync(folder)) fs.chmodSync(path.join(folder, entry), 0o666);
  lines(bench, "run");
  t.equal(asked(fake), 3, "an answer that others could have written isn't believed");
  for (const entry of fs.readdirSync(folder)) {
    fs.rmSync(path.join(folder, entry));
    fs.symlinkSync("/etc/passwd", path.join(folder, entry));
  }
  t.same(lines(bench, "run"), [...ADDED_2022, "run"], "nor a symlink followed");
  bench.env["BURROW_STATE"] = "/proc/nowhere";
  t.same(lines(bench, "run"), [...ADDED_2022, "run"], "no place to keep it is no error");
});

withFake("flags that can't work are refused with the reason", FLAGS_2024, ECHO, (t, bench) => {
  const bad = [["--overlay2=root:self"], ["-overlay2", "all:self,size=1G"]];
  for (const words of bad) {
    const result = bench.exec([LAUNCHER, ...words, "run", "x"]);
    t.equal(result.code, 1, words.join(" "));
    t.equal(result.stdout, "", "nothing is started");
    t.match(result.stderr, /refused/);
    t.match(result.stderr, /Leave it out/);
  }
  const last = bench.exec([LAUNCHER, "--overlay2=root:self", "--overlay2=none", "run"]);
  t.equal(last.code, 0, "the last one counts, as in runsc");
});

withFake("directfs is refused where runsc has none", FLAGS_2022, ECHO, (t, bench) => {
  const result = bench.exec([LAUNCHER, "--directfs=true", "run", "x"]);
  t.equal(result.code, 1);
  t.match(result.stderr, /--directfs=true: this runsc has no directfs/);
  t.match(result.stderr, /BURROW_RUNSC/);
});

withFake("each thing that is missing is named, with what to do", FLAGS_2024, ECHO, (t, bench) => {
  const plain = path.join(bench.dir, "plain");
  fs.writeFileSync(plain, "", { mode: 0o644 });
  const cases: [env: Record<string, string>, said: RegExp][] = [
    [{ BURROW_RUNSC: "/nope" }, /runsc isn't at \/nope[\s\S]*BURROW_RUNSC/],
    [{ BURROW_RUNSC: "/bin/true" }, /doesn't list its flags[\s\S]*BURROW_RUNSC/],
    [{ BURROW_RUNSC: "", PATH: "/nope" }, /runsc isn't in PATH[\s\S]*[Ii]nstall/],
    [{ BURROW_RUNSC: "", PATH: path.dirname(LAUNCHER) }, /runsc isn't in PATH/],
    [{ BURROW_STUB: "/nope" }, /burrow-stub isn't at \/nope[\s\S]*build[\s\S]*BURROW_STUB/],
    [{ BURROW_STUB: plain }, /burrow-stub can't be run[\s\S]*isn't an executable/],
    [{ BURROW_NODE: "", PATH: "/nope" }, /node isn't in PATH[\s\S]*Node.js 20/],
    [{ BURROW_NODE: plain }, /node can't be run/],
    [{ BURROW_GOFER: "/nope" }, /server program isn't at \/nope[\s\S]*BURROW_GOFER/],
  ];
  for (const [env, said] of cases) {
    const result = bench.exec([LAUNCHER, "run", "x"], env);
    t.equal(result.code, 128, JSON.stringify(env));
    t.match(result.stderr, said);
    t.equal(result.stdout, "", "runsc isn't started");
    t.ok(result.stderr.split("\n").length < 8, "one screen");
  }
});

/** Denies ptrace by a seccomp filter, then becomes argv[1]. prctl(2): 38 no_new_privs, 22 seccomp. */
const DENY_PTRACE = `
import ctypes, os, sys
class Filter(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("t", ctypes.c_ubyte), ("f", ctypes.c_ubyte), ("k", ctypes.c_uint)]
class Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("filters", ctypes.POINTER(Filter))]
rules = (Filter * 4)(Filter(0x20, 0, 0, 0), Filter(0x15, 0, 1, 101), Filter(6, 0, 0, 0x50001), Filter(6, 0, 0, 0x7fff0000))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(Program(4, rules)), 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])`;

/** Traces argv[1] as a debugger does. ptrace(2): 0 TRACEME, 7 CONT. */
const TRACE = `
import ctypes, os, sys
libc = ctypes.CDLL(None)
pid = os.fork()
if pid == 0:
    libc.ptrace(0, 0, None, None)
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status):
        sys.exit(os.waitstatus_to_exitcode(status))
    number = os.WSTOPSIG(status)
    libc.ptrace(7, pid, None, ctypes.c_void_p(0 if number == 5 else number))`;

import { sleep, until } from "../suite/wait.ts";

withFake("refused ptrace: the cause is found", FLAGS_2024, ECHO, (t, bench) => {
  for (const [program, said] of [
    [DENY_PTRACE, /seccomp filter is on this process \(and no_new_privs\)[\s\S]*SYS_PTRACE/],
    [TRACE, /process \d+ traces it already[\s\S]*without that tracer/],
  ] as const) {
    const result = bench.exec(["python3", "-c", program, LAUNCHER, "run", "x"]);
    t.equal(result.code, 128, result.stderr);
    t.match(result.stderr, said);
    t.equal(result.stdout, "");
  }
});

/** Stands in for the revision that no package has: argv and FDs as its launch contract says. */
const GOFER = `
grep TracerPid /proc/self/status
bash -c 'exec -a runsc-sandbox grep TracerPid /proc/self/status'
bash -c 'exec -a /opt/gvisor-bin/gvisor_sentry grep TracerPid /proc/self/status'
exec 5<"$0" 6<"$0"
(exec -a runsc-gofer /bin/sleep --directfs=false gofer --io-fds=5 'two words' "") &
wait $!
echo "gofer $?"
grep TracerPid /proc/self/status
exit 11`;

withFake(
  "the gofer's exec and no other is replaced; then nothing is traced",
  FLAGS_2024,
  GOFER,
  (t, bench) => {
    const stub = path.join(bench.dir, "stub");
    const seen = `env | grep ^BURROW_; printf '<%s>' "$@"; ls /proc/self/fd | tr '\\n' ' '; pwd`;
    const tracer = "grep TracerPid /proc/self/status";
    fs.writeFileSync(stub, `#!/bin/bash\n{ ${seen}; ${tracer}; } >${bench.dir}/seen\nexit 33\n`, {
      mode: 0o755,
    });
    const result = bench.exec([LAUNCHER, "run"], { BURROW_STUB: stub, BURROW_GOFER: stub });
    t.equal(result.code, 11, `${result.stdout}${result.stderr}`);
    const [before, sandbox, sidecar, gofer, after] = result.stdout.split("\n");
    t.match(before, /\t[1-9]/, "it was traced before");
    t.equal(sandbox, "TracerPid:\t0", "the sandbox isn't");
    t.equal(sidecar, "TracerPid:\t0", "nor its sidecar");
    t.equal(gofer, "gofer 33", "the stub ran in the gofer's place");
    t.equal(after, "TracerPid:\t0");
    const text = fs.readFileSync(path.join(bench.dir, "seen"), "utf8");
    t.match(text, "<--directfs=false><gofer><--io-fds=5><two words><>", "its argv");
    t.match(text, /BURROW_NODE=\/.*\n/);
    t.match(text, `BURROW_GOFER=${stub}\n`);
    t.match(text, "TracerPid:\t0");
    t.match(text, /\b5 6\b/, "its FDs");
  },
);

withFake(
  "no gofer is started: the helper ends with runsc",
  FLAGS_2024,
  "sleep 0.1; exit 3",
  async (t, bench) => {
    t.equal(bench.exec([LAUNCHER, "start", "x"]).code, 3);
  },
);

const KILLED = "kill -9 $$";
withFake("runsc is killed: the helper ends with it", FLAGS_2024, KILLED, async (t, bench) => {
  t.equal(bench.exec([LAUNCHER, "create", "x"]).code, 137);
});

withFake(
  "stopped and continued as any job",
  FLAGS_2024,
  "kill -STOP $$; exit 8",
  async (t, bench) => {
    const { child } = bench.start([LAUNCHER, "run"]);
    const state = () =>
      /State:\s*(.)/.exec(fs.readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1];
    t.ok(await until(() => "Tt".includes(state() ?? "")), "it stops");
    await sleep(100);
    child.kill("SIGCONT");
    t.equal(await new Promise((resolve) => child.on("exit", resolve)), 8);
  },
);

withFake(
  "the helper holds nothing of the caller's",
  FLAGS_2024,
  'sleep 5 >/dev/null 2>&1 </dev/null & echo $! >"$0.child"; exit 0',
  (t, bench, fake) => {
    const done = spawnSync(LAUNCHER, ["run"], { env: bench.env, stdio: ["pipe", "pipe", "pipe"] });
    t.equal(done.status, 0);
    const child = Number(fs.readFileSync(`${fake}.child`, "utf8"));
    const isAlive = bench.processes().some(({ pid }) => pid === child);
    t.ok(isAlive, "its output ends when runsc's does, not when its children's would");
    if (isAlive) process.kill(child, "SIGKILL");
  },
);

withFake(
  "a daemon is started when none answers, detached and untraced",
  FLAGS_2024,
  "sleep 0.3",
  async (t, bench) => {
    // A project of its own, since the launcher finds the daemon's program from where it is.
    const launcher = path.join(bench.dir, "build/native/burrow-runsc");
    const program = path.join(bench.dir, "dist/burrow.cjs");
    const seen = path.join(bench.dir, "daemon");
    for (const file of [launcher, program]) fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.copyFileSync(LAUNCHER, launcher);
    fs.writeFileSync(
      program,
      `const fs = require("node:fs");
    const status = fs.readFileSync("/proc/self/status", "utf8");
    const links = ["0", "1", "2"].map((fd) => fs.readlinkSync("/proc/self/fd/" + fd));
    const session = fs.readFileSync("/proc/self/stat", "utf8").split(" ")[5] === String(process.pid);
    const argv = process.argv.slice(2);
    fs.writeFileSync("${seen}.new", JSON.stringify({ argv, links, session, status }));
    fs.renameSync("${seen}.new", "${seen}");`,
    );
    const cache = path.join(bench.dir, "c".repeat(120)); // longer than a socket's path may be
    fs.mkdirSync(cache);
    bench.env["BURROW_CACHE"] = cache;
    const run = async (env: Record<string, string>) => {
      fs.rmSync(seen, { force: true });
      t.equal(bench.exec([launcher, "run"], env).code, 0);
    };
    const started = () => fs.existsSync(seen);
    await run({ BURROW_NO_DAEMON: "1" });
    await sleep(300);
    t.notOk(started(), "not when told not to");
    await run({ BURROW_NO_DAEMON: "" });
    t.ok(await until(started), "it is started");
    const { argv, links, session, status } = JSON.parse(fs.readFileSync(seen, "utf8")) as {
      argv: string[];
      links: string[];
      session: boolean;
      status: string;
    };
    t.same(argv, ["daemon", "start", "--cache", cache]);
    t.same(links, ["/dev/null", "/dev/null", "/dev/null"]);
    t.ok(session, "a session of its own");
    t.match(status, "TracerPid:\t0");

    const near = process.cwd();
    process.chdir(cache); // for the same bound on our side
    const server = net.createServer().listen("daemon.sock");
    await new Promise((resolve) => server.on("listening", resolve));
    process.chdir(near);
    await run({ BURROW_NO_DAEMON: "" });
    await sleep(300);
    t.notOk(started(), "not when one answers");
    await new Promise((resolve) => server.close(resolve));
  },
);

t.test("its own words", async (t) => {
  const help = spawnSync(LAUNCHER, ["--burrow-help"], { encoding: "utf8" });
  t.equal(help.status, 0);
  for (const name of [
    "RUNSC",
    "STUB",
    "NODE",
    "NODE_FLAGS",
    "GOFER",
    "STATE",
    "CACHE",
    "NO_DAEMON",
    "SHARED",
    "LOG",
  ]) {
    t.match(help.stdout, new RegExp(`^ {2}BURROW_${name} `, "m"));
  }
  t.match(
    spawnSync(LAUNCHER, ["--burrow-version"], { encoding: "utf8" }).stdout,
    /^burrow-runsc \d/,
  );
});
