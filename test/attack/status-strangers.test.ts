// Owns: proof that the daemon tells of one sandbox's failures neither to other users of the node nor at the end of another's run, and
// that who would ask a daemon which knows none of his mounts hears of it. Plane: control.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { type Test, test } from "tap";
import { ensureDaemon } from "../../lib/cache/client.ts";
import { encodeBare, FRAME_BYTES, Frame } from "../../lib/cache/mailbox-wire.ts";
import { fetchedBetween, fetchedSoFar } from "../../lib/cli/fetched.ts";
import { noise, publish, TestNode } from "../suite/daemon-node.ts";

const needsRoot = process.getuid?.() === 0 ? false : "acting as another user needs root";

/** Becomes a user, sends a frame in hexadecimal digits to a socket, and prints the JSON of the answer. */
const ASK = `import os, socket, sys
os.setgroups([])
os.setresuid(*[int(sys.argv[4])] * 3)
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(bytes.fromhex(sys.argv[2]))
got = b""
while len(got) < 4 or len(got) < int.from_bytes(got[:4], "little"):
    got += s.recv(65536)
sys.stdout.buffer.write(got[int(sys.argv[3]):])`;

function statusAs(uid: number, cache: string): Record<string, unknown> {
  const frame = Buffer.alloc(64);
  const hex = frame.subarray(0, encodeBare(frame, Frame.status, 1)).toString("hex");
  const words = ["-c", ASK, `${cache}/daemon.sock`, hex, String(FRAME_BYTES), String(uid)];
  const { stdout, stderr } = spawnSync("python3", words, { encoding: "utf8" });
  if (stdout === "") throw new Error(stderr);
  return JSON.parse(stdout);
}

/** A node with a mount whose store has lost its packs, and one that is whole. */
async function sceneOf(t: Test) {
  const node = new TestNode();
  t.teardown(() => node.close());
  const { digest } = await publish(node.store, { mine: noise(10) });
  const other = `${node.root}/secret-store`;
  const lost = await publish(other, { theirs: noise(10, 2), more: noise(20, 3) });
  fs.rmSync(`${other}/packs`, { recursive: true });
  await node.start();
  const [mine, theirs] = [node.mount(node.store, digest), node.mount(other, lost.digest)];
  return { node, mine, theirs, failed: lost.refs.get("theirs")!.digest };
}

test("other users see figures alone", { skip: needsRoot }, async (t) => {
  const { node, theirs, failed } = await sceneOf(t);
  for (const each of [node.root, node.cache]) fs.chmodSync(each, 0o755);
  const client = await node.connect(theirs);
  t.not((await client.askBlob(0, 0)).errno, 0);
  t.not((await client.askBlob(0, 1)).errno, 0);
  const own = statusAs(0, node.cache);
  t.match(JSON.stringify(own["failures"]), theirs);
  t.match(JSON.stringify(own), "secret-store");
  const strange = statusAs(65534, node.cache);
  t.match(strange, { pid: own["pid"], origins: {}, queues: {}, views: {}, failures: {} });
  for (const secret of ["secret-store", theirs, failed.slice(0, 12)])
    t.notMatch(JSON.stringify(strange), secret);
});

test("a run is told of its own mount's failures", async (t) => {
  const { node, mine, theirs } = await sceneOf(t);
  const before = await fetchedSoFar(node.cache, mine);
  const client = await node.connect(theirs);
  t.not((await client.askBlob(0, 0)).errno, 0);
  // As at the end of a sandbox.
  client.close();
  const seen = async (id: string) => fetchedBetween(before, await fetchedSoFar(node.cache, id));
  t.equal((await seen(mine)).lastFailure, undefined);
  t.match((await seen(theirs)).lastFailure?.error, "secret-store");
});

test("a daemon that knows none of a caller's mounts is an error that says so", async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  await node.start();
  const command = [process.execPath, "-e", "process.exit(3)", "--"];
  const { cache, state } = node;
  fs.mkdirSync(state, { recursive: true });
  fs.symlinkSync(state, `${node.root}/same`);
  await ensureDaemon({ cache, state, command });
  await ensureDaemon({ cache, state: `${node.root}/same/`, command });
  await t.rejects(ensureDaemon({ cache, state: `${node.root}/elsewhere`, command }), {
    code: "BURROW_DAEMON",
    message: `the daemon serves another state directory, ${state}`,
  });
});
