// The cache is taken away under a daemon that lives: it goes on with an empty one, and there are never two daemons for long.

import fs from "node:fs";
import { test } from "tap";
import { isDaemonUp } from "../../lib/cache/client.ts";
import { CACHE_FOLDERS, DAEMON_LOCK, DAEMON_SOCKET } from "../../lib/cache/layout.ts";
import { exited, noise, type TestNode } from "../suite/daemon-node.ts";
import { SMALL, scene } from "../suite/daemon-scene.ts";
import { isLong } from "../suite/long.ts";
import { until } from "../suite/wait.ts";

const FILES: Record<string, Buffer> = { ...SMALL, large: noise(6_000_000, 99) };

/** All of it, or what of it a cleaner takes. */
function empty(node: TestNode, names = fs.readdirSync(node.cache)): void {
  for (const name of names) fs.rmSync(`${node.cache}/${name}`, { recursive: true, force: true });
}

const GONE: Readonly<Record<string, (node: TestNode) => void>> = {
  "the folder itself": (node) => fs.rmSync(node.cache, { recursive: true }),
  "what a cleaner of old files takes": (node) =>
    empty(node, ["tmp", "partial", DAEMON_LOCK, DAEMON_SOCKET]),
};

for (const [what, take] of Object.entries(GONE).slice(0, isLong ? undefined : 1)) {
  test(`under a daemon ${what} is removed: it goes on, alone`, async (t) => {
    const { node, published, mountId } = await scene(t, FILES);
    // Without memory no disk counts as hung, however slow the machine is.
    await node.start({ memoryBytes: 0, limitBytes: 30_000_000 });
    const client = await node.connect(mountId);
    t.equal((await client.askBlob(0, published.row("large"))).errno, 0);
    await node.settled();
    take(node);
    const isWhole = () =>
      [...CACHE_FOLDERS, DAEMON_LOCK, DAEMON_SOCKET].every((name) =>
        fs.existsSync(`${node.cache}/${name}`),
      );
    t.ok(await until(async () => isWhole() && (await isDaemonUp(node.cache))));
    t.equal(await exited(node.spawn()), 0, "a second daemon finds the first");
    const newcomer = await node.connect(mountId);
    for (const name of Object.keys(FILES)) {
      t.equal(
        (await client.askBlob(0, published.row(name))).errno,
        0,
        "who was connected still is",
      );
      t.same(fs.readFileSync(node.blobPath(published.refs.get(name)!.digest)), FILES[name], name);
    }
    t.equal((await newcomer.askBlob(0, published.row("large"))).errno, 0);
  });
}

test("another daemon was faster: the first one leaves it the cache", async (t) => {
  const { node, published, mountId } = await scene(t, SMALL);
  const first = await node.start();
  const client = await node.connect(mountId);
  t.equal((await client.askBlob(0, published.row("file1"))).errno, 0);
  first.kill("SIGSTOP");
  empty(node);
  const second = await node.start();
  first.kill("SIGCONT");
  t.equal(await exited(first), 0);
  t.equal((await node.status()).pid, second.pid, "it took nothing of the other's with it");
  const again = await node.connect(mountId);
  t.equal((await again.askBlob(0, published.row("file1"))).errno, 0);
});
