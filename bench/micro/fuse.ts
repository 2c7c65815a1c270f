// What a FUSE server costs its reader: ours (lib/daemon/fuse-session.ts) and fuse-native over libfuse, the same file by both, which lies
// in the server's page cache. docs/design/0010-lazy-mount.md rests on it.
//
// Expected: a request is a wake and a switch each way and one hop to the main thread in both; a copy into the reply and one into the
// kernel. Larger requests make it bandwidth. Needs root and /dev/fuse.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { unmount } from "../../lib/daemon/fuse-mount.ts";
import type { Bench } from "../run.ts";
import { median } from "../samples.ts";

const SERVER = fileURLToPath(new URL("./fuse-server.js", import.meta.url));
const WAYS = ["ours", "fuse-native"] as const;
const MIB = 1024 * 1024;
const SMALL_READS = 2000;

/** Prints seconds of reading it once in 1 MiB pieces, and of 4 KiB reads without read-ahead of what isn't in the kernel's cache. */
const READER = `import os, random, sys, time
f = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(f).st_size
half = size >> 1
started = time.time()
for at in range(0, half, 1 << 20): os.pread(f, 1 << 20, at)
print(time.time() - started)
os.posix_fadvise(f, 0, 0, os.POSIX_FADV_RANDOM)
random.seed(1)
places = random.sample(range(half >> 12, size >> 12), ${SMALL_READS})
started = time.time()
for place in places: os.pread(f, 4096, place << 12)
print(time.time() - started)`;

async function mounted(way: string, folder: string, file: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, ["--no-warnings", SERVER, way, folder, file], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await Promise.race([once(child.stdout, "data"), once(child, "exit")]);
  if (child.exitCode !== null) throw new Error(`${way} ended with ${child.exitCode}`);
  return child;
}

export const bench: Bench = async (emit, { isQuick }) => {
  if (process.getuid?.() !== 0 || !fs.existsSync("/dev/fuse")) {
    return emit({ skipped: "needs root and /dev/fuse" });
  }
  const work = fs.mkdtempSync(join(tmpdir(), "burrow-fuse-"));
  const folder = join(work, "mount");
  fs.mkdirSync(folder);
  const file = join(work, "file");
  const fileMib = isQuick ? 64 : 1024;
  fs.writeFileSync(file, Buffer.alloc(fileMib * MIB, 1));
  const seconds: Record<string, number[][]> = {};
  try {
    for (let round = 0; round < (isQuick ? 1 : 5); round++) {
      for (const way of WAYS) {
        const server = await mounted(way, folder, file);
        const gone = once(server, "exit");
        const words = ["-c", READER, join(folder, "file")];
        const { stdout } = spawnSync("python3", words, { encoding: "utf8" });
        const [all = 0, small = 0] = stdout.trim().split("\n").map(Number);
        seconds[way] = [...(seconds[way] ?? []), [all, small]];
        await unmount(folder);
        server.kill("SIGKILL");
        await gone;
      }
    }
    for (const way of WAYS) {
      const of = (i: number) => median(seconds[way]!.map((pair) => pair[i]!));
      emit({
        way,
        fileMib,
        rounds: seconds[way]!.length,
        mibPerSecond: Math.round(fileMib / 2 / of(0)),
        smallReadUs: Number(((of(1) / SMALL_READS) * 1e6).toFixed(1)),
      });
    }
  } finally {
    await unmount(folder);
    fs.rmSync(work, { recursive: true, force: true });
  }
};
