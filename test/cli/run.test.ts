// Owns: proof that burrow run passes through what a command line passes through, and leaves nothing. Needs root, runsc and a static
// busybox; skipped with the reason otherwise. Plane: control.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { type Test, test } from "tap";
import { isDaemonUp, stopDaemon } from "../../lib/cache/client.ts";
import { readTraceFile, type TraceContent } from "../../lib/cli/trace-file.ts";
import { exitOf, findRevisions, LAUNCHER } from "../conformance/runsc.ts";
import { isLong } from "../suite/long.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { LATE_MS, sleep, until } from "../suite/wait.ts";
import { busybox } from "./cli.ts";

const { found, reasons } = findRevisions();
for (const reason of reasons) console.error(`skipped: ${reason}`);
const skip = found.length === 0 ? reasons.join("; ") : false;

/** Of the first run that reads a stage: its own files are named, and so is what it waited for and had fetched. */
function checkTrace(
  t: Test,
  { head, files, marks, rpcs, misses, fetches, packages }: TraceContent,
): void {
  t.match(head, { exitCode: 0, dropped: 0, notes: [], command: ["/bin/sh", "-c", String] });
  t.same(
    marks.map(({ name }) => name),
    ["burrow run", "prepared", "runsc", "end"],
  );
  t.same(
    packages.map(({ title }) => title),
    ["(base)", "(/stage/data)"],
  );
  const opened = rpcs.filter(({ name, errno }) => name === "OpenAt" && errno === 0);
  const rows = files.findIndex(({ path }) => path === "/stage/data/rows.csv");
  t.ok(
    opened.some(({ file }) => file === rows),
    "what it opened has a name",
  );
  t.ok(
    misses.some(({ file }) => file === rows),
    "and so has what it waited for",
  );
  t.match(files[rows], { bytes: 4, package: 1 });
  t.ok(
    fetches.some(({ path, bytes }) => path === "rows.csv" && bytes === 4),
    "and was fetched",
  );
  const [, , runsc, end] = marks;
  t.ok(
    rpcs.every(({ ms }) => ms > runsc!.ms && ms < end!.ms),
    "all by one clock",
  );
}

for (const revision of found) {
  test(`${revision.name}: exit codes, streams and options of a command`, {
    timeout: 60_000,
  }, async (t) => {
    const { node, base } = await busybox(t, revision.path);
    const run = ["run", "--base", base, "--platform", "ptrace"];
    const sh = (script: string) => ["--", "/bin/sh", "-c", script];
    const [seven, killed, piped] = await Promise.all([
      node.run([...run, ...sh("cat /etc/greeting; echo bad >&2; exit 7")]),
      node.run([...run, ...sh("kill -9 $$")]),
      node.run([...run, "--", "/bin/cat"], { input: "through\n" }),
    ]);
    t.match(seven, { code: 7, stdout: "hello\n", stderr: "bad\n" });
    t.equal(killed.code, 137);
    t.match(piped, { code: 0, stdout: "through\n" });
    node.file("data/rows.csv", "1,2\n");
    node.file("bound/note", "bound\n");
    fs.mkdirSync(node.path("written:rw"));
    fs.mkdirSync(node.path("written"), { mode: 0o777 });
    fs.chownSync(node.path("written"), 12, 34);
    const options = [
      "--stage",
      "data=data",
      "--bind",
      "/mnt/b=bound",
      "--bind",
      "/etc/made/note=bound/note",
      "--bind",
      "/mnt/w=written:rw",
      "--bind",
      "/mnt/r=written:rw:ro",
      "-e",
      "A=b=c",
      "--cwd",
      "/tmp",
    ];
    const more = ["--user", "12:34", "--tmp-size", "1M", "--stats-file", "stats.json"];
    more.push("--trace", "trace.jsonl");
    const script = `pwd; id -u; id -g; echo $A; cat /stage/data/rows.csv /mnt/b/note /etc/made/note
      (echo x > /stage/data/new) 2>/dev/null || echo stage is read-only
      (echo x > /mnt/b/new) 2>/dev/null || echo bind is read-only
      echo result > /mnt/w/out; (echo x > /mnt/r/new) 2>/dev/null || echo this too
      echo kept > f && cat f; dd if=/dev/zero of=/tmp/big bs=64k count=32 2>&1 | grep -o "No space.*"`;
    const file = node.path("out");
    const all = await node.run(
      [...run, ...options, ...more, ...sh(script.replace("grep", "busybox grep"))],
      {
        stdoutFile: file,
      },
    );
    t.equal(all.code, 0, all.stderr);
    t.same(
      fs.readFileSync(file, "utf8").split("\n"),
      [
        ..."/tmp,12,34,b=c,1 2,bound,bound,stage is read-only,bind is read-only,this too,kept".split(
          ",",
        ),
        "No space left on device",
        "",
      ].map((line) => line.replace("1 2", "1,2")),
    );
    t.equal(fs.readFileSync(node.path("written/out"), "utf8"), "result\n");
    t.match(fs.statSync(node.path("written/out")), { uid: 12, gid: 34 });
    const stats = JSON.parse(fs.readFileSync(node.path("stats.json"), "utf8"));
    t.match(stats, { exitCode: 0, seconds: Number, prepareSeconds: Number, viewBytes: Number });
    t.match(stats, {
      fetched: { requests: Number, bytes: Number },
      counters: { requests: Object },
    });
    checkTrace(t, readTraceFile(node.path("trace.jsonl")));
    const again = await node.run([
      ...run,
      "--user",
      "0",
      "--shared",
      "--tenant=acme",
      "--stats",
      "--json",
      ...sh("cat /etc/greeting; touch /etc/x"),
    ]);
    t.equal(again.code, 1);
    t.match(again.stderr, /Read-only file system/);
    const warm = JSON.parse(again.stderr.split("\n").find((line) => line.startsWith("{"))!);
    t.same(warm.fetched, { requests: 0, bytes: 0 }, "the second run fetches nothing");
    t.match(warm.sharing, {
      isShared: false,
      reason: /none to share .*burrow daemon start --shared/,
    });
    t.same(node.leftovers(), []);
  });

  test(`${revision.name}: signals reach the command, or end it, and nothing stays`, {
    timeout: 60_000,
  }, async (t) => {
    const { node, base } = await busybox(t, revision.path);
    const run = ["run", "--base", base, "--platform", "ptrace", "--", "/bin/sh", "-c"];
    const start = async (script: string, signal: NodeJS.Signals) => {
      const child = node.start([...run, `echo ready; ${script}`]);
      let out = "";
      child.stdout!.setEncoding("utf8").on("data", (text: string) => {
        out += text;
      });
      t.ok(await until(() => out.includes("ready")), "started");
      child.kill(signal);
      return { code: await exitOf(child), out };
    };
    const sleeper = "while :; do sleep 1; done";
    const [term, int, trapped] = await Promise.all([
      start(sleeper, "SIGTERM"),
      start(sleeper, "SIGINT"),
      start(`trap 'echo got; exit 5' TERM; ${sleeper}`, "SIGTERM"),
    ]);
    t.same([term.code, int.code, trapped.code], [143, 130, 5]);
    t.match(trapped.out, /got/, "the command had its chance");
    // At any time before it runs, too.
    const ended = [30, 80, 130, 200, 300, 500].map(async (ms) => {
      const child = node.start([...run, "sleep 20"]);
      await sleep(ms);
      child.kill("SIGTERM");
      t.equal(await exitOf(child), 143, `after ${ms} ms`);
    });
    await Promise.all(ended);
    t.ok(await until(() => node.processes().length === 0), node.processes().join("\n"));
    t.same(node.leftovers(), []);
  });
}

test("a command that isn't there is 127, one that can't be run is 126", { skip }, async (t) => {
  const { node, base } = await busybox(t);
  node.file("tools/bin/tool", "#!/bin/sh\nexit 3\n", 0o755);
  const run = ["run", "--base", base, "--platform", "ptrace", "--stage", "tools=tools"];
  const inTools = ["-e", "PATH=/nosuch:/stage/tools/bin"];
  const cases: [string[], number][] = [
    [["--", "nosuch"], 127],
    [["--", "/bin/nosuch"], 127],
    [["--", "/stage/tools/nosuch"], 127],
    [["--cwd", "/bin", "--", "./nosuch"], 127],
    [["--", "/etc/greeting/x"], 127],
    [["--", "/etc/greeting"], 126],
    [["--", "/etc"], 126],
    [["--", "/stage"], 126],
    [[...inTools, "--", "tool"], 3],
    [[...inTools, "--", "sh"], 127],
    [["--", "/bin/sh", "-c", "exit 128"], 128],
    [["--", "/tmp/nosuch"], 128], // only the sandbox knows its /tmp
    [["--cwd", "/nosuch", "--", "ls"], 128],
  ];
  // A sandbox each: every other one is for the long run.
  for (const [words, code] of isLong ? cases : cases.filter((_, i) => i % 2 === 0)) {
    const { stderr, ...ended } = await node.run([...run, "--json", ...words]);
    t.equal(ended.code, code, words.join(" "));
    const isTold = code > 3 && !/exit|\/tmp/.test(words.at(-1)!);
    const errors = stderr.split("\n").filter((line) => line.startsWith("{"));
    t.equal(errors.length, isTold ? 1 : 0, stderr);
    if (!isTold) continue;
    const { error } = JSON.parse(errors[0]!);
    t.match(error, { code: "BURROW_START", context: { exitCode: code } });
    t.match(error.message, code === 126 ? /may execute/ : /the sandbox has no /);
  }
  const { stderr } = await node.run([...run, "--", "nosuch"]);
  t.match(stderr, /\nburrow: the sandbox has no nosuch in its PATH \(.*\(BURROW_START\)\n$/);
  const bad = await node.run([...run, "--json", "--runsc-flag=--nope", "--", "ls"]);
  t.not(bad.code, 0);
  t.match(JSON.parse(bad.stderr.trim().split("\n").at(-1)!), { error: { code: "BURROW_START" } });
  t.same(node.leftovers(), []);
});

test("an ordinary user whom runsc refuses is told what to do", { skip }, async (t) => {
  const { node } = await busybox(t);
  fs.chmodSync(node.env["TMPDIR"]!, 0o777);
  fs.mkdirSync(node.path("own"));
  fs.chmodSync(node.path("own"), 0o777);
  const env = Object.fromEntries(
    ["STATE", "CACHE", "STORE"].map((name) => [`BURROW_${name}`, node.path(`own/${name}`)]),
  );
  t.teardown(() => stopDaemon(node.path("own/CACHE")));
  const words = ["run", "--base", "base", "--", "/bin/ls"];
  const { code, stderr } = await node.run(words, { env, uid: 65534 });
  t.not(code, 0);
  t.match(
    stderr,
    /\nburrow: .*; you are not root: run it as root; "burrow doctor".*\(BURROW_START\)/,
  );
});

test("an origin that lost its packs gives EIO, not a hang", { skip }, async (t) => {
  const { node, base } = await busybox(t);
  node.env["BURROW_FORESIGHT"] = "off"; // it would fetch the pack's half MiB that has both
  const server = await OriginServer.start(node.store);
  t.teardown(() => server.close());
  // Busybox is in the cache by this run; the file isn't, and can't be had any more.
  const run = ["run", "--store", server.url, "--base", base, "--", "/bin/sh", "-c"];
  t.equal((await node.run([...run, ":"])).code, 0);
  server.fault = (file) => (file.startsWith("packs/") ? "404" : "none");
  const startedMs = performance.now();
  const { code, stderr } = await node.run([...run, "cat /etc/greeting"]);
  t.equal(code, 1);
  t.match(stderr, /Input\/output error|I\/O error/);
  t.match(
    stderr,
    /^burrow: \d+ reads? .* can't be reached or lacks them; the last: .*404.*origin: http:.* \(BURROW_ORIGIN\)$/m,
  );
  const json = await node.run(["run", "--json", ...run.slice(1), "cat /etc/greeting"]);
  const last = json.stderr.trim().split("\n").at(-1)!;
  t.match(JSON.parse(last), { error: { code: "BURROW_ORIGIN", message: /failed with EIO.*404/ } });
  const quiet = await node.run([...run, "exit 3"]);
  t.match(quiet, { code: 3, stderr: /^$/ }, "an older failure is not this run's");
  t.ok(performance.now() - startedMs < 3 * LATE_MS);
  t.same(node.leftovers(), []);
});

/** A tmpfs of a size at a folder. */
function smallDisk(t: Test, folder: string, size: string): void {
  fs.mkdirSync(folder, { recursive: true });
  const args = ["-t", "tmpfs", "-o", `size=${size}`, "burrow-test", folder];
  t.equal(spawnSync("mount", args).status, 0);
  t.teardown(async () => {
    await stopDaemon(folder);
    spawnSync("umount", ["-l", folder]); // a newer runsc leaves a mount of its own in it
  });
}

test("a full disk is named with the file, and nothing stays", { skip }, async (t) => {
  const { node, base } = await busybox(t);
  smallDisk(t, node.state, "64k");
  fs.writeFileSync(`${node.state}/filler`, Buffer.alloc(64 * 1024));
  const run = ["run", "--base", base, "--platform", "ptrace"];
  const full = await node.run([...run, "--", "/bin/pwd"]);
  t.equal(full.code, 1);
  t.match(full.stderr, /^burrow: [^\n]*state\/mounts\/[^\n]*\(BURROW_NO_SPACE\)\n$/);
  t.same(node.leftovers(), []);
  fs.rmSync(`${node.state}/filler`);
  t.match(await node.run([...run, "--", "/bin/pwd"]), { code: 0, stdout: "/\n" });
  const words = ["--stats-file", "/dev/full", "--", "/bin/pwd"];
  const stats = await node.run([...run, ...words]);
  t.match(stats, { code: 1, stderr: /\/dev\/full[^\n]*\(BURROW_NO_SPACE\)\n$/ });
});

test("a full cache is named when reads fail for it", { skip }, async (t) => {
  const { node, base } = await busybox(t);
  smallDisk(t, node.cache, "512k"); // busybox alone is larger
  // Else it would be served from memory.
  node.start(["daemon", "start", "--memory-bytes", "0"]);
  await until(() => isDaemonUp(node.cache));
  const { code, stderr } = await node.run(["run", "--base", base, "--", "/bin/sh", "-c", ":"]);
  t.not(code, 0);
  t.match(
    stderr,
    /^burrow: \d+ reads? .* is full: free some space; the last: .* \(BURROW_NO_SPACE\)$/m,
  );
  t.same(node.leftovers(), []);
});

test("a bundle runs under burrow-runsc, and goes with bundle-rm", { skip }, async (t) => {
  const { node, base } = await busybox(t);
  const words = ["bundle", "--base", base, "--id", "one", "out", "--", "/bin/cat", "/etc/greeting"];
  t.match(await node.run(words), { code: 0, stdout: "one\n" });
  t.match(await node.run(words), { code: 2, stderr: /config\.json exists/ });
  const second = words.map((word) => (word === "out" ? "other" : word));
  t.match(await node.run(second), { code: 2, stderr: /there is a mount one/ });
  const globals = [`--root=${node.path("run")}`, "--network=none", "--ignore-cgroups"];
  const flags = [
    ...globals,
    "--platform=ptrace",
    "run",
    `--bundle=${node.path("out")}`,
    "burrow-cli-one",
  ];
  const { status, stdout } = spawnSync(LAUNCHER, flags, {
    env: node.env,
    encoding: "utf8",
    timeout: 30_000,
  });
  t.equal(status, 0);
  t.equal(stdout, "hello\n");
  t.same(node.leftovers().sort(), ["mounts/one", "mounts/one-tmp"]);
  t.match(await node.run(["bundle-rm", "one"]), { code: 0, stdout: "" });
  t.same(node.leftovers(), []);
  // A pipe of the shell's: Node would give a socket for stderr, which the gofer can't open by its name.
  const late = (env: NodeJS.ProcessEnv) => {
    const script = ["-c", '"$@" 2>&1 | cat', "sh", LAUNCHER, ...flags];
    return spawnSync("sh", script, { env, encoding: "utf8", timeout: 30_000 }).stdout;
  };
  t.match(late(node.env), /^burrow gofer: failed to start: no mount one: .*mount\.json/m);
  t.notMatch(late({ ...node.env, BURROW_LOG: node.path("gofer.log") }), /no mount one/);
  t.match(fs.readFileSync(node.path("gofer.log"), "utf8"), /failed to start: no mount one/);
});
