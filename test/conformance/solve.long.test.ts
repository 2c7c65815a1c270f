// Owns: proof that a solve of the fixtures' channel is the lock that its script writes: the same packages, the same digest.
// Needs $BURROW_FIXTURES = DIR after fixtures/channel.sh DIR. Plane: control.

import path from "node:path";
import { test } from "tap";
import { newNode } from "../cli/cli.ts";

const fixtures = process.env["BURROW_FIXTURES"];

test("the fixtures' channel, by specs and by its lock", {
  skip: fixtures === undefined ? "needs BURROW_FIXTURES=DIR after fixtures/channel.sh DIR" : false,
}, async (t) => {
  const node = newNode(t);
  const channel = path.join(fixtures!, "channel");
  const specs = ["burrow-greet", "burrow-prefix", "burrow-tally", "numpy>=1.24"];
  const locked = await node.run(["env", "create", path.join(channel, "explicit.txt")]);
  t.equal(locked.code, 0, locked.stderr);
  const made = await node.run(["env", "create", "--channel", channel, ...specs]);
  t.match(made, { code: 0, stdout: locked.stdout, stderr: /^solved: 11 packages/ });
  const none = await node.run(["env", "create", "--channel", channel, "numpy>=1.25"]);
  t.match(none, { code: 1, stderr: /numpy >=1\.25.*BURROW_UNSOLVABLE/ });
});
