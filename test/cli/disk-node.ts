// Owns: what the tests of full disks share: a small disk under a folder of a node, which a command fills, and which then grows.
// Plane: control.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import type { Test } from "tap";
import { verifyStore } from "../../lib/cli/store-verify.ts";
import type { Node } from "./cli.ts";

/** Why no disk can be mounted; false when one can. */
export const noDisk = process.getuid?.() === 0 ? false : "mounting a tmpfs needs root";

/** A small disk of its own for a folder; what was in it is copied. */
function smallDisk(t: Test, folder: string, size: string): void {
  const args = ["-t", "tmpfs", "-o", `size=${size}`, "burrow-test", folder];
  fs.mkdirSync(folder, { recursive: true });
  t.equal(spawnSync("mount", args).status, 0);
  t.teardown(() => spawnSync("umount", ["-l", folder])); // where the test ended before it did
}

interface Case {
  /** Which folder is on the small disk. */
  readonly place: "store" | "cache" | "state" | "TMPDIR";
  readonly size: string;
}

/** Fills a disk up, sees the command fail, gives it space, and sees it succeed: what it then prints. */
async function fill(t: Test, node: Node, words: readonly string[], { place, size }: Case) {
  const folder = place === "TMPDIR" ? node.env["TMPDIR"]! : node[place];
  smallDisk(t, folder, size);
  const full = await node.run(words);
  const what = `${place} of ${size}: ${full.stderr.slice(-600)}`;
  t.equal(full.code, 1, what);
  t.match(full.stderr, /\(BURROW_NO_SPACE\)\n/, what);
  t.match(full.stderr, folder, `${what} names the place`);
  t.same(node.leftovers(), []);
  const { state, cache, store } = node;
  if (fs.existsSync(`${store}/burrow-store.json`)) {
    const { faults } = await verifyStore({ state, cache, store, isJson: false });
    t.same(faults, [], what);
  }
  t.equal(spawnSync("mount", ["-o", "remount,size=200m", folder]).status, 0);
  const next = await node.run(words);
  t.equal(next.code, 0, `${what}; with space: ${next.stderr.slice(-600)}`);
  if (fs.existsSync(`${node.cache}/blobs`))
    t.match(await node.run(["cache", "verify"]), { code: 0 }, what);
  await node.run(["daemon", "stop"]);
  t.equal(spawnSync("umount", ["-l", folder]).status, 0);
  return next.stdout;
}

/** All cases from where `reset` begins: one output. */
export async function fillEach(
  t: Test,
  node: Node,
  words: readonly string[],
  reset: () => void,
  cases: readonly Case[],
): Promise<void> {
  reset();
  const { stdout } = await node.run(words);
  await node.run(["daemon", "stop"]);
  for (const each of cases) {
    reset();
    t.equal(await fill(t, node, words, each), stdout, `${each.place} of ${each.size}`);
  }
}
