// Owns: proof of the bar on real packages: ten prefixes of the fixtures' environment cost less than 2% more store than one, and the
// last of them is what a store of its own has, all of it. Needs $BURROW_FIXTURES = DIR after fixtures/channel.sh DIR. Plane: control.

import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { Node } from "../cli/cli.ts";
import { OriginServer } from "../suite/origin-server.ts";

const fixtures = process.env["BURROW_FIXTURES"];

function bytesBelow(root: string): number {
  const names = fs.readdirSync(root, { recursive: true }) as string[];
  const stats = names.map((name) => fs.statSync(path.join(root, name)));
  return stats.reduce((sum, stat) => sum + (stat.isFile() ? stat.size : 0), 0);
}

test("ten prefixes of the fixtures' environment", {
  skip: fixtures === undefined ? "needs BURROW_FIXTURES=DIR after fixtures/channel.sh DIR" : false,
}, async (t) => {
  const node = new Node(120_000);
  t.teardown(() => node.close());
  const lock = path.join(fixtures!, "channel/explicit.txt");
  const make = async (i: number, ...words: string[]) => {
    const prefix = i === 0 ? "/opt/env" : `/opt/env-number-${i}`;
    const made = await node.run(["env", "create", "--quiet", "--prefix", prefix, ...words, lock]);
    t.equal(made.code, 0, made.stderr);
    return made.stdout.trim();
  };
  await make(0);
  const one = bytesBelow(node.store);
  let last = "";
  for (let i = 1; i < 10; i++) last = await make(i);
  const ten = bytesBelow(node.store);
  t.comment(`one prefix: ${one} bytes, ten: ${ten}, ${((ten / one - 1) * 100).toFixed(2)}% more`);
  t.ok(ten < one * 1.02, `${ten} of ${one}`);
  t.equal(await make(9, "--store", node.path("other")), last, "alone, it is the same");
  const server = await OriginServer.start(node.store);
  t.teardown(() => server.close());
  const warmed = await node.run(["preload", "--quiet", "--store", server.url, last]);
  t.equal(warmed.code, 0, warmed.stderr);
  t.match(await node.run(["cache", "verify"]), { code: 0 });
});
