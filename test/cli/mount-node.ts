// What the tests of burrow mount share: a node with a directory to import and one to mount at, and a mount in the foreground. Test support.

import { type ChildProcess, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import type { Test } from "tap";
import { mountedAt } from "../../lib/sys/mounted.ts";
import { exitOf } from "../conformance/runsc.ts";
import { until } from "../suite/wait.ts";
import { type Node, newNode } from "./cli.ts";

/** A node with a directory to import and one to mount at. */
export function makeNode(t: Test): { node: Node; at: string } {
  const node = newNode(t);
  node.file("tree/README", "read me\n");
  node.file("tree/sub/f", "content");
  node.file("tree/setuid", "#!/bin/sh\n", 0o4755);
  const at = node.path("at");
  fs.mkdirSync(at);
  t.teardown(() => {
    while (mountedAt(at) !== undefined) spawnSync("umount", ["-l", at]);
  });
  return { node, at };
}

/** What it says with --json. */
export interface Said {
  mountpoint: string;
  pid: number;
  server: number;
}

/** A mount in the foreground, once it can be used. */
export async function start(
  node: Node,
  words: readonly string[],
): Promise<{ child: ChildProcess; said: Said }> {
  const child = node.start(["mount", ...words, "--json", "--quiet"]);
  let [out, errors] = ["", ""];
  child.stdout!.setEncoding("utf8").on("data", (text: string) => {
    out += text;
  });
  child.stderr!.setEncoding("utf8").on("data", (text: string) => {
    errors += text;
  });
  await until(() => out.includes("\n") || child.exitCode !== null);
  if (!out.includes("\n")) throw new Error(errors);
  return { child, said: JSON.parse(out) as Said };
}

/** Mounts something over a view, ends its command by a signal, and mounts a view there again. */
export async function coverAndEnd(t: Test, signal: NodeJS.Signals): Promise<void> {
  const { node, at } = makeNode(t);
  const { child, said } = await start(node, ["tree", at]);
  const { status } = spawnSync("mount", ["-t", "tmpfs", "-o", "size=1m", "none", at]);
  t.equal(status, 0);
  fs.writeFileSync(path.join(at, "theirs"), "work");
  child.kill(signal);
  await exitOf(child);
  t.ok(await until(() => !fs.existsSync(`/proc/${said.server}`)), "the server ends");
  t.equal(fs.readFileSync(path.join(at, "theirs"), "utf8"), "work");
  spawnSync("umount", [at]);
  const next = await start(node, ["tree", at]);
  t.equal(fs.readFileSync(path.join(at, "sub/f"), "utf8"), "content", "what was below is swept");
  next.child.kill("SIGTERM");
  t.equal(await exitOf(next.child), 0);
  t.equal(mountedAt(at), undefined);
}
