// Owns: proof that a sandbox maps and runs large files from the daemon's lazy mount as if they were here, and that a daemon that is
// killed under it is a pause. Needs root, /dev/fuse, a runsc and this machine's Python for a base; skipped with the reason otherwise.
// Plane: control.

import type { ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs";
import { type Test, test } from "tap";
import { type DaemonStatus, daemonStatus, isDaemonUp, stopDaemon } from "../../lib/cache/client.ts";
import { exitOf } from "../conformance/runsc.ts";
import { noise } from "../suite/daemon-node.ts";
import { noFuse } from "../suite/fuse.ts";
import { until } from "../suite/wait.ts";
import { type Node, newNode } from "./cli.ts";
import { skip as noPython, shared } from "./python-node.ts";

const skip = noFuse || noPython;
const FLAGS = ["daemon", "start", "--idle", "0", "--lazy-mount", "--no-background"];
const LARGE = noise(24 * 1024 * 1024 + 5, 9);

/** Reads a file by its mapping, piece by piece with pauses, and says so at the first; then its sha256. */
const READER = `import hashlib, mmap, time
with open("/stage/data/large", "rb") as f:
    pages = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
hash = hashlib.sha256()
for at in range(0, len(pages), 1 << 18):
    hash.update(pages[at:at + (1 << 18)])
    if at == 0: print("reading", flush=True)
    time.sleep(0.03)
print(hash.hexdigest())`;

type Lazy = Record<string, number>;

async function startDaemon(node: Node): Promise<void> {
  node.start(FLAGS);
  await until(() => isDaemonUp(node.cache));
}

async function lazyOf(node: Node): Promise<Lazy> {
  const status = (await daemonStatus(node.cache)) as DaemonStatus & { lazy: Lazy };
  return status.lazy;
}

function stage(t: Test, node: Node): string[] {
  const folder = node.path(`stage-${t.name.length}`);
  fs.mkdirSync(folder);
  fs.writeFileSync(`${folder}/large`, LARGE);
  return ["--stage", `data=${folder}`];
}

test("large files are mapped before they are here, over the death of their daemon", {
  skip,
  timeout: 120_000,
}, async (t) => {
  const { node, base } = await shared(t);
  await startDaemon(node);
  const query = ["--base", base, ...stage(t, node)];
  const reader = node.start(["run", ...query, "--", "/usr/bin/python3", "-c", READER]);
  let out = "";
  reader.stdout?.setEncoding("utf8").on("data", (text: string) => {
    out += text;
  });
  reader.stderr?.setEncoding("utf8").on("data", (text: string) => t.comment(text));
  await until(() => out.includes("reading") || reader.exitCode !== null);
  const { files, reads } = await lazyOf(node);
  t.ok(files! >= 1 && reads! >= 1, `${files} lazy files, ${reads} reads`);
  for (let kills = 0; kills < 2; kills++) {
    process.kill((await daemonStatus(node.cache))!.pid, "SIGKILL");
    await until(async () => !(await isDaemonUp(node.cache)));
    await startDaemon(node);
  }
  t.equal(await exitOf(reader), 0);
  if (reader.stdout?.readableEnded === false) await once(reader.stdout, "close");
  t.equal(out.trim().split("\n").at(-1), createHash("sha256").update(LARGE).digest("hex"));
  t.equal((await lazyOf(node))["failedReads"], 0);
  t.match(node.leftovers(), []);
  await stopDaemon(node.cache);
  await until(() => !fs.readFileSync("/proc/self/mountinfo", "utf8").includes(node.cache));
  t.notOk(fs.existsSync(`${node.cache}/lazy.state`), "and it is unmounted");
});

test("a daemon with a lazy mount that is told to end, or idle, ends well", {
  skip: noFuse,
}, async (t) => {
  const node = newNode(t);
  const end = async (words: string[], stop?: (child: ChildProcess) => unknown) => {
    const child = node.start(["daemon", "start", "--lazy-mount", ...words]);
    let said = "";
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
    await until(async () => child.exitCode !== null || (await isDaemonUp(node.cache)));
    stop?.(child);
    t.equal(await exitOf(child), 0, said);
    t.notMatch(said, /BURROW_/);
  };
  await end(["--idle", "0"], (child) => child.kill("SIGTERM"));
  await end(["--idle", "0"], () => stopDaemon(node.cache));
  await end(["--idle", "1"]);
});
