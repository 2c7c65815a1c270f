// Owns: proof that who starts a daemon leaves nothing, wherever it is ended. Plane: control.

import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "tap";
import { ensureDaemon } from "../../lib/cache/client.ts";
import { until } from "../suite/wait.ts";

test("what a daemon says as it starts has no name that could stay", async (t) => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "burrow-starting-"));
  const { TMPDIR } = process.env;
  t.teardown(() => {
    if (TMPDIR === undefined) delete process.env["TMPDIR"];
    else process.env["TMPDIR"] = TMPDIR;
    fs.rmSync(dir, { recursive: true, force: true });
  });
  process.env["TMPDIR"] = path.join(dir, "tmp");
  fs.mkdirSync(process.env["TMPDIR"]);
  const cache = path.join(dir, "cache");
  fs.mkdirSync(cache);
  const program = "console.log('no luck'); setTimeout(() => {}, 5000)";
  const command = [process.execPath, "-e", program, "--"];
  const starting = ensureDaemon({ cache, state: dir, command, startMs: 2_000 });
  const failed = starting.catch((error: unknown) => error);
  const isOutput = (fd: string) => {
    try {
      return fs.readlinkSync(`/proc/self/fd/${fd}`).includes("burrow-start-");
    } catch {
      return false; // closed meanwhile
    }
  };
  const left = () => fs.readdirSync(process.env["TMPDIR"]!);
  t.ok(await until(() => fs.readdirSync("/proc/self/fd").some(isOutput)), "it waits");
  t.same(left(), []);
  t.match(await failed, {
    code: "BURROW_DAEMON",
    message: /did not accept within 2000 ms: no luck/,
  });
  t.same(left(), []);
});
