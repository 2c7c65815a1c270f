// burrow mount and umount as their users see them: what can't be mounted, in the foreground and background, over what a crash left, and who
// may look in. Needs root and /dev/fuse. Plane: control.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { Capability } from "../../lib/gofer/harden.ts";
import { mountedAt } from "../../lib/sys/mounted.ts";
import { exitOf } from "../conformance/runsc.ts";
import { noFuse } from "../suite/fuse.ts";
import { checkHardened } from "../suite/hardened.ts";
import { until } from "../suite/wait.ts";
import { ZEROS } from "./cli.ts";
import { coverAndEnd, makeNode, type Said, start } from "./mount-node.ts";

const skip = noFuse;
const { chown, dacOverride, fowner, fsetid } = Capability;
const WRITERS = [chown, dacOverride, fowner, fsetid];
const NOBODY = 65_534;

/** Options of what is mounted there. man proc_pid_mountinfo(5). */
function optionsAt(at: string): string {
  const lines = fs.readFileSync("/proc/self/mountinfo", "utf8").split("\n");
  return lines.findLast((line) => line.split(" ")[4] === at) ?? "";
}

test("what can't be mounted is refused with a reason, and nothing is left", { skip }, async (t) => {
  const { node, at } = makeNode(t);
  node.file("plain", "");
  for (const [words, reason] of [
    [["mount", "tree"], /missing required argument 'mountpoint'/],
    [["mount", "tree", "plain"], /plain is no directory/],
    [["mount", ZEROS, at], /no store|no such digest|not there|no snapshot|is not|store/i],
    [["mount", "--writable", "1", "tree", at], /--writable: "1" is no size/],
    [
      ["mount", "-d", "nothing", at],
      /: nothing is no digest and no file or directory here, and no mounts have/,
    ],
    [["mount", "tree", node.dir], /would hide .*, which burrow needs: name another place/],
    [["umount", "/proc"], /burrow has nothing mounted at \/proc; findmnt/],
  ] as const) {
    const { code, stdout, stderr } = await node.run(words);
    t.not(code, 0, words.join(" "));
    t.match(stderr, reason, words.join(" "));
    t.equal(stdout, "");
  }
  t.equal(mountedAt(at), undefined);
  t.strictSame(node.leftovers(), []);
});

test("in the background it returns once it is mounted, and umount ends it", { skip }, async (t) => {
  const { node, at } = makeNode(t);
  const { code, stdout, stderr } = await node.run(["mount", "--background", "--json", "tree", at]);
  t.equal(code, 0, stderr);
  const { pid, server } = JSON.parse(stdout) as Said;
  t.equal(fs.readFileSync(path.join(at, "sub/f"), "utf8"), "content");
  checkHardened(t, server, []);
  const options = optionsAt(at);
  for (const word of ["ro", "nosuid", "nodev"]) t.match(options, new RegExp(`[ ,]${word}[ ,]`));
  t.notMatch(options, /allow_other/, "for who mounts alone");
  t.equal(fs.statSync(path.join(at, "setuid")).mode & 0o7777, 0o4755);
  const words = ["--reuid", `${NOBODY}`, "--clear-groups", "cat", path.join(at, "README")];
  t.match(spawnSync("setpriv", words, { encoding: "utf8" }).stderr, /Permission denied/);
  const again = await node.run(["mount", "tree", at]);
  t.equal(again.code, 2);
  t.match(again.stderr, /has a view mounted at .* already; end it: burrow umount/);
  const open = fs.openSync(path.join(at, "README"), "r");
  const busy = await node.run(["umount", at]);
  t.equal(busy.code, 1);
  t.match(busy.stderr, /fuser -vm .* says who\), or say --lazy/);
  fs.closeSync(open);
  const ended = await node.run(["umount", at, "--json"]);
  t.equal(ended.code, 0, ended.stderr);
  t.strictSame(JSON.parse(ended.stdout), { unmounted: at });
  t.equal(mountedAt(at), undefined);
  for (const each of [pid, server])
    t.ok(await until(() => !fs.existsSync(`/proc/${each}`)), "its processes end");
  t.ok(await until(() => node.leftovers().length === 0), "and nothing is left");
});

/** The shell that waits for a command's end. */
function guardOf(command: number): number {
  const children = fs.readFileSync(`/proc/${command}/task/${command}/children`, "latin1");
  const pids = children.trim().split(" ").map(Number);
  return pids.find((pid) => /\ntrap /.test(fs.readFileSync(`/proc/${pid}/cmdline`, "latin1")))!;
}

test("what a crash leaves is told, and healed by mounting again", { skip }, async (t) => {
  const { node, at } = makeNode(t);
  const first = await start(node, ["tree", at]);
  // All at once, so that none cleans up after the others.
  first.child.kill("SIGSTOP");
  process.kill(guardOf(first.child.pid!), "SIGKILL");
  process.kill(first.said.server, "SIGKILL");
  first.child.kill("SIGKILL");
  await exitOf(first.child);
  const isStale = () => {
    try {
      fs.readdirSync(at);
      return false;
    } catch (error) {
      return (error as NodeJS.ErrnoException).code === "ENOTCONN";
    }
  };
  t.ok(await until(isStale), "an error, and no empty directory");
  const second = await start(node, ["--writable", "16M", "tree", at]);
  fs.writeFileSync(path.join(at, "new"), "written");
  // A terminal's reaches both.
  process.kill(second.said.server, "SIGINT");
  t.equal(fs.readFileSync(path.join(at, "new"), "utf8"), "written", "which is the command's");
  second.child.kill("SIGINT");
  t.equal(await exitOf(second.child), 0);
  t.equal(mountedAt(at), undefined, "once for both");
  t.notOk(fs.existsSync(node.path("tree/new")));
  t.strictSame(node.leftovers(), [], "what the first left is swept");
});

test("options in one word begin the background once", { skip }, async (t) => {
  const { node, at } = makeNode(t);
  const { code, stdout, stderr } = await node.run(["mount", "-dd", "--json", "tree", at]);
  t.equal(code, 0, stderr);
  const { pid, server } = JSON.parse(stdout) as Said;
  t.equal((await node.run(["umount", at])).code, 0);
  for (const each of [pid, server])
    t.ok(await until(() => !fs.existsSync(`/proc/${each}`)), "its processes end");
});

test("umount doesn't wait for a server that hangs", { skip }, async (t) => {
  const { node, at } = makeNode(t);
  const { child, said } = await start(node, ["tree", at]);
  process.kill(said.server, "SIGSTOP");
  const go = () => process.kill(said.server, "SIGCONT");
  const saved = setTimeout(go, 30_000); // it would hang with it
  const { code, stderr } = await node.run(["umount", at]);
  clearTimeout(saved);
  t.equal(fs.readFileSync(`/proc/${said.server}/stat`, "utf8").split(" ")[2], "T", "it hangs");
  t.equal(code, 0, stderr);
  t.equal(mountedAt(at), undefined);
  go();
  t.equal(await exitOf(child), 0);
});

test("a signal takes nothing away that others have mounted over it", { skip }, async (t) => {
  await coverAndEnd(t, "SIGTERM");
});

test("an upper is kept for the next mount, of the same view, and has one at a time", {
  skip,
}, async (t) => {
  const { node, at } = makeNode(t);
  const words = ["--upper", "changes", "tree", at];
  const both = await node.run(["mount", "--writable", "1M", ...words]);
  t.match(both.stderr, /--writable and --upper: changes go to one of them/);
  const over = await node.run(["mount", "--upper", path.join(at, "in"), "tree", at]);
  t.match(over.stderr, /would hide .*, which burrow needs/);
  const first = await start(node, words);
  fs.writeFileSync(path.join(at, "sub/f"), "changed");
  fs.unlinkSync(path.join(at, "README"));
  fs.mkdirSync(node.path("other"));
  const busy = await node.run(["mount", "--upper", "changes", "tree", node.path("other")]);
  t.match(busy.stderr, /changes is used by another sandbox or mount/);
  first.child.kill("SIGTERM");
  t.equal(await exitOf(first.child), 0);
  const second = await start(node, words);
  checkHardened(t, second.said.server, WRITERS);
  t.strictSame(fs.readdirSync(at).sort(), ["setuid", "sub"]);
  t.equal(fs.readFileSync(path.join(at, "sub/f"), "utf8"), "changed");
  second.child.kill("SIGTERM");
  t.equal(await exitOf(second.child), 0);
  t.strictSame(node.leftovers(), []);
});
