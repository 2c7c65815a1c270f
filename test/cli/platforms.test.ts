// What `burrow doctor` starts to try a platform ends with it, however it ends: a sandbox that hangs would have a CPU for ever.

import { spawn } from "node:child_process";
import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "tap";
import { isLong } from "../suite/long.ts";
import { temporary } from "../suite/served.ts";
import { until } from "../suite/wait.ts";

const PROGRAM = new URL("../../burrow.cjs", import.meta.url).pathname;

/** The pids that the runsc of this folder wrote down, of those that are alive. */
function alive(folder: string): string[] {
  if (!existsSync(join(folder, "pids"))) return [];
  const pids = readFileSync(join(folder, "pids"), "utf8").split("\n").filter(Boolean);
  return pids.filter((pid) => existsSync(`/proc/${pid}/exe`));
}

// A doctor that is killed outright is outlived by what it started for 5 s.
const SIGNALS = isLong ? ["SIGTERM", "SIGKILL"] : ["SIGTERM"];

for (const signal of SIGNALS as NodeJS.Signals[]) {
  test(`${signal} leaves no sandbox that is tried`, { timeout: 60_000 }, async (t) => {
    const folder = temporary(t);
    const runsc = join(folder, "runsc");
    const script = `case "$*" in *" do "*) echo $$ >> ${folder}/pids; exec sleep 1000;; esac; echo runsc version 1`;
    writeFileSync(runsc, `#!/bin/sh\n${script}\n`);
    chmodSync(runsc, 0o755);
    const env = {
      ...process.env,
      BURROW_RUNSC: runsc,
      BURROW_STATE: join(folder, "state"),
      BURROW_CACHE: join(folder, "cache"),
      TMPDIR: folder,
    };
    const doctor = spawn(process.execPath, [PROGRAM, "doctor"], { env, stdio: "ignore" });
    const ended = new Promise((resolve) => doctor.on("exit", resolve));
    const isTried = await until(() => alive(folder).length === 4 || doctor.exitCode !== null);
    if (!isTried || doctor.exitCode !== null) {
      t.comment("not tested: doctor tries no platform here");
      return;
    }
    doctor.kill(signal);
    await ended;
    t.ok(await until(() => alive(folder).length === 0));
    if (signal !== "SIGTERM") return;
    t.same(
      readdirSync(folder).filter((name) => name.startsWith("burrow-doctor")),
      [],
    );
  });
}
