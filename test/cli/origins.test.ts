// Owns: proof that mirrors are known on the command line: to commands that read a store, to the daemon and what it says of itself, and
// not to what is asked whether a store is right. Plane: control.

import fs from "node:fs";
import { test } from "tap";
import { noise, publish } from "../suite/daemon-node.ts";
import { noFuse } from "../suite/fuse.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { until } from "../suite/wait.ts";
import { newNode } from "./cli.ts";

test("a store whose server is down is read from its mirror", async (t) => {
  const node = newNode(t);
  const { digest } = await publish(node.store, { file: noise(100_000) });
  const server = await OriginServer.start(node.store);
  t.teardown(() => server.close());
  server.fault = () => "reset";
  const plan = { [server.url]: { mirrors: [node.store] } };
  const file = node.file("origins.json", JSON.stringify({ format: 1, origins: plan }));
  const show = ["layer", "show", digest, "--store", server.url];
  t.match(await node.run(show), { code: 1, stderr: /BURROW_ORIGIN/ });
  const env = { BURROW_ORIGINS: file };
  t.match(await node.run(show, { env }), { code: 0, stdout: /file/ });
  const relative = await node.run(show, { env: { BURROW_ORIGINS: "origins.json" } });
  t.match(relative, { code: 0, stdout: /file/ });
});

test("the daemon takes a file, refuses one with a slip, and says how each place does", async (t) => {
  const node = newNode(t);
  const published = await publish(node.store, { file: noise(100_000) });
  const server = await OriginServer.start(node.store);
  t.teardown(() => server.close());
  server.fault = () => "503";
  const plan = { mirrors: [node.store] };
  const write = (origins: object) =>
    node.file("origins.json", JSON.stringify({ format: 1, origins }));
  write({ [server.url]: { ...plan, tiers: {} } });
  const words = ["daemon", "start", "--idle", "0", "--standbys", "0", "--origins", "origins.json"];
  const refused = await node.run(words);
  t.match(refused, { code: 2, stderr: /origins\.json.*no "tiers"/ });
  write({ [server.url]: plan });
  t.match(await node.run(["daemon", "reload"]), { code: 1, stderr: /no daemon runs/ });
  node.start(words);
  t.ok(await until(async () => (await node.run(["daemon", "status"])).code === 0));
  const { digest } = published;
  const show = ["layer", "show", digest, "--store", server.url];
  t.match(await node.run(show), { code: 0, stdout: /file/ }, "by the daemon's file");
  t.match(await node.run([...show, "--cache", node.path("other")]), { code: 1 });
  const explain = ["explain", digest, "file", "--store", server.url];
  t.match(await node.run(explain), { code: 0, stdout: /file/ });
  if (!noFuse) {
    fs.mkdirSync(node.path("at"));
    const mount = ["mount", "--background", digest, node.path("at"), "--store", server.url];
    t.match(await node.run(mount), { code: 0, stdout: /is mounted/ });
    t.match(await node.run(["umount", node.path("at")]), { code: 0 });
  }
  const mount = { format: 1, kind: "view", cache: node.cache, grafts: [] };
  const base = { snapshot: `sha256:${digest}`, origin: server.url };
  node.file("state/mounts/m/mount.json", JSON.stringify({ ...mount, base }));
  const warmed = await node.run(["daemon", "status", "--json"]);
  t.same(JSON.parse(warmed.stdout).origins, {}, "nothing was asked for yet");
  const { Asker } = await import("../../lib/cache/asker.ts");
  const asker = await Asker.open(node.cache, "m");
  t.teardown(() => asker.close());
  t.equal(await asker.blob(0, published.row("file")), 0);
  const { stdout } = await node.run(["daemon", "status"]);
  t.match(stdout, new RegExp(`fetched +.* from ${server.url}\n`));
  t.match(stdout, new RegExp(`resting( \\d+ s)? +0 B in \\d requests from ${server.url}, .*503`));
  t.match(stdout, new RegExp(`up +.* from ${node.store}\n`));
  write({ [server.url]: { ...plan, tiers: {} } });
  const kept = await node.run(["daemon", "reload"]);
  t.match(kept, { code: 1, stderr: /keeps what it had.*origins\.json.*no "tiers"/ });
  write({ [server.url]: { mirrors: [node.store, server.url] } });
  const reloaded = await node.run(["daemon", "reload", "--json"]);
  t.match(reloaded, { code: 0, stdout: /"reloaded": *true/ });
});

test("whether a store is right is asked of itself, not of its mirrors", async (t) => {
  const node = newNode(t);
  await publish(node.store, { file: noise(100_000) });
  fs.cpSync(node.store, node.path("mirror"), { recursive: true });
  const plan = { [node.store]: { mirrors: [node.path("mirror")] } };
  const file = node.file("origins.json", JSON.stringify({ format: 1, origins: plan }));
  const env = { BURROW_ORIGINS: file };
  t.match(await node.run(["store", "verify"], { env }), { code: 0 });
  fs.rmSync(`${node.store}/packs`, { recursive: true });
  t.match(await node.run(["store", "verify"], { env }), { code: 1 });
});
