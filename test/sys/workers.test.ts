// Workers: what they are given comes back, whatever is under way: more than there are slots, in more than one environment of Node.js, one
// of which is ended meanwhile. And nothing of them keeps a process that has nothing else to do.

import { execFile } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { Worker } from "node:worker_threads";
import { test } from "tap";
import { Calls } from "../../lib/sys/calls.ts";

const CALLS = new URL("../../lib/sys/calls.js", import.meta.url).href;
const POOL = new URL("../../lib/cache/pool.js", import.meta.url).href;
const BEGUN = 200;
const PART_BYTES = 4 * 1024 * 1024;
const run = promisify(execFile);

/** The first bytes of a file, by a chain of three calls. */
async function firstBytes(path: string, count: number): Promise<string> {
  const calls = new Calls();
  const out = Buffer.alloc(count);
  const fd = { at: calls.open(path, fs.constants.O_RDONLY) };
  calls.pread(fd, out, 0);
  calls.always(() => calls.close(fd));
  await calls.run();
  return out.toString();
}

/** A script that begins as much as that; what it does then is the caller's. */
const script = (path: string, count: number, then: string) => `
  import(${JSON.stringify(CALLS)}).then(async ({ Calls }) => {
    const some = Array.from({ length: ${count} }, () => {
      const calls = new Calls();
      const fd = { at: calls.open(${JSON.stringify(path)}, 0) };
      calls.pread(fd, Buffer.alloc(100_000), 0);
      calls.always(() => calls.close(fd));
      return calls.run();
    });
    ${then}
  });`;

test("what is begun at once, three times as much as there are slots, ends", async (t) => {
  const path = join(t.testdir({ file: "burrow" }), "file");
  const all = await Promise.all(Array.from({ length: 3_000 }, () => firstBytes(path, 6)));
  t.equal(all.length, 3_000);
  t.ok(all.every((text) => text === "burrow"));
});

test("a folder is made, and its mode is as asked for", async (t) => {
  const path = join(t.testdir({}), "made");
  const calls = new Calls();
  const made = calls.mkdir(path, 0o700);
  t.equal((await calls.run())[made], 0);
  t.equal(fs.statSync(path).mode & 0o777, 0o700);
  const again = new Calls();
  again.mkdir(path, 0o700);
  t.equal((await again.run())[0], -os.constants.errno.EEXIST);
});

test("threads of Node.js have workers of their own, and one can be ended meanwhile", async (t) => {
  const path = join(t.testdir({ file: "b".repeat(100_000) }), "file");
  const { stdout } = await run(process.execPath, [
    "-e",
    script(path, 50, "await Promise.all(some); console.log('all');"),
  ]);
  t.equal(stdout, "all\n", "and the process ends by itself");
  for (let round = 0; round < 5; round++) {
    const then = `require("node:worker_threads").parentPort.postMessage("begun"); await Promise.all(some);`;
    const worker = new Worker(script(path, 2_000, then), { eval: true });
    await once(worker, "message");
    await worker.terminate();
    t.equal(await firstBytes(path, 1), "b");
  }
});

test("who ends a thread of Node.js gets back what it had begun", async (t) => {
  const path = join(t.testdir({ file: "" }), "file");
  fs.truncateSync(path, PART_BYTES);
  const openFiles = () => fs.readdirSync("/proc/self/fd").length;
  const before = openFiles();
  // Each has a copy of the FD until it is done.
  const hashes = `
    import(${JSON.stringify(POOL)}).then(({ hashFile }) => {
      const fd = require("node:fs").openSync(${JSON.stringify(path)});
      for (let i = 0; i < ${BEGUN}; i++) hashFile(fd).catch(() => {});
      require("node:worker_threads").parentPort.postMessage("begun");
    });`;
  const worker = new Worker(hashes, { eval: true });
  await once(worker, "message");
  await worker.terminate();
  t.ok(openFiles() < before + BEGUN / 4, "the copies are closed");
});
