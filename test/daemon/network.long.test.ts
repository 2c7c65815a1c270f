// What networks do to a daemon, in a network of this file's own (pitfalls D12): names that don't resolve, a resolver that never answers,
// an IPv6 address that leads nowhere, connections whose other end is gone without a word. Errors name place, cause and what to do; who
// has a mirror doesn't notice; and all of it passes without a restart.

import fs from "node:fs";
import { type Test, test } from "tap";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import type { DaemonConfig } from "../../lib/daemon/config.ts";
import { ATTEMPT_MS } from "../../lib/store/addresses.ts";
import { noise, publish, TestNode } from "../suite/daemon-node.ts";
import { SMALL } from "../suite/daemon-scene.ts";
import { OriginServer } from "../suite/origin-server.ts";
import {
  BLACK_HOLE,
  clientPorts,
  DnsServer,
  isInside,
  runInside,
  vanish,
} from "../suite/own-network.ts";
import { until } from "../suite/wait.ts";

const FILES = { ...SMALL, large: noise(24 * BLOCK_BYTES, 5) };
/** As in use, but shorter: what takes no time at all here takes far less, and what hangs far more. */
const LIMITS = { headerMs: 2_000, stallMs: 1_000, deadlineMs: 12_000, background: false };

/** A store at http://origin.test, which resolves as `dns` says, and a mirror by its address if it is wanted. */
async function scene(t: Test, dns: DnsServer, isMirrored = false) {
  const node = new TestNode();
  t.teardown(() => node.close());
  const published = await publish(node.store, FILES);
  const server = await OriginServer.start(node.store);
  t.teardown(() => server.close());
  const port = Number(new URL(server.url).port);
  const origin = `http://origin.test:${port}`;
  const mirror = await OriginServer.start(node.store);
  t.teardown(() => mirror.close());
  const origins = `${node.root}/origins.json`;
  const plan = isMirrored ? { [origin]: { mirrors: [mirror.url] } } : {};
  fs.writeFileSync(origins, JSON.stringify({ format: 1, origins: plan }));
  const mountId = node.mount(origin, published.digest);
  const start = (more: Partial<DaemonConfig> = {}) => node.start({ ...LIMITS, origins, ...more });
  dns.names.clear();
  dns.isSilent = false;
  t.teardown(() => dns.names.clear());
  return { node, published, server, mirror, port, origin, mountId, start };
}

function addTests(): void {
  test("a name that doesn't resolve is named, with what to do; once it does, all is well", {
    timeout: 180_000,
  }, async (t) => {
    const dns = await DnsServer.start(t);
    const { node, published, origin, mountId, start } = await scene(t, dns);
    await start({ deadlineMs: 3_000 });
    const client = await node.connect(mountId);
    t.not((await client.askBlob(0, published.row("file0"))).errno, 0);
    t.match(node.output, new RegExp(`"origin":"${origin}"`));
    t.match(node.output, /ENOTFOUND\): its name doesn't resolve: check [^"]*resolv\.conf/);
    dns.names.set("origin.test", { v4: "127.0.0.1" });
    t.equal((await client.askBlob(0, published.row("file0"))).errno, 0, "without a restart");
  });

  test("a resolver that never answers is a pause where there is a mirror, and no news to who knows the address", {
    timeout: 180_000,
  }, async (t) => {
    const dns = await DnsServer.start(t);
    const { node, published, server, mirror, origin, mountId, start } = await scene(t, dns, true);
    dns.isSilent = true;
    await start();
    const client = await node.connect(mountId);
    t.equal((await client.askBlob(0, published.row("file0"))).errno, 0, "from the mirror");
    t.ok(mirror.requests.length > 0);
    t.equal(server.requests.length, 0);
    t.match((await node.settled()).origins[origin]!.places[0], { bytes: 0 });
    // A large crowd asks the resolver no more often.
    const before = dns.asked;
    const row = published.row("large");
    const asks = Array.from({ length: 12 }, (_, i) => client.askBlocks(0, row, 2 * i, 1));
    for (const { errno } of await Promise.all(asks)) t.equal(errno, 0);
    t.ok(dns.asked - before <= 12, `${dns.asked - before} questions`);
  });

  test("a resolver that falls silent harms nobody who knows the address", {
    timeout: 180_000,
  }, async (t) => {
    const dns = await DnsServer.start(t);
    const { node, published, server, origin, mountId, start } = await scene(t, dns);
    dns.names.set("origin.test", { v4: "127.0.0.1" });
    await start();
    const client = await node.connect(mountId);
    const row = published.row("large");
    t.equal((await client.askBlocks(0, row, 0, 1)).errno, 0);
    await node.settled();
    dns.isSilent = true;
    server.hangUp();
    t.equal((await client.askBlocks(0, row, 12, 1)).errno, 0, "by the address of before");
    dns.isSilent = false;
    dns.names.clear();
    server.hangUp();
    t.equal((await client.askBlocks(0, row, 20, 1)).errno, 0, "where the name is gone, too");
    t.equal((await node.settled()).origins[origin]!.timeouts, 0);
  });

  test("an IPv6 address that leads nowhere costs no deadline", { timeout: 180_000 }, async (t) => {
    const dns = await DnsServer.start(t);
    const { node, published, origin, mountId, start } = await scene(t, dns);
    dns.names.set("origin.test", { v4: "127.0.0.1", v6: BLACK_HOLE });
    // Long enough for an address that is tried in vain.
    await start({ headerMs: 3 * ATTEMPT_MS });
    const client = await node.connect(mountId);
    for (const name of ["file0", "file49", "large"])
      t.equal((await client.askBlob(0, published.row(name))).errno, 0);
    t.match((await node.settled()).origins[origin], { timeouts: 0, transient: 0 });
    dns.names.set("origin.test", { v6: BLACK_HOLE });
  });

  test("all addresses lead nowhere: each is named", { timeout: 180_000 }, async (t) => {
    const dns = await DnsServer.start(t);
    const { node, published, port, mountId, start } = await scene(t, dns);
    dns.names.set("origin.test", { v4: "127.0.0.2", v6: "::1" });
    await start({ deadlineMs: 2_000 });
    const client = await node.connect(mountId);
    t.not((await client.askBlob(0, published.row("file0"))).errno, 0);
    t.match(node.output, /ECONNREFUSED\): nothing listens there/);
    for (const at of [`127.0.0.2:${port}`, `::1:${port}`]) t.match(node.output, at);
  });

  test("connections whose other end is gone without a word are given up by all at once", {
    timeout: 180_000,
  }, async (t) => {
    const dns = await DnsServer.start(t);
    const { node, published, port, origin, mountId, start } = await scene(t, dns);
    dns.names.set("origin.test", { v4: "127.0.0.1" });
    await start({ headerMs: 4_000 });
    const client = await node.connect(mountId);
    const row = published.row("large");
    const some = [0, 3, 6, 9].map((block) => client.askBlocks(0, row, block, 1));
    for (const { errno } of await Promise.all(some)) t.equal(errno, 0);
    await node.settled();
    const ports = clientPorts(port);
    t.ok(ports.length >= 2, `${ports.length} connections stand idle`);
    const ends = ports.map((at) => vanish(port, "--sport", String(at)));
    t.teardown(() => {
      for (const end of ends) end();
    });
    t.equal((await client.askBlocks(0, row, 14, 1)).errno, 0, "by a new connection");
    const { timeouts } = (await node.settled()).origins[origin]!;
    t.ok(timeouts <= 1, `${timeouts} requests waited for their deadline`);
    for (const block of [17, 20, 22])
      t.equal((await client.askBlocks(0, row, block, 1)).errno, 0, "and so do the others");
    t.ok((await node.settled()).origins[origin]!.timeouts <= 1);
  });

  test("a peer that vanishes in the middle, and comes back", { timeout: 180_000 }, async (t) => {
    const dns = await DnsServer.start(t);
    const { node, published, port, origin, mountId, start } = await scene(t, dns);
    dns.names.set("origin.test", { v4: "127.0.0.1" });
    await start({ deadlineMs: 6_000 });
    const client = await node.connect(mountId);
    const row = published.row("large");
    t.equal((await client.askBlocks(0, row, 0, 1)).errno, 0);
    const back = vanish(port);
    try {
      t.not((await client.askBlocks(0, row, 12, 1)).errno, 0, "by its deadline");
    } finally {
      back();
    }
    t.match(node.output, new RegExp(`"origin":"${origin}"`));
    t.match(node.output, /no answer within 2000 ms/);
    t.ok(await until(async () => (await client.askBlocks(0, row, 12, 1)).errno === 0));
  });
}

if (isInside) addTests();
else test("in a network of its own", { timeout: 1_500_000 }, runInside);
