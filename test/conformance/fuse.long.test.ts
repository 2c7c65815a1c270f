// Owns: proof by Linux itself that a writable view through FUSE does what a tmpfs does: system calls with their error cases (posix/*.c), and
// random calls (random/random.c), each printing what it prints on a tmpfs of the host. BURROW_FUZZ_SEED repeats a run. Plane: control.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { type Test, test } from "tap";
import { noFuse } from "../suite/fuse.ts";
import { FuseDoor } from "../suite/fuse-door.ts";
import { temporary } from "../suite/served.ts";
import { buildProgram, parse, runOnHost } from "./posix-runs.ts";

const CALLS = 50_000;
const start = Number(process.env["BURROW_FUZZ_SEED"] ?? Date.now() & 0x7fffffff);
const LIMITS = { encoding: "latin1", timeout: 120_000, maxBuffer: 256 * 1024 * 1024 } as const;

/** What is not as on a tmpfs, and why. docs/mount.md, "What differs", has the same for people. */
const OTHER: readonly (readonly [RegExp, string])[] = [
  [/^names: open access mode 3$/, "no tree knows this mode, which Linux keeps for ioctl"],
  [
    /^names: open O_TMPFILE$/,
    "not offered: the program falls back, as on any FUSE mount without it",
  ],
  [/^rename: renameat2 WHITEOUT$/, "a whiteout is a device"],
  [/^data: SEEK_(HOLE|DATA)$/, "holes aren't told, so that all is data"],
  [/^data: truncate to 2\^62$/, "sizes past 2^53: numbers of JavaScript"],
  [/^attributes: (trusted|security|system)/, "a view keeps attributes of users alone"],
  [/^attributes: setxattr of a FIFO$/, "there is none"],
  [
    /^special: |^owners: set-group-id directory: mkfifo/,
    "FIFOs, sockets and devices would be the host's",
  ],
];

/** Runs a program in a new directory of a writable view: what it prints. */
async function runThrough(t: Test, program: string, args: readonly string[]): Promise<string> {
  const door = await FuseDoor.openOverlay(t, { "lower/file": "below\n", lower: "/" });
  const at = door.path("here");
  fs.mkdirSync(at);
  const { status, stdout, stderr } = spawnSync(program, [at, ...args], LIMITS);
  t.equal(status, 0, stderr);
  t.same(fs.readdirSync(at), [], "nothing is left");
  return stdout;
}

for (const name of ["posix", "random"] as const) {
  test(`a writable view by FUSE: ${name}`, { skip: noFuse, timeout: 300_000 }, async (t) => {
    const built = buildProgram(name, temporary(t));
    if ("reason" in built) {
      t.pass("skipped", { skip: built.reason });
      return;
    }
    const args = name === "posix" ? [] : [String(start), String(CALLS)];
    if (name === "random") t.comment(`seed ${start}, ${CALLS} calls`);
    const wanted = runOnHost(built.path, args);
    const found = await runThrough(t, built.path, args);
    if (name === "random") {
      const [ours, host] = [found.split("\n"), wanted.split("\n")];
      const at = host.findIndex((line, i) => line !== ours[i]);
      t.equal(ours[at], host[at], `after ${host.slice(Math.max(0, at - 3), at).join("; ")}`);
      return;
    }
    const [ours, host] = [parse(found), parse(wanted)];
    t.ok(host.size > 500, `${host.size} checks`);
    t.same([...ours.keys()], [...host.keys()]);
    const other = [...host.keys()].filter((check) => ours.get(check) !== host.get(check));
    const isKnown = (check: string) => OTHER.some(([pattern]) => pattern.test(check));
    t.same(
      other.filter((check) => !isKnown(check)),
      [],
      "all else is as on a tmpfs",
    );
    for (const [pattern, why] of OTHER)
      t.ok(
        other.some((check) => pattern.test(check)),
        `still so: ${pattern.source}: ${why}`,
      );
  });
}
