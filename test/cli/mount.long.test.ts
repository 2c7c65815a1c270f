// burrow mount at length: each signal, either of its processes killed, and who isn't root. Needs root and /dev/fuse. Plane: control.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { mountedAt } from "../../lib/sys/mounted.ts";
import { exitOf } from "../conformance/runsc.ts";
import { noFuse } from "../suite/fuse.ts";
import { FuseDoor } from "../suite/fuse-door.ts";
import { findFusermount } from "../suite/fusermount.ts";
import { until } from "../suite/wait.ts";
import { MAIN } from "./cli.ts";
import { coverAndEnd, makeNode, start } from "./mount-node.ts";

const skip = noFuse;
const NOBODY = 65_534;

test("each signal unmounts it, with files open, too", { skip }, async (t) => {
  const { node, at } = makeNode(t);
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    const { child, said } = await start(node, ["tree", at]);
    const open = fs.openSync(path.join(at, "README"), "r");
    child.kill(signal);
    t.equal(await exitOf(child), 0, signal);
    t.equal(mountedAt(at), undefined);
    t.ok(await until(() => !fs.existsSync(`/proc/${said.server}`)));
    try {
      fs.closeSync(open);
    } catch {} // it would ask the server
  }
  t.strictSame(node.leftovers(), []);
});

test("whichever process dies, the mount goes", { skip }, async (t) => {
  const { node, at } = makeNode(t);
  const first = await start(node, ["tree", at]);
  process.kill(first.said.server, "SIGKILL");
  t.equal(await exitOf(first.child), 1, "the command says that it failed");
  t.equal(mountedAt(at), undefined);
  const second = await start(node, ["tree", at]);
  second.child.kill("SIGKILL");
  t.ok(await until(() => mountedAt(at) === undefined), "the server takes it away");
});

test("when both are killed at once, the mount goes, too", { skip }, async (t) => {
  const { node, at } = makeNode(t);
  const { child, said } = await start(node, ["tree", at]);
  child.kill("SIGKILL");
  process.kill(said.server, "SIGKILL");
  t.ok(await until(() => mountedAt(at) === undefined), "the guard takes it away");
});

test("an upper is in use until the server of a killed command has ended", { skip }, async (t) => {
  const { node, at } = makeNode(t);
  const words = ["--upper", "changes", "tree", at];
  const { child, said } = await start(node, words);
  process.kill(said.server, "SIGSTOP");
  child.kill("SIGKILL");
  await exitOf(child);
  t.ok(await until(() => mountedAt(at) === undefined));
  t.match((await node.run(["mount", ...words])).stderr, /changes is used by another/);
  process.kill(said.server, "SIGCONT");
  t.ok(await until(() => !fs.existsSync(`/proc/${said.server}`)), "it ends by itself");
  const next = await start(node, words);
  next.child.kill("SIGTERM");
  t.equal(await exitOf(next.child), 0);
});

test("who isn't root is told of fusermount3", { skip }, async (t) => {
  const { node } = makeNode(t);
  fs.chmodSync(node.dir, 0o777);
  const at = node.path("theirs");
  fs.mkdirSync(at);
  fs.chownSync(at, NOBODY, NOBODY);
  const env = { PATH: path.dirname(process.execPath), TMPDIR: node.dir };
  const { code, stderr } = await node.run(["mount", "--quiet", "tree", at], { uid: NOBODY, env });
  t.equal(code, 1);
  t.match(stderr, /who isn't root needs fusermount3; install the package fuse3/);
});

test("bytes that can't be had are an error, never zeros", { skip }, async (t) => {
  const { node, at } = makeNode(t);
  const content = Buffer.alloc(6_000_000, "not zeros ");
  node.file("tree/large", content);
  const { stdout, stderr } = await node.run(["layer", "import", "--snapshot", "tree"]);
  t.match(stdout, /^sha256:/, stderr);
  const { child, said } = await start(node, [stdout.trim(), at]);
  fs.renameSync(path.join(node.store, "packs"), path.join(node.store, "away"));
  for (const name of ["sub/f", "large"]) {
    const tried = spawnSync("cat", [path.join(at, name)], { maxBuffer: 1 << 24 });
    t.not(tried.status, 0, name);
    t.match(tried.stderr.toString(), /Input\/output error/);
    t.equal(tried.stdout.length, 0);
  }
  fs.renameSync(path.join(node.store, "away"), path.join(node.store, "packs"));
  const isBack = () =>
    spawnSync("cmp", [path.join(at, "large"), node.path("tree/large")]).status === 0;
  t.ok(await until(isBack), "and they are read once they can be");
  t.ok(fs.existsSync(`/proc/${said.server}`));
  child.kill("SIGTERM");
  t.equal(await exitOf(child), 0);
});

test("find, diff and tar see what was imported", { skip }, async (t) => {
  const { node, at } = makeNode(t);
  for (let i = 0; i < 300; i++) node.file(`tree/sub/${i % 7}/f${i}`, `${i} `.repeat(37 * i));
  node.file("tree/large", Buffer.alloc(5_000_000, "large "));
  fs.symlinkSync("sub/f", node.path("tree/link"));
  fs.linkSync(node.path("tree/README"), node.path("tree/second"));
  fs.utimesSync(node.path("tree/README"), 1, 2.25);
  const { child } = await start(node, ["tree", at]);
  const told = (program: string, ...words: string[]) =>
    [node.path("tree"), at].map((cwd) => {
      const { stdout, stderr } = spawnSync(program, words, { cwd, maxBuffer: 1 << 28 });
      return stdout.toString("latin1") + stderr.toString();
    });
  const facts = ["-printf", "%P %y %m %n %U %G %T@ %l\n"];
  const [wanted, found] = told("find", ".", ...facts).map((text) => text.split("\n").sort());
  t.strictSame(found, wanted);
  const [packed, repacked] = told(
    "tar",
    "-c",
    "--sort=name",
    "--format=pax",
    "--pax-option=delete=?time",
    ".",
  );
  t.ok(packed === repacked, "the same archive, hard links too");
  t.equal(spawnSync("diff", ["-r", node.path("tree"), at]).status, 0);
  child.kill("SIGTERM");
  t.equal(await exitOf(child), 0);
});

test("a directory of 100,000 names", { skip }, async (t) => {
  const files: Record<string, string> = { wide: "/" };
  for (let i = 0; i < 100_000; i++) files[`wide/n${i}`] = "x";
  const door = await FuseDoor.openView(t, files);
  const names = fs.readdirSync(door.path("wide"));
  t.equal(new Set(names).size, 100_000);
  const found = spawnSync("find", [door.path("wide"), "-size", "1c"], { maxBuffer: 1 << 26 });
  t.equal(found.stdout.toString().split("\n").length - 1, 100_000);
});

test("who isn't root mounts by fusermount3", { skip }, async (t) => {
  const helper = findFusermount();
  if (helper.skip !== false) {
    t.pass("skipped", { skip: helper.skip });
    return;
  }
  const { node } = makeNode(t);
  fs.chmodSync(node.dir, 0o777);
  const at = node.path("theirs");
  fs.mkdirSync(at);
  fs.chownSync(at, NOBODY, NOBODY);
  // A /dev/fuse for all, as udev makes it, and the helper as its package installs it, in a mount namespace of its own.
  const machine = `mount -t tmpfs t /mnt; mknod /mnt/fuse c 10 229; chmod 666 /mnt/fuse; mount -B /mnt/fuse /dev/fuse
mkdir /mnt/bin; cp ${helper.program} /mnt/bin/fusermount3; chmod 4755 /mnt/bin/fusermount3; PATH=/mnt/bin:$PATH`;
  const user = `setpriv --reuid ${NOBODY} --regid ${NOBODY} --clear-groups`;
  const burrow = `${process.execPath} --no-warnings ${MAIN}`;
  const script = `${machine}; run() { ${user} "$@"; }
said=$(run ${burrow} mount -d --json --quiet tree ${at}) && run cat ${at}/README; cat ${at}/README
server=$(echo "$said" | sed 's/.*"server":\\([0-9]*\\).*/\\1/'); grep -E 'Seccomp:|NoNewPrivs|Uid' /proc/$server/status
grep ${at} /proc/self/mountinfo; run ${burrow} umount ${at}; grep -c ${at} /proc/self/mountinfo
said=$(run ${burrow} mount -d --json --quiet tree ${at}) && kill -9 $(echo "$said" | sed 's/.*"pid":\\([0-9]*\\).*/\\1/')
for i in $(seq 200); do grep -q ${at} /proc/self/mountinfo || break; sleep 0.1; done; grep -c ${at} /proc/self/mountinfo`;
  const env = { ...node.env, PATH: process.env["PATH"], TMPDIR: node.dir };
  const words = ["-m", "sh", "-c", script];
  const done = spawnSync("unshare", words, {
    cwd: node.dir,
    env,
    encoding: "utf8",
    timeout: 60_000,
  });
  const said = `${done.stdout}${done.stderr}`;
  t.match(done.stdout, /^read me\n/, said);
  t.match(done.stderr, /cat: .*Permission denied/, "not even root looks in");
  for (const line of [/Uid:\s+65534/, /NoNewPrivs:\s+1\n/, /Seccomp:\s+2\n/])
    t.match(done.stdout, line, "its server is hardened");
  t.match(done.stdout, /nosuid,nodev.* fuse\.burrow .*user_id=65534/);
  t.match(done.stdout, /is unmounted\n0\n0\n$/, `a killed command's goes, too: ${said}`);
});

test("the server of a killed command takes nothing away that others have mounted over it", {
  skip,
}, async (t) => {
  await coverAndEnd(t, "SIGKILL");
});

test("a signal ends the command although its server hangs", { skip }, async (t) => {
  const { node, at } = makeNode(t);
  const { child, said } = await start(node, ["tree", at]);
  process.kill(said.server, "SIGSTOP");
  let isInVain = false;
  const saved = setTimeout(() => {
    isInVain = true;
    process.kill(said.server, "SIGKILL"); // it would wait for it
  }, 40_000);
  child.kill("SIGTERM");
  t.equal(await exitOf(child), 0);
  clearTimeout(saved);
  t.notOk(isInVain);
  t.notOk(fs.existsSync(`/proc/${said.server}`));
  t.equal(mountedAt(at), undefined);
  t.strictSame(node.leftovers(), []);
});
