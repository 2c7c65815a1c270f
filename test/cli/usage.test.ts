// Owns: proof that the command line says what it does, and refuses what it can't in one line. Plane: control.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import type { Command } from "commander";
import { t as file, test } from "tap";
import { makeProgram } from "../../lib/cli/program.ts";
import { helpOf } from "../suite/command-page.ts";
import { until } from "../suite/wait.ts";
import { newNode, ZEROS } from "./cli.ts";

/** For dozens of commands, each a process, on a busy machine. */
const PATIENCE_MS = 600_000;
file.setTimeout(PATIENCE_MS);

/** Every command and group below one, with the words that name it: "env", "env create". */
function* commandsOf(command: Command, above = ""): Generator<[words: string, command: Command]> {
  for (const child of command.commands) {
    const words = `${above}${child.name()}`;
    yield [words, child];
    yield* commandsOf(child, `${words} `);
  }
}

/** Those that list a store or write to it. */
const LISTED = new Set([
  ...["stats", "verify", "check", "gc", "pin", "unpin", "pins"].map((name) => `store ${name}`),
  ...["env create", "env ls", "layer import", "layer ls"],
]);

test("every command has help with an example", {
  timeout: PATIENCE_MS,
}, async (t) => {
  const node = newNode(t);
  const top = await node.run(["--help"]);
  t.equal(top.code, 0);
  const completed = (await node.run(["completion", "bash"])).stdout;
  for (const [words, command] of commandsOf(makeProgram())) {
    const help = helpOf(command);
    // Among its examples is one of itself.
    t.match(help, new RegExp(`\\nExamples?:\n(  .*\n)*  .*burrow ${words}\\b`), words);
    t.notMatch(help, /default: \[\]/, words);
    t.notMatch(help, /^Usage: .*[<[][A-Z]/, `${words}: arguments are named in small letters`);
    if (LISTED.has(words)) t.match(help, /a directory or an s3 URL/, words);
    t.match(top.stdout, new RegExp(`\n  ${words.split(" ")[0]} `), words);
    t.ok(completed.includes(`" ${words}") names=`), `${words} is completed`);
  }
  const deep = await node.run(["help", "profile", "show"]);
  t.match([deep.code, deep.stdout], [0, /^Usage: burrow profile show /]);
  t.match((await node.run(["--version"])).stdout, /^\d+\.\d+\.\d+\n$/);
  const none = await node.run([]);
  t.equal(none.code, 2, "no command");
  t.match(none.stderr, /Usage: burrow/);
  t.equal(none.stdout, "");
});

test("what is wrong with the words is said in one line, exit 2, before anything is done", {
  timeout: PATIENCE_MS,
}, async (t) => {
  const node = newNode(t);
  fs.mkdirSync(node.path("base"));
  const query = ["run", "--base", "base"];
  const cases: [string[], RegExp][] = [
    [["rnu"], /unknown command 'rnu' \(Did you mean run\?\)/],
    [["bogus", "--help"], /unknown command 'bogus'; burrow --help says more/],
    [["layer", "nope", "-h"], /unknown command 'nope'; burrow layer --help says more/],
    [["preload", "--profile", ".", "sha256:12"], /--profile: \. is a directory/],
    [["preload", "sha256:12"], /"sha256:12" is no digest/],
    [["layer", "nope"], /unknown command 'nope'; burrow layer --help says more/],
    [["env", "create"], /missing required argument 'input'; burrow env create --help says more/],
    [["env", "create", "numpy", "pandas"], /specs need a channel: --channel/],
    [["layer", "import", "http://127.0.0.1:9/x.tar"], /x\.tar is no file .*: download it first/],
    [["layer", "import", "six-1-0.conda"], /a conda package: burrow env create takes it/],
    [[...query, "--nope", "ls"], /unknown option '--nope'/],
    [["run", "--nope", "--", "ls"], /unknown option '--nope'/],
    [["env", "compile", "--nope", "x"], /unknown option '--nope'/],
    [["env", "compile", "x"], /required option '--base <BASE>' not specified/],
    [["run", "--", "ls"], /required option '--base <BASE>' not specified/],
    [["run", "--base"], /'--base <BASE>' argument missing/],
    [query, /missing required argument 'command'/],
    [["run", "--base", "nosuch", "--", "ls"], /--base nosuch is no digest .* and no file/],
    [
      ["run", "--base", "sha256:12", "--", "ls"],
      /"sha256:12" is no digest; say .* 6 or more, with or without sha256:/,
    ],
    [[...query, "--env", "nosuch", "ls"], /--env nosuch is no digest .* and no lock/],
    [[...query, "--env", "0bc5", "ls"], /--env 0bc5 is no digest \(or 6 and more digits of one\)/],
    [[...query, "--tmp-size", "1Q", "ls"], /--tmp-size: "1Q" is no size/],
    [[...query, "--tmp-size", "1", "ls"], /at least 4K/],
    [[...query, "--memory", "much", "ls"], /--memory: "much" is no size/],
    [[...query, "--stage", "data", "ls"], /--stage: "data" is not NAME=SOURCE/],
    [[...query, "--stage", "../x=base", "ls"], /--stage: "\.\.\/x" is no name/],
    [[...query, "--stage", "a=", "ls"], /names no source/],
    [[...query, "--stage", `${"x".repeat(256)}=base`, "ls"], /longer than 255 bytes/],
    [[...query, "--stage", "a=nosuch", "ls"], /--stage: nosuch does not exist/],
    [[...query, "--stage", "a=/etc/passwd", "ls"], /--stage: \/etc\/passwd is no directory/],
    [["stage", "create", "nosuch"], /nosuch is no directory/],
    [[...query, "--stage", "a=base", "--stage", "a=base", "ls"], /two of the name a/],
    [[...query, "--bind", "/a:/b", "ls"], /--bind: "\/a:\/b" is not PATH=SOURCE\[:rw\]/],
    [
      ["run", "--base", "http://127.0.0.1:9/x.tar", "ls"],
      /x\.tar is no digest .*: download it first/,
    ],
    [[...query, "--bind", "x=base", "ls"], /--bind: x is no absolute path/],
    [[...query, "--bind", "/x=nosuch", "ls"], /--bind: nosuch does not exist/],
    [[...query, "--bind", "/x/..=base", "ls"], /--bind: "\/x\/.." is the root, which --base gives/],
    [[...query, "--bind", "/x=", "ls"], /--bind: "\/x=" names no source/],
    [[...query, "--set-env", "=x", "ls"], /--set-env: "=x" is not NAME=VALUE/],
    [[...query, "--user", "me", "ls"], /--user: "me" is no UID/],
    [[...query, "--user", "root", "ls"], /"root" is no UID\[:GID\]: say numbers; root is 0/],
    [[...query, "--user", "4294967295", "ls"], /--user/],
    [[...query, "--stage", "a=ftp://h/x", "ls"], /ftp:\/\/h\/x: give a directory or an http/],
    [["layer", "ls", "--store", "file://host/x"], /file:\/\/host\/x: give a directory/],
    [["env", "create", "./base"], /\.\/base is a directory: give a file, or a channel by/],
    [[...query, "--cwd", "tmp", "ls"], /--cwd: tmp is no absolute path/],
    [[...query, "--network", "most", "ls"], /Allowed choices are none, sandbox, host;/],
    [[...query, "--platform", "most", "ls"], /Allowed choices are systrap, ptrace, kvm;/],
    [["bundle", "--base", "base", "--id", "a/b", "out", "ls"], /--id: "a\/b" is no mount id/],
    [["bundle-rm", "../x"], /"\.\.\/x" is no mount id: .*\/mounts has all/],
    [["layer", "show", "sha256:zz"], /"sha256:zz" is no digest/],
    [["env", "show", "zz"], /"zz" is no digest/],
    [["daemon", "start", "--idle", "soon"], /--idle: "soon" is no number of seconds/],
    [["daemon", "start", "--cache-bytes", "soon"], /--cache-bytes: "soon" is no size/],
    [[...query, "--base", "other", "ls"], /--base is given twice, and takes one value/],
    [[...query, "--network", "none", "--network=host", "ls"], /--network is given twice/],
    [["env", "create", "--lock", "a", "--lock", "a", "b.txt"], /--lock is given twice/],
    [["store", "stats", "--store", "a", "--store", "b"], /--store is given twice/],
    [[...query, "--env", "", "ls"], /--env has an empty value: is a variable empty/],
    [[...query, "--env", "--", "ls"], /--env has no value, -- comes next: is a variable empty/],
    [[...query, "--env", "--stage", "a=base"], /--env has no value, --stage comes next/],
    [[...query, "--set-env", "--", "ls"], /--set-env has no value, -- comes next/],
    [["preload", "--store", "a", "--to", "b", "c.txt"], /--to takes the place of --store/],
  ];
  const outcomes = await node.runAll(cases.map(([words]) => words));
  for (const [i, { code, stdout, stderr }] of outcomes.entries()) {
    const [words, pattern] = cases[i]!;
    t.equal(code, 2, words.join(" "));
    t.equal(stdout, "");
    t.match(stderr, pattern);
    t.match(stderr, /^burrow: [^\n]* \(BURROW_USAGE\)\n$/, words.join(" "));
  }
  const metrics = await node.run(["daemon", "metrics", "--json"]);
  t.match(metrics, { code: 2, stderr: /burrow daemon status --json has the figures/ });
  t.equal(fs.existsSync(node.path("base/store")), false);
  t.equal(fs.existsSync(`${node.store}/indexes`), false, "nothing was imported");
});

test("what can be told from the words is told before long work", async (t) => {
  const node = newNode(t);
  fs.mkdirSync(node.path("base"));
  fs.mkdirSync(node.path("folder"));
  // Whoever reads these would fail otherwise.
  for (const name of ["lock.txt", "base.tar", "a-1-0.conda"]) node.file(name, "junk");
  const away = ["--store", "http://127.0.0.1:9"];
  const create = ["env", "create", "lock.txt"];
  const cases: [string[], RegExp][] = [
    [[...create, "--lock", "none/x.txt"], /--lock: there is no directory .*none.*BURROW_USAGE/],
    [[...create, "--lock", "folder"], /--lock: folder is a directory.*BURROW_USAGE/],
    [[...create, "--prefix", "opt/env"], /--prefix: "opt\/env" is no absolute.*BURROW_USAGE/],
    [[...create, "--python", "new"], /"new" is no version of Python.*BURROW_USAGE/],
    [[...create, ...away], /an HTTP origin can't be written.*BURROW_UNSUPPORTED/],
    [["preload", "lock.txt", ...away], /an HTTP origin can't be written.*BURROW_UNSUPPORTED/],
    [["preload", "lock.txt", "--python", "new"], /"new" is no version.*BURROW_USAGE/],
    [["env", "compile", "--base", "base", ZEROS, ...away], /can't be written.*BURROW_UNSUPP/],
    [["env", "compile", "--base", "base", "--memory", "x", ZEROS], /--memory: "x" is no size/],
    [["run", "--base", "base.tar", "--stats-file", "none/x", "ls"], /--stats-file: there is no/],
    [["run", "--base", "base.tar", ...away, "--", "ls"], /can't be written.*BURROW_UNSUPP/],
    [["run", "--base", ZEROS, "--env", "lock.txt", ...away, "--", "ls"], /can't be written/],
    [["layer", "import", "base.tar", "none.tar"], /can't read none\.tar.*BURROW_NOT_FOUND/],
    [["layer", "import", "base.tar", "lock.txt", "a-1-0.conda"], /a conda package: burrow env/],
  ];
  node.file("x-1-py3-none-any.whl", "junk");
  cases.push([["layer", "import", "base.tar", "x-1-py3-none-any.whl"], /say for which --python/]);
  const outcomes = await node.runAll(cases.map(([words]) => words));
  for (const [i, { code, stdout, stderr }] of outcomes.entries()) {
    const [words, pattern] = cases[i]!;
    t.not(code, 0, words.join(" "));
    t.equal(stdout, "");
    t.match(stderr, pattern);
    t.match(stderr, /^burrow: [^\n]*\n$/, "nothing was done before");
  }
  t.notOk(fs.existsSync(node.store));
});

test("what isn't there is named, exit 1", {
  timeout: PATIENCE_MS,
}, async (t) => {
  const node = newNode(t);
  const cases: [string[], RegExp, string][] = [
    [["layer", "show", ZEROS], /no layer or snapshot sha256:0+ \[store: /, "BURROW_NOT_FOUND"],
    [["layer", "ls"], /there is no store/, "BURROW_NOT_FOUND"],
    [
      ["layer", "ls", "--store", "http://127.0.0.1:9"],
      /can't be listed: name its directory/,
      "BURROW_UNSUPPORTED",
    ],
    [
      ["layer", "show", "abcdef", "--store", "http://127.0.0.1:9"],
      /can't be listed: name a whole digest/,
      "BURROW_UNSUPPORTED",
    ],
    [["layer", "import", "nosuch"], /can't read nosuch/, "BURROW_NOT_FOUND"],
    [["env", "show", ZEROS], /no environment sha256:0+/, "BURROW_NOT_FOUND"],
    [["env", "create", "./nosuch"], /there is no file \.\/nosuch/, "BURROW_NOT_FOUND"],
    [["env", "create", "/dev/zero"], /zero is no lock: it has more than/, "BURROW_BAD_LOCK"],
    [["bundle-rm", "nosuch"], /no mounts of nosuch/, "BURROW_NOT_FOUND"],
    [["run", "--base", ZEROS, "--", "ls"], /there is no store; burrow layer/, "BURROW_NOT_FOUND"],
  ];
  for (const [words, pattern, code] of cases) {
    const text = await node.run(words);
    t.equal(text.code, 1, words.join(" "));
    t.match(text.stderr, pattern);
    t.match(text.stderr, new RegExp(`^burrow: [^\n]* \\(${code}\\)\n$`));
    const at = words.indexOf("--") < 0 ? words.length : words.indexOf("--");
    const json = await node.run([...words.slice(0, at), "--json", ...words.slice(at)]);
    t.equal(json.stdout, "");
    t.equal(JSON.parse(json.stderr).error.code, code);
  }
  t.same(node.leftovers(), []);
  t.notOk(fs.existsSync(node.state) || fs.existsSync(node.cache), "no folder was made to find out");
});

test("--json: errors of usage, too; but not for a --json of the command's own", {
  timeout: PATIENCE_MS,
}, async (t) => {
  const node = newNode(t);
  for (const words of [
    ["rnu", "--json"],
    ["run", "--json", "--nope"],
    ["layer", "ls", "--json", "x"],
  ]) {
    const { code, stderr } = await node.run(words);
    t.equal(code, 2);
    t.match(JSON.parse(stderr), { error: { code: "BURROW_USAGE", context: {} } });
  }
  const { stderr } = await node.run(["run", "--base", "nosuch", "--", "x", "--json"]);
  t.match(stderr, /^burrow: /);
});

test("what an ordinary user may not do is refused with what to do", {
  skip: process.getuid?.() === 0 ? false : "needs root, to become somebody else",
}, async (t) => {
  const node = newNode(t);
  fs.mkdirSync(node.path("base"));
  for (const folder of [node.state, node.cache]) fs.mkdirSync(folder, { mode: 0o755 });
  t.equal((await node.run(["layer", "import", "base"])).code, 0);
  for (const words of [
    ["layer", "import", "base"],
    ["run", "--base", "base", "--", "ls"],
    ["run", "--base", ZEROS, "--", "ls"],
    ["daemon", "start"],
  ]) {
    const { code, stderr } = await node.run(words, { uid: 65534 });
    t.equal(code, 1, words.join(" "));
    t.match(stderr, /EACCES.*; you are not root: run it as root/, words.join(" "));
    if (words[0] === "run") t.match(stderr, /--state, --cache and --store name others/);
    t.notMatch(stderr, /unlink|rmdir/, "the first reason, not that of cleaning up");
  }
});

test("completion: bash is offered commands, options and their choices", async (t) => {
  const node = newNode(t);
  const script = node.file("complete", (await node.run(["completion", "bash"])).stdout);
  const offered = (...words: string[]) => {
    const code = `. "$0"; COMP_WORDS=(burrow "$@"); COMP_CWORD=$#; _burrow; echo "\${COMPREPLY[*]}"`;
    const { stdout, stderr } = spawnSync("bash", ["-c", code, script, ...words]);
    t.equal(String(stderr), "");
    return String(stdout).trim().split(" ");
  };
  t.same(offered("da"), ["daemon"]);
  t.same(offered("env", ""), ["create", "show", "ls", "compile", "rm"]);
  t.same(offered("env", "create", "--pre"), ["--prefix"]);
  t.same(offered("run", "--base", "env", "--st"), [
    "--state",
    "--store",
    "--stage",
    "--start-timeout",
    "--stats",
    "--stats-file",
  ]);
  t.same(offered("run", "--network", ""), ["none", "sandbox", "host"]);
  t.same(offered("run", "--base", ""), [""], "file names");
  t.same(offered("run", "--", "--st"), [""], "the command's own words");
  t.ok(offered("").length >= 8);
});

test("doctor: a table or JSON, 0 when fit and 1 when not, and nothing is made", {
  timeout: PATIENCE_MS,
}, async (t) => {
  const node = newNode(t);
  // One that starts whatever it is asked to: on a busy machine a real one may, or may not, within doctor's patience.
  const willing = { env: { BURROW_RUNSC: node.file("willing", "#!/bin/sh\nexit 0\n", 0o755) } };
  const text = await node.run(["doctor"], willing);
  const json = await node.run(["doctor", "--json"], willing);
  const findings = JSON.parse(json.stdout) as { name: string; state: string; detail: string }[];
  const isFit = findings.every(({ state }) => state !== "missing");
  t.same([text.code, json.code], isFit ? [0, 0] : [1, 1]);
  for (const { name, state, detail } of findings) {
    t.ok(["ok", "missing", "limited"].includes(state), name);
    t.ok(text.stdout.includes(name) && text.stdout.includes(detail.split(",")[0]!), name);
  }
  t.equal(fs.existsSync(node.state) || fs.existsSync(node.cache), false);
  const mute = node.file("runsc", "#!/bin/sh\nexit 1\n", 0o755);
  for (const [runsc, detail] of [
    ["/nosuch/runsc", /not found at/],
    [mute, /does not answer/],
  ] as const) {
    const bad = await node.run(["doctor", "--json"], { env: { BURROW_RUNSC: runsc } });
    t.equal(bad.code, 1);
    const found = (JSON.parse(bad.stdout) as typeof findings).find(({ name }) => name === "runsc");
    t.match(found, { state: "missing", detail });
  }
  const odd =
    '[ "$1" = --version ] && exit 0; case "$*" in *=ptrace*) exit 0;; *=kvm*) sleep 60;; esac; echo no >&2; exit 1';
  const some = node.file("some", `#!/bin/sh\n${odd}\n`, 0o755);
  const tried = await node.run(["doctor"], { env: { BURROW_RUNSC: some } });
  if (process.getuid?.() === 0) {
    t.match(
      tried.stdout,
      /limited +sandboxes +start on ptrace; not on systrap \(no\); not on kvm \(nothing started within 5 s\)/,
    );
    t.match(
      tried.stdout,
      /sandboxes: the platform that runsc takes by itself starts none \(no\): burrow run --platform ptrace/,
    );
    t.same(fs.readdirSync(node.env["TMPDIR"]!), []);
  }
  const quick = node.file("quick", "#!/bin/sh\nexit 0\n", 0o755);
  const other = await node.run(["doctor"], { env: { BURROW_NODE: mute, BURROW_RUNSC: quick } });
  t.match(other, { code: 1, stdout: /missing +server .* doesn't take .*: another one built it/ });
  const bad = await node.run(["doctor"], {
    env: { BURROW_STATE: `${mute}/state`, BURROW_RUNSC: quick },
  });
  t.equal(bad.code, 1);
  t.match(bad.stdout, /missing +state .* is not writable/);
  t.match(bad.stdout, /What to do:\n +state: name a writable folder/);
});

test("daemon start, status and stop; a variable that is empty is unset", async (t) => {
  const node = newNode(t);
  t.match(await node.run(["daemon", "status"]), { code: 1, stdout: "none runs\n" });
  t.match(await node.run(["daemon", "stop", "--json"]), { code: 0, stdout: '{"stopped":false}\n' });
  const daemon = node.start(["daemon", "start", "--idle", "0"]);
  let status = await node.run(["daemon", "status", "--json"]);
  await until(async () => {
    if (status.code !== 0) status = await node.run(["daemon", "status", "--json"]);
    return status.code === 0;
  });
  t.equal(JSON.parse(status.stdout).pid, daemon.pid);
  const text = await node.run(["daemon", "status"]);
  t.match(text, { code: 0, stdout: new RegExp(`^daemon +pid ${daemon.pid}, up \\d+ s, idle\n`) });
  t.match(text.stdout, new RegExp(`\ncache +${node.cache}\n`));
  const second = await node.run(["daemon", "start", "--cache-bytes", "1G", "--no-background"]);
  const why = `serves it already \\(pid ${daemon.pid}\\), for which --cache-bytes, --no-background would not hold`;
  t.match(second, { code: 1, stderr: new RegExp(`${why}.*BURROW_DAEMON`) });
  t.match(await node.run(["daemon", "start"]), { code: 0 }, "who wants any has one");
  t.match(await node.run(["daemon", "stop"]), { code: 0, stdout: "stopped\n" });
  t.match(await node.run(["daemon", "status", "--json"]), { code: 1, stdout: "null\n" });
  const doctor = await node.run(["doctor", "--json"], { env: { BURROW_STATE: "" } });
  t.match(doctor.stdout, /"name":"state","state":"\w+","detail":"\/var\/lib\/burrow/);
});

test("a command that waits for what never comes fails", async (t) => {
  const node = newNode(t);
  const never = node.file(
    "never.cjs",
    'require("node:net").connect = () => new (require("node:events").EventEmitter)();',
  );
  fs.mkdirSync(node.cache);
  const env = { NODE_OPTIONS: `--require ${never}` };
  const { code, stdout, stderr } = await node.run(["daemon", "status"], { env });
  t.equal(code, 1);
  t.equal(stdout, "");
  t.equal(stderr, "burrow: it waits for what never comes (BURROW_INTERNAL)\n");
});
