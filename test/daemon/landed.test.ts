// Blocks of a large file that is here in part are given out when the disk has taken them (pitfalls B1, C5): until then the kernel may
// fail to write them back, forget them, and read zeros. test/daemon/writeback.long shows that on a disk that fails.

import { spawnSync } from "node:child_process";
import { test } from "tap";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { AnswerState } from "../../lib/cache/mailbox-wire.ts";
import { noise, publish, TestNode } from "../suite/daemon-node.ts";
import { otherThreads, traceThreads } from "../suite/strace.ts";
import { until } from "../suite/wait.ts";

const canTrace =
  process.getuid?.() === 0 && spawnSync("strace", ["-V"]).status === 0
    ? false
    : "needs root and strace";

/** By which a disk says whether it has taken what was written: which of them depends on the file system. */
const CALLS = "sync_file_range,fsync";
const LARGE_BYTES = 6 * BLOCK_BYTES + 9;

test("blocks that the disk doesn't take are given out from memory", {
  skip: canTrace,
}, async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const files = {
    one: noise(LARGE_BYTES, 1),
    two: noise(LARGE_BYTES, 2),
    three: noise(LARGE_BYTES, 3),
  };
  const { digest, row } = await publish(node.store, files);
  const daemon = await node.start({ background: false, memoryBytes: 32 * 1024 * 1024 });
  const client = await node.connect(node.mount(node.store, digest));
  const stateOf = async (name: string) => {
    const { errno, state } = await client.askBlocks(0, row(name), 1, 1);
    t.equal(errno, 0, name);
    return state;
  };
  t.equal(await stateOf("one"), AnswerState.partial, "a good disk");
  const words = ["-e", `trace=${CALLS}`, "-e", `inject=${CALLS}:error=EIO`];
  const end = await traceThreads(`${node.root}/trace`, otherThreads(daemon.pid!), words);
  const state = await stateOf("two");
  const { room } = await node.status();
  const trace = await end();
  t.equal(state, AnswerState.partialHere, "from memory");
  t.match(trace, /\(INJECTED\)/);
  t.equal(room.isDiskDemoted, true, "a disk that takes no blocks is left alone");
  t.ok(await until(async () => !(await node.status()).room.isDiskDemoted), "until it does");
  t.equal(await stateOf("three"), AnswerState.partial);
});
