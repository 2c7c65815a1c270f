// Rename against walk: four clients of one gofer over a host directory that may be written, and a process of the host, move
// directories and symlinks that lead outside under each other's walks. A canary outside is never walked to, opened, read or
// changed. 3 s; with BURROW_LONG a minute, and strace, where it is there, says of each FD that the server came by what it is of.
// QEMU CVE-2016-9602, CVE-2021-20181.

import { spawnSync } from "node:child_process";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "tap";
import { GoferProcess } from "../suite/gofer-process.ts";
import { isLong } from "../suite/long.ts";
import { traceThreads } from "../suite/strace.ts";
import { sleep } from "../suite/wait.ts";
import { startRacer } from "./host-racer.ts";

const CANARY = "CANARY: bytes from outside the root";
const CLIENTS = 4;
const RACE_MS = isLong ? 60_000 : 3_000;
/** Renames are quickest in memory: more swaps. */
const MEMORY = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();

function build(base: string): void {
  for (const path of ["outside/sub", "root/d/sub", "root/e/sub"]) {
    mkdirSync(join(base, path), { recursive: true });
    writeFileSync(join(base, path, "secret"), path.startsWith("root") ? "inside" : CANARY);
  }
  writeFileSync(join(base, "outside/secret"), CANARY);
  writeFileSync(join(base, "root/d/secret"), "inside");
  symlinkSync("../outside", join(base, "root/s"));
  symlinkSync("..", join(base, "root/up"));
  symlinkSync("../../outside", join(base, "root/e/s"));
}

const hasStrace = isLong && spawnSync("strace", ["-V"]).status === 0;

/** From now on each FD that the server comes by, with its path as the kernel knows it: the result ends that and gives the paths. */
async function watchOpens(out: string, pid: number): Promise<() => Promise<string[]>> {
  const stop = await traceThreads(out, readdirSync(`/proc/${pid}/task`), [
    "-y",
    "-e",
    "trace=%file,dup,dup3",
  ]);
  return async () => [...(await stop()).matchAll(/ = \d+<([^>]*)>/g)].map((match) => match[1]!);
}

/** All that tells whether a tree was touched: inode numbers, and times, modes and links of all. */
function factsOf(directory: string) {
  const names = readdirSync(directory, { recursive: true, encoding: "utf8" }).sort();
  return ["", ...names].map((name) => {
    const { ino, mode, nlink, atimeMs, mtimeMs, ctimeMs } = lstatSync(join(directory, name));
    return { name, ino, mode, nlink, atimeMs, mtimeMs, ctimeMs };
  });
}

test("no rename under a walk leads outside", { timeout: RACE_MS + 200_000 }, async (t) => {
  const base = mkdtempSync(join(MEMORY, "burrow-race-"));
  build(base);
  const outside = join(base, "outside");
  const directory = join(base, "root");
  const before = factsOf(outside);
  const forbidden = [...before.map(({ ino }) => ino), lstatSync(base).ino];
  const mounts = ["/", "/a", "/b", "/c"].map((destination) => ({ destination, source: directory }));
  const gofer = GoferProcess.start({ mounts });
  const opens = hasStrace ? await watchOpens(join(base, "strace"), gofer.pid) : undefined;
  const sockets = [...mounts.map((_, i) => gofer.takeSocket(i)), -1];
  const racers = await Promise.all(
    sockets.map((socketFd, seed) => startRacer({ socketFd, directory, seed, forbidden })),
  );
  await sleep(RACE_MS); // the race itself
  const seen: Record<string, number> = {};
  for (const counts of await Promise.all(racers.map((racer) => racer.stop()))) {
    for (const [what, times] of Object.entries(counts)) seen[what] = (seen[what] ?? 0) + times;
  }
  const paths = (await opens?.()) ?? [];
  t.comment(JSON.stringify(seen), `strace: ${paths.length} FDs`);
  if (hasStrace) t.ok(paths.length > 1000, "strace saw it open");
  t.same(
    paths.filter((path) => path.includes("outside")),
    [],
    "and nothing outside",
  );
  t.equal(mounts.length, CLIENTS);
  t.same(
    Object.keys(seen).filter((what) => what.startsWith("escape")),
    [],
  );
  t.ok((seen["swaps"] ?? 0) > 1000, "the host swapped");
  t.ok((seen["read"] ?? 0) > 100 && (seen["walked to the end"] ?? 0) > 100, "clients got through");
  t.ok((seen["33 done"] ?? 0) > 100, "and moved");
  t.same(factsOf(outside), before, "nothing outside was read, made or changed");
  t.equal(readFileSync(join(outside, "secret"), "utf8"), CANARY);
  t.equal(await gofer.stop(), 0);
  t.equal(gofer.output, "");
  rmSync(base, { recursive: true });
});
