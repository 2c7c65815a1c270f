// Owns: proof that a full disk under the store, the cache, the state or TMPDIR ends a long command with a named error that says where and
// what to do, that nothing half is believed of it, and that with space the same command goes on. Needs root to mount a tmpfs; env
// compile a runsc and this machine's Python, too; skipped with the reason otherwise. Plane: control.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { type Test, test } from "tap";
import { verifyStore } from "../../lib/cli/store-verify.ts";
import { type Node, newNode } from "./cli.ts";
import { compileScene, emptied, imageIn, packagesNode } from "./kill-node.ts";
import { skip as noCompile } from "./python-node.ts";

const skip = process.getuid?.() === 0 ? false : "mounting a tmpfs needs root";

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
async function fillEach(
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

test("env create", { skip, timeout: 120_000 }, async (t) => {
  const { node, lock } = await packagesNode(t);
  await fillEach(t, node, ["env", "create", "--quiet", lock], emptied(node), [
    { place: "store", size: "7m" },
    { place: "TMPDIR", size: "4k" },
    { place: "TMPDIR", size: "2m" },
  ]);
});

test("preload", { skip, timeout: 120_000 }, async (t) => {
  const { node, lock } = await packagesNode(t);
  await fillEach(t, node, ["preload", "--quiet", lock], emptied(node), [
    { place: "cache", size: "4k" },
    { place: "cache", size: "14m" },
    { place: "state", size: "4k" },
  ]);
});

test("layer import", { skip, timeout: 120_000 }, async (t) => {
  const node = newNode(t);
  const words = ["layer", "import", "--snapshot", "--quiet", imageIn(node)];
  await fillEach(t, node, words, emptied(node), [{ place: "store", size: "6m" }]);
});

test("env compile", { skip: skip || noCompile, timeout: 120_000 }, async (t) => {
  const { node, words, reset } = await compileScene(t);
  await fillEach(t, node, words, reset, [
    { place: "state", size: "16k" },
    { place: "state", size: "128k" },
  ]);
});
