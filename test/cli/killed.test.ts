// Owns: proof that what a killed or abandoned burrow run leaves is found and removed, and nothing else. The sandboxes need root,
// runsc and a static busybox; skipped with the reason otherwise. Plane: control.
import { spawn } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { t as file, type Test, test } from "tap";
import { hasEnded, ownOwner } from "../../lib/sys/owner.ts";
import { exitOf, findRevisions } from "../conformance/runsc.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { until } from "../suite/wait.ts";
import { busybox, MAIN, type Node, newNode } from "./cli.ts";

const { found, reasons } = findRevisions();
for (const reason of reasons) console.error(`skipped: ${reason}`);
file.jobs = 2; // runsc waits half of the time
const skip = found.length === 0 ? reasons.join("; ") : false;

test("an owner has ended when its process has, not when another has its pid", async (t) => {
  const own = ownOwner();
  const [boot, namespace, pid, start] = own.split("-");
  t.equal(hasEnded(own), false);
  t.equal(hasEnded([boot, namespace, pid, "1"].join("-")), true, "its pid is another's now");
  t.equal(hasEnded(["00000000", namespace, pid, start].join("-")), true, "another boot");
  t.equal(
    hasEnded([boot, "1", "4194304", start].join("-")),
    false,
    "a namespace not seen from here",
  );
  t.equal(hasEnded([boot, namespace, "4194305", start].join("-")), true, "no such process");
  for (const text of ["", "x", own.slice(1), `${own}-1`]) t.equal(hasEnded(text), false, text);
  // A shell that starts a child and becomes a sleep: nobody reaps the child, which ends when its input does, after that.
  const words = "exec 3<&0; read word <&3 & echo $!; exec sleep 60 <&- 3<&-";
  const parent = spawn("sh", ["-c", words], { stdio: ["pipe", "pipe", "ignore"] });
  t.teardown(() => parent.kill("SIGKILL"));
  const line = String(await new Promise((resolve) => parent.stdout.once("data", resolve))).trim();
  const stat = () => fs.readFileSync(`/proc/${line}/stat`, "utf8");
  const name = () => fs.readFileSync(`/proc/${parent.pid}/comm`, "utf8");
  t.ok(await until(() => name() === "sleep\n"), "no shell any more");
  parent.stdin.end();
  t.ok(await until(() => stat().includes(") Z ")), "a zombie");
  const fields = stat()
    .slice(stat().lastIndexOf(")") + 2)
    .split(" ");
  t.equal(hasEnded([boot, namespace, line, fields[19]].join("-")), true, "a zombie has ended");
});

/** A run whose command says when it runs, and answers SIGTERM from its environment. */
async function waiting(t: Test, node: Node, base: string) {
  const script = "trap 'cat /etc/greeting; exit 5' TERM; echo ready; while :; do sleep 1; done";
  const words = ["run", "--base", base, "--platform", "ptrace", "--", "/bin/sh", "-c", script];
  const child = node.start(words);
  let out = "";
  child.stdout!.setEncoding("utf8").on("data", (text: string) => {
    out += text;
  });
  t.ok(await until(() => out.includes("ready")), "started");
  return { child, out: () => out };
}

for (const revision of found) {
  test(`${revision.name}: a killed run's sandbox dies with it; the next run removes the rest`, {
    timeout: 60_000,
  }, async (t) => {
    const { node, base } = await busybox(t, revision.path);
    const [live, dead] = await Promise.all([waiting(t, node, base), waiting(t, node, base)]);
    const owned = (pid: number | undefined) =>
      node.leftovers().filter((name) => name.includes(`-${pid}-`));
    t.equal(owned(dead.child.pid).length, 1);
    dead.child.kill("SIGKILL");
    await exitOf(dead.child);
    const isOfDead = (words: string) => words.includes(owned(dead.child.pid)[0]!);
    t.ok(await until(() => !node.processes().some(isOfDead)), "nothing of it runs");
    const words = [
      "run",
      "--base",
      base,
      "--platform",
      "ptrace",
      "--",
      "/bin/cat",
      "/etc/greeting",
    ];
    const next = await Promise.all([node.run(words), node.run(words)]);
    for (const { code, stdout, stderr } of next)
      t.same({ code, stdout }, { code: 0, stdout: "hello\n" }, stderr);
    t.same(owned(dead.child.pid), []);
    t.equal(owned(live.child.pid).length, 1, "the live one's is untouched");
    live.child.kill("SIGTERM");
    t.equal(await exitOf(live.child), 5);
    t.ok(await until(() => live.out().endsWith("hello\n")), live.out());
    t.same(node.leftovers(), []);
  });
}

test("a half-made run is removed too; what is no run's stays", { skip }, async (t) => {
  const { node, base } = await busybox(t);
  const [, namespace] = ownOwner().split("-");
  node.file(`state/runs/qdead-1@00000000-${namespace}-1-1/config.json`, "{}");
  node.file("state/mounts/qdead-1/mount.json", "{}");
  node.file("state/mounts/.qdead-1-tmp.new/mount.json", "{");
  node.file("state/mounts/mine/mount.json", "{}");
  node.file("state/runs/other/file", "");
  const run = ["run", "--base", base, "--platform", "ptrace", "--", "/bin/pwd"];
  t.match(await node.run(run), { code: 0, stdout: "/\n" });
  t.same(node.leftovers().sort(), ["mounts/mine", "runs/other"]);
});

test("a socket whose reader goes away ends the run like a pipe", { skip }, async (t) => {
  const { node, base } = await busybox(t);
  const server = net.createServer().listen(node.path("out.sock"));
  t.teardown(() => server.close());
  const accepted = new Promise<net.Socket>((resolve) => server.once("connection", resolve));
  const ours = net.connect(node.path("out.sock"));
  const reader = await accepted;
  const words = ["run", "--base", base, "--platform", "ptrace", "--", "/bin/sh", "-c"];
  const child = spawn(
    process.execPath,
    ["--no-warnings", MAIN, ...words, "while :; do /bin/cat /etc/greeting || exit 9; done"],
    { cwd: node.dir, env: node.env, stdio: ["ignore", ours, "inherit"] },
  );
  t.teardown(() => child.kill("SIGKILL"));
  ours.destroy();
  await new Promise((resolve) => reader.once("data", resolve));
  reader.destroy();
  t.ok(await until(() => child.exitCode !== null), "it ended");
  t.ok([9, 128 + 13].includes(child.exitCode!), String(child.exitCode));
  t.ok(await until(() => node.processes().length === 0), node.processes().join("\n"));
  t.same(node.leftovers(), []);
});

test("a folder that the kernel won't make is an error, not a hang", async (t) => {
  const node = newNode(t);
  fs.mkdirSync(node.path("base"));
  for (const option of ["--state", "--cache", "--store"]) {
    const { code, stderr } = await node.run([
      "run",
      option,
      "/proc/nosuch/x",
      "--base",
      "base",
      "--",
      "x",
    ]);
    t.equal(code, 1, option);
    t.match(stderr, /^burrow: [^\n]*ENOENT[^\n]*\/proc\/nosuch[^\n]* \(BURROW_IO\)\n$/);
  }
});

test("downloads of a killed env create are removed by the next, not those of a live one", async (t) => {
  const node = newNode(t);
  const server = await OriginServer.start(node.dir);
  t.teardown(() => server.close());
  server.fault = (file) => (file.includes("gone") ? "404" : "stall-headers");
  const scratch = () => fs.readdirSync(node.env["TMPDIR"]!).sort();
  fs.mkdirSync(path.join(node.env["TMPDIR"]!, "burrow-packages-mine"));
  const children = ["live", "dead"].map((name) =>
    node.start(["env", "create", `${server.url}/${name}-1-0.conda`]),
  );
  t.ok(await until(() => server.requests.length === 2), "both are downloading");
  t.equal(scratch().length, 3);
  const [live, dead] = children;
  dead!.kill("SIGKILL");
  await exitOf(dead!);
  t.equal((await node.run(["env", "create", `${server.url}/gone-1-0.conda`])).code, 1);
  t.same(scratch().length, 2);
  t.ok(
    scratch().some((name) => name.includes(`-${live!.pid}-`)),
    "the live one's stays",
  );
  t.ok(scratch().includes("burrow-packages-mine"));
  live!.kill("SIGTERM");
  t.equal(await exitOf(live!), 143);
  t.same(scratch(), ["burrow-packages-mine"]);
});
