// A daemon that has no FD free for a while: who asks waits, and what is on the node stays there.

import { execFileSync } from "node:child_process";
import fs from "node:fs";
import { test } from "tap";
import { openCache } from "../../lib/cache/cache.ts";
import { pin } from "../../lib/cache/pins.ts";
import { noise } from "../suite/daemon-node.ts";
import { SMALL, scene } from "../suite/daemon-scene.ts";
import { sleep } from "../suite/wait.ts";

/** Below any FD that is free: every open of the process fails. */
const NONE = 3;

function openFilesOf(pid: number): number {
  const limits = fs.readFileSync(`/proc/${pid}/limits`, "utf8");
  return Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1]);
}

function limitOpenFiles(pid: number, soft: number): void {
  execFileSync("prlimit", ["--pid", String(pid), `--nofile=${soft}:`]);
}

test("no FD is free, and the origin is gone: what is here is answered later, and nothing goes", async (t) => {
  const files: Record<string, Buffer> = { ...SMALL, large: noise(6_000_000, 99) };
  const { node, server, published, mountId } = await scene(t, files);
  // Without memory no disk counts as hung, however slow the machine is.
  const daemon = await node.start({ memoryBytes: 0 });
  const client = await node.connect(mountId);
  const ask = (name: string) => client.askBlob(0, published.row(name));
  const names = Object.keys(files);
  for (const name of names) t.equal((await ask(name)).errno, 0);
  await node.settled();
  const cache = openCache(node.cache);
  await pin(cache, published.digest);
  await server.close();
  const before = openFilesOf(daemon.pid!);
  limitOpenFiles(daemon.pid!, NONE);
  const answers = Promise.all(names.map(ask));
  await sleep(500);
  limitOpenFiles(daemon.pid!, before);
  for (const [i, { errno }] of (await answers).entries()) {
    const name = names[i]!;
    t.equal(errno, 0, name);
    t.same(fs.readFileSync(node.blobPath(published.refs.get(name)!.digest)), files[name], name);
  }
  t.ok(fs.existsSync(cache.path("indexes", published.digest)), "nor does what is pinned");
  const { fetch, room } = await node.settled();
  t.same(
    [fetch["dropped"], fetch["resealed"], room.demotions],
    [0, 0, 0],
    "nor is the disk blamed",
  );
});
