// Which disks are believed what sync_file_range says: those that have a journal, by file systems of all kinds, each in a file. Kernels and
// containers without loop devices, or without one of the file systems, have the rest.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { join } from "node:path";
import { type Test, test } from "tap";
import { openCache } from "../../lib/cache/cache.ts";
import { PartialFile } from "../../lib/cache/partial-file.ts";
import { holdsRanges } from "../../lib/cache/ranges.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { temporary } from "../suite/served.ts";

const MIB = 1 << 20;

function fails(program: string, ...words: string[]): string | undefined {
  const { status, stderr, error } = spawnSync(program, words, { encoding: "utf8" });
  return status === 0 ? undefined : `${program}: ${error?.message ?? stderr.trim()}`;
}

/** A new file system, mounted until the test ends; or why there is none. */
function mounted(t: Test, mkfs: readonly string[], sizeMib: number, options = "") {
  const folder = temporary(t);
  const [image, root] = [join(folder, "image"), join(folder, "root")];
  fs.writeFileSync(image, "");
  fs.truncateSync(image, sizeMib * MIB);
  fs.mkdirSync(root);
  const [program, ...words] = mkfs;
  const mount = () => fails("mount", "-o", `loop${options}`, image, root);
  const why = fails(program!, ...words, image) ?? mount();
  if (why === undefined) t.teardown(() => void spawnSync("umount", ["-l", root]));
  return { root, why };
}

const cases: [
  name: string,
  mkfs: string[],
  sizeMib: number,
  expected: boolean,
  options?: string,
][] = [
  ["ext2", ["mkfs.ext2", "-q", "-F"], 8, false],
  ["ext3", ["mkfs.ext3", "-q", "-F"], 8, true],
  ["ext4", ["mkfs.ext4", "-q", "-F"], 8, true],
  ["ext4, data=writeback", ["mkfs.ext4", "-q", "-F"], 8, true, ",data=writeback"],
  ["ext4, data=journal", ["mkfs.ext4", "-q", "-F"], 8, false, ",data=journal"],
  ["ext4 without a journal", ["mkfs.ext4", "-q", "-F", "-O", "^has_journal"], 8, false],
  ["XFS", ["mkfs.xfs", "-q"], 300, true],
];

for (const [name, mkfs, sizeMib, expected, options] of cases)
  test(name, { skip: process.getuid?.() !== 0 && "not root: it mounts" }, async (t) => {
    const { root, why } = mounted(t, mkfs, sizeMib, options);
    if (why !== undefined) return void t.pass("skipped", { skip: why });
    t.equal(holdsRanges(root), expected);
    const cache = openCache(join(root, "cache"));
    cache.startUp(false);
    t.equal(cache.holdsRanges, expected, "of a cache in a folder of it");
    const what = { digest: digestOf(Buffer.from(name)), size: MIB };
    const file = new PartialFile(cache, undefined, what);
    await file.make(() => true);
    await file.write(Buffer.alloc(4096, 7), 8192);
    await file.land();
    await file.remove(file.takeFd());
  });

test("what can't be known isn't believed", (t) => {
  t.equal(holdsRanges("/proc"), false);
  t.equal(holdsRanges("/dev/shm"), false, "without a disk");
  t.equal(holdsRanges(join(temporary(t), "none")), false);
  t.end();
});
