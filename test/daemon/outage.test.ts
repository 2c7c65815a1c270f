// A network that is gone for a while, with the deadlines that a node really has: an ask waits and is right, or is EIO at its deadline;
// never short, never zeros (pitfall B6). 5 s in the gate; 3 and 30 minutes in the long run.

import fs from "node:fs";
import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { DAEMON_DEFAULTS } from "../../lib/daemon/config.ts";
import { noise } from "../suite/daemon-node.ts";
import { SMALL, scene } from "../suite/daemon-scene.ts";
import { isLong } from "../suite/long.ts";
import type { Fault } from "../suite/origin-server.ts";
import { LATE_MS, sleep } from "../suite/wait.ts";

const LARGE = noise(20 * BLOCK_BYTES + 5, 77);
const CUTS_S = isLong ? [5, 180, 1800] : [5];
/** A cut link says nothing; a dead host may also say no. */
const KINDS: Fault[] = ["stall-headers", "reset"];

for (const seconds of CUTS_S) {
  test(`the network is gone for ${seconds} s`, { timeout: (seconds + 120) * 1000 }, async (t) => {
    await Promise.all(KINDS.map((kind) => cut(kind)));

    async function cut(kind: Fault): Promise<void> {
      const { node, server, published, mountId } = await scene(t, { ...SMALL, large: LARGE });
      await node.start();
      const client = await node.connect(mountId);
      const row = published.row("large");
      const early = await client.askBlocks(0, row, 0, 1);
      t.equal(early.errno, 0, "it began well");
      server.fault = () => kind;
      const cutMs = performance.now();
      // Other work may have the disk hang for so long that it is left alone: then what comes is in memory.
      const isRight = (name: string, content: Buffer) => {
        const path = node.blobPath(published.refs.get(name)!.digest);
        return fs.existsSync(path)
          ? fs.readFileSync(path).equals(content)
          : /"event":"disk demoted"/.test(node.output);
      };
      let failures = 0;
      let isBack = false;
      const asking = (async () => {
        for (let i = 0; ; i = (i + 1) % 50) {
          const askedMs = performance.now();
          const { errno } = await client.askBlob(0, published.row(`file${i}`));
          const tookMs = performance.now() - askedMs;
          if (tookMs > DAEMON_DEFAULTS.deadlineMs + LATE_MS)
            t.fail(`${kind}: answered after ${tookMs} ms`);
          if (errno === 0) {
            if (!isRight(`file${i}`, SMALL[`file${i}`]!)) t.fail(`${kind}: wrong bytes`);
            if (isBack) return;
          } else if (errno === Errno.EIO || errno === Errno.ETIMEDOUT) {
            failures++;
            await sleep(200);
          } else t.fail(`${kind}: errno ${errno}`);
          if (errno === 0) await sleep(20);
        }
      })();
      await sleep(seconds * 1000 - (performance.now() - cutMs));
      server.fault = () => "none";
      isBack = true;
      await asking;
      t.comment(`${kind}, ${seconds} s: ${failures} asks failed`);
      t.equal((await client.askBlob(0, row)).errno, 0, "right again, the large one too");
      t.ok(isRight("large", LARGE));
    }
  });
}
