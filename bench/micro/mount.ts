// What a mounted view costs who looks into it: burrow mount's server (lib/gofer/fuse-main.ts) and fuse-native over libfuse, the same tree
// by both, its blobs in the page cache. docs/design/0020-fuse-door.md rests on it.
//
// Expected: a stat of a new name is one LOOKUP: a wake and a switch each way, and in ours five system calls; in the peer two hops
// between threads, a path resolved from the root, an object and three Dates. Reads are bandwidth. Needs root and /dev/fuse.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { startServer } from "../../lib/cli/child-server.ts";
import { mountDevice, readAhead, unmount } from "../../lib/daemon/fuse-mount.ts";
import { makeView } from "../../test/suite/view-cache.ts";
import type { Bench } from "../run.ts";
import { median } from "../samples.ts";

const SERVER = fileURLToPath(new URL("../../fuse.cjs", import.meta.url));
const PEER = fileURLToPath(new URL("./mount-native.js", import.meta.url));
const WAYS = ["burrow", "fuse-native"] as const;
const FOLDERS = 100;
const FILES = 200;
const WIDE = 100_000;
const MIB = 1024 * 1024;

/** Prints seconds of: stats of names that the kernel doesn't know; a listing of the wide directory; a read of all of a file; the same again. */
const READER = `import os, sys, time
root = sys.argv[1]
for i in range(${FOLDERS}): os.stat(f"{root}/s{i}")
paths = [f"{root}/s{i}/f{j}" for i in range(${FOLDERS}) for j in range(${FILES})]
started = time.time()
for path in paths: os.stat(path)
print(time.time() - started)
started = time.time()
assert len(os.listdir(root + "/wide")) == ${WIDE}
print(time.time() - started)
f = os.open(root + "/big", os.O_RDONLY)
for _ in range(2):
    os.lseek(f, 0, 0)
    started = time.time()
    while os.read(f, 1 << 20): pass
    print(time.time() - started)`;

/** User and system time of a process, s. man proc_pid_stat(5), in ticks of 10 ms. */
function cpuSeconds(pid: number): number {
  const fields = fs.readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

async function served(
  way: string,
  state: string,
  source: string,
  folder: string,
): Promise<ChildProcess> {
  if (way === "fuse-native") {
    const child = spawn(process.execPath, ["--no-warnings", PEER, state, source, folder], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await Promise.race([once(child.stdout, "data"), once(child, "exit")]);
    return child;
  }
  const device = fs.openSync("/dev/fuse", "r+");
  const options = "ro,nosuid,nodev,default_permissions,rootmode=40000,user_id=0,group_id=0";
  await mountDevice(device, folder, "fuse.burrow", options);
  const config = { state, source, isReadOnly: true, mountpoint: folder };
  const { child, firstWord } = startServer(SERVER, config, [device]);
  fs.closeSync(device);
  await firstWord;
  await readAhead(folder);
  return child;
}

function makeTree(state: string, fileMib: number): string {
  const files: Record<string, string | Uint8Array> = {
    wide: "/",
    big: Buffer.alloc(fileMib * MIB, 7),
  };
  for (let i = 0; i < FOLDERS; i++) {
    files[`s${i}`] = "/";
    for (let j = 0; j < FILES; j++) files[`s${i}/f${j}`] = "content";
  }
  for (let i = 0; i < WIDE; i++) files[`wide/n${i}`] = "content";
  return makeView(state, files);
}

export const bench: Bench = async (emit, { isQuick }) => {
  if (process.getuid?.() !== 0 || !fs.existsSync("/dev/fuse")) {
    return emit({ skipped: "needs root and /dev/fuse" });
  }
  const work = fs.mkdtempSync(join(tmpdir(), "burrow-mount-"));
  const folder = join(work, "mount");
  fs.mkdirSync(folder);
  const fileMib = isQuick ? 32 : 256;
  const source = makeTree(work, fileMib);
  const samples: Record<string, number[][]> = {};
  try {
    for (let round = 0; round < (isQuick ? 1 : 5); round++) {
      for (const way of WAYS) {
        const server = await served(way, work, source, folder);
        const gone = once(server, "exit");
        const before = cpuSeconds(server.pid!);
        const { stdout } = spawnSync("python3", ["-c", READER, folder], { encoding: "utf8" });
        const cpu = cpuSeconds(server.pid!) - before;
        samples[way] = [...(samples[way] ?? []), [...stdout.trim().split("\n").map(Number), cpu]];
        await unmount(folder);
        server.kill("SIGKILL");
        await gone;
      }
    }
    for (const way of WAYS) {
      const of = (i: number) => median(samples[way]!.map((row) => row[i]!));
      emit({
        way,
        rounds: samples[way]!.length,
        statsPerSecond: Math.round((FOLDERS * FILES) / of(0)),
        wideListMs: Math.round(of(1) * 1000),
        readMibPerSecond: Math.round(fileMib / of(2)),
        readAgainMibPerSecond: Math.round(fileMib / of(3)),
        serverCpuSeconds: Number(of(4).toFixed(2)),
      });
    }
  } finally {
    await unmount(folder);
    fs.rmSync(work, { recursive: true, force: true });
  }
};
