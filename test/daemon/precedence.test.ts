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

/** man proc_pid_stat(5): fields 19 and 41, the 17th and the 39th behind the name. */
function turnsOf(stat: string): { nice: number; policy: number } {
  const text = fs.readFileSync(stat, "latin1");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return { nice: Number(fields[16]), policy: Number(fields[38]) };
}

const ofProcess = (pid: number | undefined) => turnsOf(`/proc/${pid}/stat`);
const NORMAL = { nice: 0, policy: 0 };
const SCHED_DEADLINE = 6;

/** By a deadline, or where CPUs are promised to others, or to some of them only (cpuset(7)), by its nice value. */
function isFirst(pid: number | undefined): boolean {
  const { nice, policy } = ofProcess(pid);
  return policy === SCHED_DEADLINE || nice < 0;
}

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
  t.ok(isFirst(pid));
  const folder = standbyFolder(node.cache);
  // The standby itself takes the lowest priority meanwhile: what it was started with its parent keeps.
  const parents = () =>
    pidsOf((words) => words[0] === "unshare" && words.some((word) => word.startsWith(folder)));
  t.ok(await until(() => parents().length === 1), node.output);
  // By a worker.
  const tasks = fs.readdirSync(`/proc/${pid}/task`).filter((task) => task !== String(pid));
  const turns = tasks.map((task) => turnsOf(`/proc/${pid}/task/${task}/stat`));
  const isNormal = ({ nice, policy }: typeof NORMAL) => nice === 0 && policy === 0;
  t.ok(turns.some(isNormal), "workers are as everybody's threads");
  // V8's have turns where the loop has a deadline.
  t.equal(turns.every(isNormal), ofProcess(pid).policy !== SCHED_DEADLINE);
  t.ok(
    turns.every(({ policy }) => policy !== SCHED_DEADLINE),
    "no other has a deadline",
  );
  const [parent] = parents();
  t.strictSame(ofProcess(parent), NORMAL);
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
  t.strictSame(ofProcess(niced.daemon.pid), { nice: 1, policy: 0 });
  t.strictSame(ofProcess(off.daemon.pid), NORMAL);
  for (const { daemon } of [niced, off])
    t.ok([0, undefined].includes(ofSession(daemon.pid)), "nor is its session's changed");
  t.ok(isFirst(shared.daemon.pid));
  t.equal(ofSession(shared.daemon.pid), before, "a session that is not its own stays as it is");
});
