// A daemon that is told to reload (SIGHUP, `burrow daemon reload`): it reads its file of origins and credentials again. What is open stays
// open, what waits for a place that doesn't answer comes from the new ones, and a file with a slip changes nothing (pitfalls A4, A9).

import fs from "node:fs";
import { test } from "tap";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { reloadDaemon, stopDaemon } from "../../lib/cache/client.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { exited, noise, publish, TestNode } from "../suite/daemon-node.ts";
import { scene } from "../suite/daemon-scene.ts";
import { open, walkTo } from "../suite/lisafs-calls.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { service, setEnvironment } from "../suite/s3-server.ts";
import { serveMount } from "../suite/served.ts";
import { until } from "../suite/wait.ts";

const BLOCKS = 48;
const ASKS = 200;
/** None of ours ends what hangs: only the reload does. */
const PATIENT = { headerMs: 120_000, deadlineMs: 120_000, background: false };

function writeOrigins(path: string, origins: object): void {
  fs.writeFileSync(path, JSON.stringify({ format: 1, origins }));
}

test("what is open and what waits lives through a reload", { timeout: 120_000 }, async (t) => {
  const large = noise(BLOCKS * BLOCK_BYTES, 3);
  const { node, server, published, mountId } = await scene(t, { large, small: noise(9_000, 4) });
  const mirror = await OriginServer.start(node.store);
  t.teardown(() => mirror.close());
  const origins = `${node.root}/origins.json`;
  writeOrigins(origins, {});
  const daemon = await node.start({ ...PATIENT, origins });
  const { client: gofer } = await serveMount(t, node, mountId);
  const { fd } = open(gofer, walkTo(gofer, "large"));
  const read = (block: number) =>
    gofer.callBeside(Mid.PRead, { fd, offset: block * BLOCK_BYTES, count: 4096 });
  const isRight = ({ errno, payload }: { errno: number; payload: Uint8Array }, block: number) =>
    errno === 0 &&
    large.subarray(block * BLOCK_BYTES, block * BLOCK_BYTES + 4096).equals(payload.subarray(8));
  t.ok(isRight(await read(2), 2));
  const [bytes, partials] = [server.requests.length, node.names("partial")];
  server.fault = () => "stall-headers";
  const client = await node.connect(mountId);
  const asks = Array.from({ length: ASKS }, (_, i) =>
    client.askBlocks(0, published.row("large"), 8 + (i % (BLOCKS - 8)), 1),
  );
  const reading = read(7);
  t.ok(await until(async () => (await node.status()).fetch["asks"]! > ASKS));
  t.ok(await until(() => server.requests.length > bytes), "asked, and not answered");

  fs.writeFileSync(origins, '{ "format": 1, "orgins": {} }');
  await t.rejects(reloadDaemon(node.cache), { message: /keeps what it had.*orgins/ });
  t.match((await node.status()).origins[server.url]!.places, [{ name: server.url }]);

  writeOrigins(origins, { [server.url]: { mirrors: [mirror.url, server.url] } });
  t.equal(await reloadDaemon(node.cache), true);
  t.ok(
    (await Promise.all(asks)).every(({ errno }) => errno === 0),
    "all that waited have it",
  );
  t.ok(isRight(await reading, 7), "who reads in a sandbox, too");
  t.ok(isRight(await read(2), 2), "the file that was open is open");
  t.same(node.names("partial"), partials, "and the same");
  const status = await node.status();
  const { places, requests } = status.origins[server.url]!;
  t.match(places, [{ name: mirror.url }, { name: server.url }]);
  t.ok(requests > server.requests.length, "counters go on");
  t.match(status.reloads, { done: 1, refused: 1, why: "" });
  t.match(node.output, /"event":"reload refused"[^\n]*orgins/);

  // From there it goes back, with nothing under way.
  writeOrigins(origins, {});
  server.fault = () => "none";
  const before = mirror.requests.length;
  t.equal(await reloadDaemon(node.cache), true);
  t.equal((await client.askBlob(0, published.row("small"))).errno, 0);
  t.equal(mirror.requests.length, before, "the mirror is asked no more");
  t.equal(daemon.exitCode, null);
  t.equal(await stopDaemon(node.cache), true);
  t.equal(await exited(daemon), 0);
  t.equal(await reloadDaemon(node.cache), false, "none runs");
});

test("credentials are asked for anew", async (t) => {
  const server = await service(t);
  const node = new TestNode();
  t.teardown(() => node.close());
  const files = { a: noise(700_000, 1), b: noise(700_000, 2) };
  const published = await publish(server.address("box/store"), files);
  const program = `${node.root}/give-credentials`;
  const asked = `${node.root}/asked`;
  const script = `#!/bin/sh
echo asked >> ${asked}
printf '{"Version":1,"AccessKeyId":"AKIDTEST","SecretAccessKey":"SECRETTEST"}'
`;
  fs.writeFileSync(program, script, { mode: 0o755 });
  const config = `${node.root}/config`;
  fs.writeFileSync(config, `[profile p]\ncredential_process = ${program}\n`);
  setEnvironment(t, {
    AWS_CONFIG_FILE: config,
    AWS_SHARED_CREDENTIALS_FILE: `${node.root}/none`,
    AWS_ACCESS_KEY_ID: "",
    AWS_SECRET_ACCESS_KEY: "",
  });
  const count = () => fs.readFileSync(asked, "latin1").split("\n").length - 1;
  await node.start();
  const origin = `${server.address("box/store")}&profile=p`;
  const client = await node.connect(node.mount(origin, published.digest));
  t.equal((await client.askBlob(0, published.row("a"))).errno, 0);
  t.equal(count(), 1);
  t.equal(await reloadDaemon(node.cache), true);
  // From another program, by the file that says which.
  fs.writeFileSync(`${program}2`, script.replace("echo asked", "echo anew"), { mode: 0o755 });
  fs.writeFileSync(config, `[profile p]\ncredential_process = ${program}2\n`);
  t.equal((await client.askBlob(0, published.row("b"))).errno, 0);
  t.match(fs.readFileSync(asked, "latin1"), /^asked\nanew\n$/);
});
