// Owns: proof that burrow preload says what can't all be on a node within the limit of its cache, before it fetches where that can be told, and
// never that all is there when some has gone again. Plane: control.

import fs from "node:fs";
import { type Test, test } from "tap";
import { daemonStatus, isDaemonUp } from "../../lib/cache/client.ts";
import { cachePath } from "../../lib/cache/layout.ts";
import { noise, type Published, publish } from "../suite/daemon-node.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { until } from "../suite/wait.ts";
import { type Node, newNode } from "./cli.ts";

/** Some 1.3 MB on disk, with the folders; no blob is in two of them. */
const filesOf = (seed: number) =>
  Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`f${i}`, noise(35_000, seed + i)]));

async function scene(t: Test, limit: string): Promise<{ node: Node; made: Published[] }> {
  const node = newNode(t);
  const made = [await publish(node.store, filesOf(1)), await publish(node.store, filesOf(101))];
  node.start(["daemon", "start", "--idle", "0", "--standbys", "0", "--cache-bytes", limit]);
  await until(() => isDaemonUp(node.cache));
  return { node, made };
}

const nameOf = ({ digest }: Published) => `sha256:${digest}`;
const fetchedBy = async (node: Node) => (await daemonStatus(node.cache))!.fetch["asks"];

test("what is larger than the limit is refused before anything is fetched; a part of it is brought", async (t) => {
  const { node, made } = await scene(t, "1M");
  const whole = await node.run(["preload", nameOf(made[0]!)]);
  t.match(whole, { code: 1, stderr: /30 files of 1\.\d+ MB can't all be on this node/ });
  t.match(whole.stderr, /limit of 1\.05 MB .*--cache-bytes.*--profile.*\(BURROW_NO_SPACE\)/);
  t.notMatch(whole.stderr, /all on this node,/);
  t.equal(await fetchedBy(node), 0);
  const profile = node.file("some", "f1\nf2\nf3\n");
  const part = await node.run(["preload", "--profile", profile, made[0]!.digest.slice(0, 8)]);
  t.match(part, { code: 0, stderr: /3 files, all on this node, 3 of them new/ });
});

test("two that fit, each for itself, don't together; nor beside one that is pinned", async (t) => {
  const { node, made } = await scene(t, "2500k");
  const [first, second] = made.map(nameOf) as [string, string];
  const both = await node.run(["preload", first, second, "--json"]);
  t.equal(both.code, 1);
  const events = both.stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  t.match(
    events.filter(({ event }) => event === "warmed"),
    [{ snapshot: first, fetchedBlobs: 30 }],
  );
  t.match(
    events.filter(({ event }) => event === "failed"),
    [{ code: "BURROW_NO_SPACE", message: /^60 files of/ }],
  );
  t.match(await node.run(["cache", "pin", first]), { code: 0 });
  const beside = await node.run(["preload", second]);
  t.match(beside, {
    code: 1,
    stderr: /^burrow: .*30 files of .* beside 1\.\d+ MB of what is pinned/m,
  });
  t.match(await node.run(["cache", "unpin", first]), { code: 0 });
  t.match(await node.run(["preload", second]), { code: 0, stderr: /all on this node/ });
});

test("what goes while others come is missed at the end", async (t) => {
  const { node, made } = await scene(t, "9M");
  const server = await OriginServer.start(node.store);
  t.teardown(() => server.close());
  const [first, second] = made as [Published, Published];
  const victim = cachePath(node.cache, "blobs", first.refs.get("f7")!.digest);
  let isSecond = false;
  server.fault = (path) => {
    isSecond ||= path.endsWith(second.digest);
    if (isSecond) fs.rmSync(victim, { force: true });
    return "none";
  };
  const words = ["preload", "--store", server.url, nameOf(first), nameOf(second)];
  const { code, stderr } = await node.run(words);
  t.equal(code, 1);
  t.match(stderr, /of 60 files 1 aren't in the cache any more: its limit is 9\.44 MB.*NO_SPACE/);
  server.fault = () => "none";
  t.match(await node.run(words), { code: 0, stderr: /1 of them new/ });
});
