// Owns: what the tests of killed commands share: a command killed at random moments and begun again, and all that must not be left.
// Plane: control.

import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import type { Test } from "tap";
import { verifyStore } from "../../lib/cli/store-verify.ts";
import { exitOf } from "../conformance/runsc.ts";
import { conda } from "../ingest/conda/packages.ts";
import { layer, layoutOf, tarOf } from "../ingest/oci/images.ts";
import { noise } from "../suite/daemon-node.ts";
import { NULL_NETNS } from "../suite/null-netns.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { sleep, until } from "../suite/wait.ts";
import { type Node, newNode } from "./cli.ts";
import { addPackage, created, shared } from "./python-node.ts";

const NAMES = ["aa", "bb", "cc", "dd", "ee"];

/** A node and a lock of packages behind HTTP, each of many small files and a large one. */
export async function packagesNode(t: Test): Promise<{ node: Node; lock: string }> {
  const node = newNode(t);
  const lines: string[] = [];
  const server = await OriginServer.start(node.path("channel"));
  t.teardown(() => server.close());
  server.delayMs = 20;
  for (const [i, name] of NAMES.entries()) {
    const files = Array.from({ length: 150 }, (_, k) => ({
      name: `lib/${name}/file${k}`,
      content: noise(1_000 + k, 1_000 * i + k + 1),
    }));
    files.push({ name: `lib/${name}.so`, content: noise(3_000_000, i + 70) });
    const bytes = await conda({ index: { name }, files });
    node.file(`channel/linux-64/${name}-1.0-0.conda`, bytes);
    const sum = createHash("sha256").update(bytes).digest("hex");
    lines.push(`${server.url}/linux-64/${name}-1.0-0.conda#sha256:${sum}\n`);
  }
  return { node, lock: node.file("lock.txt", `@EXPLICIT\n${lines.join("")}`) };
}

/** An image of three layers: its path. */
export function imageIn(node: Node): string {
  const layers = NAMES.slice(0, 3).map((name, i) =>
    layer(
      ...Array.from({ length: 200 }, (_, k) => ({
        name: `${name}${k}`,
        content: noise(2_000 + k, 300 * i + k + 1),
      })),
      { name: `${name}.large`, content: noise(4_000_000, i + 90) },
    ),
  );
  return node.file("image.tar", tarOf(layoutOf({ "": { layers, config: {} } })));
}

/** What a killed command must not leave for good. */
function leftOf(node: Node): string[] {
  const folders = [node.env["TMPDIR"]!, `${node.store}/tmp`, `${node.cache}/tmp`];
  const files = [...folders, `${node.cache}/packages`].flatMap((folder) =>
    fs.existsSync(folder) ? fs.readdirSync(folder).map((name) => path.join(folder, name)) : [],
  );
  const mounts = fs
    .readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .filter((line) => line.includes(node.dir) && !line.includes(NULL_NETNS));
  return [...files, ...node.leftovers(), ...mounts, ...node.processes()];
}

/**
 * Kills a command `kills` times, each at a random moment of a run that begins where `reset` begins, and has it begun again: the same
 * output, a right store, and nothing left.
 */
export async function killAndRepeat(
  t: Test,
  node: Node,
  words: readonly string[],
  kills: number,
  reset: () => void,
): Promise<void> {
  reset();
  const startedMs = performance.now();
  const first = await node.run(words);
  const wholeMs = performance.now() - startedMs;
  t.equal(first.code, 0, first.stderr);
  await node.run(["daemon", "stop"]);
  const { state, cache, store } = node;
  for (let count = 0; count < kills; count++) {
    reset();
    const afterMs = Math.round(Math.random() * wholeMs);
    const what = `killed after ${afterMs} of ${Math.round(wholeMs)} ms`;
    const child = node.start(words);
    child.stdout?.resume();
    child.stderr?.resume();
    await sleep(afterMs); // a moment, whichever it is
    child.kill("SIGKILL");
    await exitOf(child);
    const next = await node.run(words);
    t.same([next.code, next.stdout], [0, first.stdout], `${what}: ${next.stderr.slice(-300)}`);
    const { faults } = await verifyStore({ state, cache, store, isJson: false });
    t.same(faults, [], what);
    // What the command wrote into the cache is the daemon's to sweep, when it starts.
    await node.run(["daemon", "stop"]);
    const sweep = ["daemon", "start", "--idle", "0.1", "--standbys", "0"];
    if (fs.existsSync(cache)) t.match(await node.run(sweep), { code: 0 }, what);
    const isClean = await until(() => leftOf(node).length === 0);
    t.ok(isClean, `${what}: ${leftOf(node).join("\n")}`);
  }
}

/** A compilation of an environment with Python files and a script, over a store that has both alone. */
export async function compileScene(t: Test) {
  const { node, base, version } = await shared(t);
  const script = 'echo made > "$PREFIX/made"\n';
  const files = [
    { name: "bin/.plain-post-link.sh", content: script, mode: 0o755 },
    ...Array.from({ length: 200 }, (_, i) => ({
      name: `lib/python${version}/site-packages/plain${i}.py`,
      content: `ONE = ${i}\n`,
    })),
  ];
  const env = await created(node, t, await addPackage(node, "plain", { files }));
  const aside = node.path("store.aside");
  fs.cpSync(node.store, aside, { recursive: true });
  const reset = () => {
    fs.rmSync(node.store, { recursive: true, force: true });
    fs.cpSync(aside, node.store, { recursive: true });
  };
  return { node, words: ["env", "compile", "--quiet", "--base", base, env], reset };
}

/** A daemon that was told to end may still remove what it had. */
const LATE = { recursive: true, force: true, maxRetries: 20, retryDelay: 50 };

/** Has a node without store, cache and state. */
export function emptied(node: Node): () => void {
  return () => {
    for (const folder of [node.store, node.cache, node.state]) fs.rmSync(folder, LATE);
  };
}
