// Standbys: how many wait, what comes after one that is taken or killed, and that none outlives its daemon unless it serves.

import { execFileSync } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import t from "tap";
import { standbyFolder } from "../../lib/cache/layout.ts";
import { askToShare } from "../../lib/gofer/plan.ts";
import { own } from "../../lib/gofer/start.ts";
import { native } from "../../lib/sys/native.ts";
import { exited, TestNode } from "../suite/daemon-node.ts";
import { pidsOf } from "../suite/processes.ts";
import { until } from "../suite/wait.ts";

const skip =
  process.getuid?.() === 0 ? false : "standbys are root's: they have namespaces of their own";

/** Pids of the standbys that were started with a path below `folder`, without unshare's. */
function processes(folder: string): number[] {
  return pidsOf((words) => words[0] !== "unshare" && words.some((word) => word.startsWith(folder)));
}

async function withNode(t: { teardown(action: () => Promise<void>): void }): Promise<TestNode> {
  const node = new TestNode();
  t.teardown(() => node.close());
  return node;
}

t.test(
  "as many wait as asked for; a killed one is followed by another, as is one that is taken",
  { skip },
  async (t) => {
    const node = await withNode(t);
    const daemon = await node.start({ standbys: 2 });
    const folder = standbyFolder(node.cache);
    const waiting = async () => (await node.status()).now.standbys;
    t.ok(await until(async () => (await waiting()) === 2), node.output);
    t.equal(fs.statSync(folder).mode & 0o777, 0o700, "nobody else connects");
    const first = fs.readdirSync(folder).sort();
    t.equal(first.length, 2);
    const [victim] = processes(folder);
    process.kill(victim!, "SIGKILL");
    // By then the dead one's name may be there yet, and the next one's already.
    const isFollowed = async () => {
      const names = fs.readdirSync(folder).sort();
      const isAnother = names.length === 2 && names.join() !== first.join();
      return isAnother && (await waiting()) === 2;
    };
    t.ok(await until(isFollowed));
    const names = fs.readdirSync(folder);
    t.equal(names.length, 2, "the dead one's socket is gone");
    const peer = native.connectUnix(`${folder}/${names[0]}`, true);
    askToShare(peer, { cache: node.cache, tenant: "t", build: own, places: [] });
    t.ok(
      await until(
        async () => (await waiting()) === 2 && !fs.readdirSync(folder).includes(names[0] as string),
      ),
      "while the one that was taken serves",
    );
    native.closeFd(peer);
    daemon.kill("SIGTERM");
    await exited(daemon);
    t.ok(await until(() => processes(folder).length === 0), "none outlives it");
    t.notOk(fs.existsSync(folder));
  },
);

t.test(
  "a killed daemon's end with it, and the next one clears what they left",
  { skip },
  async (t) => {
    const node = await withNode(t);
    const daemon = await node.start({ standbys: 1 });
    const folder = standbyFolder(node.cache);
    t.ok(await until(async () => (await node.status()).now.standbys === 1), node.output);
    const [left] = fs.readdirSync(folder);
    daemon.kill("SIGKILL");
    await exited(daemon);
    t.ok(await until(() => processes(folder).length === 0));
    t.ok(fs.existsSync(`${folder}/${left}`), "its socket lies there");
    await t.rejects(
      new Promise((resolve, reject) =>
        net.connect(`${folder}/${left}`).on("error", reject).on("connect", resolve),
      ),
    );
    await node.start({ standbys: 1 });
    t.ok(await until(async () => (await node.status()).now.standbys === 1), node.output);
    t.notOk(fs.readdirSync(folder).includes(left!));
  },
);

t.test(
  "a daemon that ends while one rehearses leaves neither it nor its files",
  { skip },
  async (t) => {
    const node = await withNode(t);
    const daemon = await node.start({ standbys: 1 });
    const folder = standbyFolder(node.cache);
    const isRehearsing = () =>
      fs.existsSync(folder) && fs.readdirSync(folder).some((name) => name.endsWith(".rehearsal"));
    t.ok(await until(isRehearsing));
    daemon.kill("SIGTERM");
    t.equal(await exited(daemon), 0, node.output);
    t.ok(await until(() => processes(folder).length === 0));
    t.notOk(fs.existsSync(folder));
  },
);

t.test("a folder that can't be cleared costs the standbys, not the daemon", { skip }, async (t) => {
  const node = await withNode(t);
  const folder = standbyFolder(node.cache);
  const script = 'mkdir -p "$0/m" && mount -t tmpfs none "$0/m" && exec "$@"';
  const daemon = await node.start({ standbys: 1 }, [
    "unshare",
    "--mount",
    "sh",
    "-c",
    script,
    folder,
  ]);
  t.ok(await until(() => node.output.includes("no standbys")), node.output);
  t.equal((await node.status()).now.standbys, 0);
  daemon.kill("SIGTERM");
  t.equal(await exited(daemon), 0, node.output);
});

t.test(
  "out of FDs the daemon lives, and starts one when there are some again",
  { skip },
  async (t) => {
    const node = await withNode(t);
    const daemon = await node.start({ standbys: 1 });
    const folder = standbyFolder(node.cache);
    const waiting = async () => (await node.status()).now.standbys;
    t.ok(await until(async () => (await waiting()) === 1), node.output);
    const limit = (count: number) =>
      execFileSync("prlimit", [`--pid=${daemon.pid}`, `--nofile=${count}:1024`]);
    limit(fs.readdirSync(`/proc/${daemon.pid}/fd`).length - 2);
    process.kill(processes(folder)[0]!, "SIGKILL");
    t.ok(await until(() => node.output.includes("no standby")), node.output);
    limit(1024);
    t.ok(await until(async () => (await waiting()) === 1), node.output);
  },
);

t.test("what the starter left open is not held by the daemon", { skip }, async (t) => {
  const node = await withNode(t);
  const file = `${node.root}/lock`;
  // A low number Node.js itself would close on exec.
  const script = 'exec 200>"$0"; exec "$@"';
  const daemon = await node.start({ standbys: 0 }, ["bash", "-c", script, file]);
  const links = fs.readdirSync(`/proc/${daemon.pid}/fd`).map((fd) => {
    try {
      return fs.readlinkSync(`/proc/${daemon.pid}/fd/${fd}`);
    } catch {
      return "";
    }
  });
  t.notOk(links.includes(file));
});

t.test("one that can't be started is tried again later, and said", { skip }, async (t) => {
  const node = await withNode(t);
  // The lock's flock is there, unshare isn't.
  const programs = `${node.root}/bin`;
  fs.mkdirSync(programs);
  const flock = execFileSync("sh", ["-c", "command -v flock"], { encoding: "utf8" }).trim();
  fs.symlinkSync(flock, `${programs}/flock`);
  await node.start({ standbys: 1 }, ["/usr/bin/env", `PATH=${programs}`]);
  t.ok(await until(() => node.output.includes("no standby")), node.output);
  t.equal((await node.status()).now.standbys, 0, "the daemon serves all the same");
});
