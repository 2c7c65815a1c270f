// A daemon whose store is on S3: what the service or the way to it does wrong is bytes that are right, or an errno in time; never a
// wrong file in the cache. Keys that change under it are found.

import fs from "node:fs";
import { type Test, test } from "tap";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import type { DaemonConfig } from "../../lib/daemon/config.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { noise, publish, TestNode } from "../suite/daemon-node.ts";
import { SMALL } from "../suite/daemon-scene.ts";
import type { Fault } from "../suite/origin-server.ts";
import { service, setEnvironment } from "../suite/s3-server.ts";
import { LATE_MS } from "../suite/wait.ts";

const QUICK: Partial<DaemonConfig> = { deadlineMs: 3000, headerMs: 300, stallMs: 300 };
const FILES = { ...SMALL, large: noise(12 * BLOCK_BYTES + 5, 77) };

async function scene(t: Test) {
  const server = await service(t);
  const node = new TestNode();
  t.teardown(() => node.close());
  const published = await publish(server.address("box/store"), FILES);
  const mountId = node.mount(server.address("box/store"), published.digest);
  return { server, node, published, mountId };
}

/** Files in blobs/, each of which must be what its name says. */
function checkCache(t: Test, node: TestNode): number {
  const root = `${node.cache}/blobs`;
  const paths = fs
    .readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile());
  for (const { parentPath, name } of paths)
    if (digestOf(fs.readFileSync(`${parentPath}/${name}`)) !== name) t.fail(`wrong: ${name}`);
  return paths.length;
}

const FAULTS: readonly Fault[] = [
  "flip",
  "short-body",
  "none",
  "wrong-range",
  "whole",
  "stall-body",
  "none",
  "503",
  "reset",
  "long-body",
  "short-range",
  "stall-headers",
  "none",
];

test("faults of all kinds, one after the other: no wrong byte, and all there at the end", async (t) => {
  const { server, node, published, mountId } = await scene(t);
  await node.start(QUICK);
  const client = await node.connect(mountId);
  let count = 0;
  server.files.fault = (path) =>
    path.includes("/packs/") ? FAULTS[count++ % FAULTS.length]! : "none";
  const names = Object.keys(FILES).filter((name) => name !== "large");
  const startedMs = Date.now();
  const answers = await Promise.all(names.map((name) => client.askBlob(0, published.row(name))));
  t.ok(Date.now() - startedMs < LATE_MS, "all are answered by the deadline, with room for load");
  t.ok(count > 0, "the faults were met");
  for (const { errno } of answers) if (errno !== 0) t.ok([5, 110].includes(Math.abs(errno)));
  checkCache(t, node);
  server.files.fault = () => "none";
  for (const name of names) t.equal((await client.askBlob(0, published.row(name))).errno, 0, name);
  for (const block of [0, 5, 12])
    t.equal((await client.askBlocks(0, published.row("large"), block, 1)).errno, 0);
  await node.settled();
  t.ok(checkCache(t, node) >= 50);
});

test("keys that expire while files are open are renewed, and the read goes on", async (t) => {
  const { server, node, published, mountId } = await scene(t);
  const file = `${t.testdir({})}/credentials`;
  const write = (id: string) =>
    fs.writeFileSync(file, `[default]\naws_access_key_id=${id}\naws_secret_access_key=SECRET\n`);
  const variables = { AWS_SHARED_CREDENTIALS_FILE: file, AWS_CONFIG_FILE: `${file}.none` };
  setEnvironment(t, { ...variables, AWS_ACCESS_KEY_ID: "", AWS_SECRET_ACCESS_KEY: "" });
  server.keys.set("OLD", { secret: "SECRET" });
  write("OLD");
  // Nothing fails here but the keys: a loaded machine may take its time.
  await node.start({ background: false });
  const client = await node.connect(mountId);
  t.equal((await client.askBlob(0, published.row("file0"))).errno, 0);
  server.keys.set("OLD", { secret: "SECRET", isExpired: true });
  server.keys.set("NEW", { secret: "SECRET" });
  write("NEW");
  const first = client.askBlocks(0, published.row("large"), 1, 1);
  const second = client.askBlocks(0, published.row("large"), 9, 1);
  t.equal((await first).errno, 0);
  t.equal((await second).errno, 0);
  t.notMatch(node.output, /SECRET/);
});
