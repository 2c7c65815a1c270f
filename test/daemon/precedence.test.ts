// That the daemon's loop runs before what waits for it, and nothing else has that from it: not its threads, not the servers that it starts,
// nor who shares its session. As the kernel says.

import fs from "node:fs";
import { getPriority, setPriority } from "node:os";
import { type Test, test } from "tap";
import { standbyFolder } from "../../lib/cache/layout.ts";
import type { DaemonConfig } from "../../lib/daemon/config.ts";
import { exited, TestNode } from "../suite/daemon-node.ts";
import { pidsOf } from "../suite/processes.ts";
import { until } from "../suite/wait.ts";

const skip = canRise() ? false : "a higher priority needs CAP_SYS_NICE";

function canRise(): boolean {
  const before = getPriority();
  try {
    setPriority(before - 1);
    setPriority(before);
    return true;
  } catch {
    return false;
  }
}

/** A daemon, by itself at nice 0, however the tests run. */
async function start(
  t: Test,
  config: Partial<DaemonConfig> = {},
  prefix: readonly string[] = ["setsid"],
) {
  const node = new TestNode();
  t.teardown(() => node.close());
  const plain = ["chrt", "--other", "0", "nice", "-n", String(-getPriority())];
  return { node, daemon: await node.start(config, [...plain, ...prefix]) };
}

/** man proc_pid_stat(5): field 19, the 17th behind the name. */
function niceOf(stat: string): number {
  const text = fs.readFileSync(stat, "latin1");
  return Number(text.slice(text.lastIndexOf(")") + 2).split(" ")[16]);
}

const ofProcess = (pid: number | undefined) => niceOf(`/proc/${pid}/stat`);

/** Of its session; undefined where the kernel has no autogroups, or it has none: a session as old as the machine, where the file is empty. */
function ofSession(pid: number | "self" | undefined): number | undefined {
  const path = `/proc/${pid}/autogroup`;
  if (!fs.existsSync(path)) return undefined;
  const nice = fs.readFileSync(path, "latin1").split(" nice ")[1];
  return nice === undefined ? undefined : Number(nice);
}

test("the loop runs first, and nothing that the daemon starts has that from it", {
  skip,
}, async (t) => {
  const { node, daemon } = await start(t, { standbys: 1 });
  const { pid } = daemon;
  t.ok(ofProcess(pid) < 0);
  const folder = standbyFolder(node.cache);
  // The standby itself takes the lowest priority meanwhile: what it was started with its parent keeps.
  const parents = () =>
    pidsOf((words) => words[0] === "unshare" && words.some((word) => word.startsWith(folder)));
  t.ok(await until(() => parents().length === 1), node.output);
  // By one of the pool's threads.
  const tasks = fs.readdirSync(`/proc/${pid}/task`).filter((task) => task !== String(pid));
  for (const task of tasks) t.equal(niceOf(`/proc/${pid}/task/${task}/stat`), 0, `thread ${task}`);
  const [parent] = parents();
  t.equal(ofProcess(parent), 0);
  if (ofSession(pid) !== undefined) {
    t.ok(ofSession(pid)! < 0, "its session comes before sandboxes' sessions");
    t.ok(await until(() => ofSession(parent) === 0), "which a standby's is one of");
  }
  daemon.kill("SIGTERM");
  t.equal(await exited(daemon), 0, node.output);
  t.ok(await until(() => parents().length === 0));
});

test("who has set a nice value, or wants none taken, has it so", { skip }, async (t) => {
  const before = ofSession("self");
  const [niced, off, shared] = await Promise.all([
    start(t, {}, ["setsid", "nice", "-n", "1"]),
    start(t, { precedence: false }),
    start(t, {}, []),
  ]);
  t.equal(ofProcess(niced.daemon.pid), 1);
  t.equal(ofProcess(off.daemon.pid), 0);
  for (const { daemon } of [niced, off])
    t.ok([0, undefined].includes(ofSession(daemon.pid)), "nor is its session's changed");
  t.ok(ofProcess(shared.daemon.pid) < 0);
  t.equal(ofSession(shared.daemon.pid), before, "a session that is not its own stays as it is");
});
