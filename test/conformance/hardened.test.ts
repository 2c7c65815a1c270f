// Owns: what a live server has given up while a real sandbox runs on it, on every runsc revision that is here, for a server that the stub
// started and for a standby. docs/design/0015-hardening.md. Plane: control.

import { spawn } from "node:child_process";
import * as fs from "node:fs";
import type { Socket } from "node:net";
import * as path from "node:path";
import t from "tap";
import { Capability } from "../../lib/gofer/harden.ts";
import { writeMount } from "../suite/gofer-process.ts";
import { checkHardened } from "../suite/hardened.ts";
import { isLong } from "../suite/long.ts";
import { until } from "../suite/wait.ts";
import { Bench, exitOf, findRevisions, type Revision, ROOT, viewGofer } from "./runsc.ts";

const PROGRAM = path.join(ROOT, "dist/standby.cjs");
const GOFER = path.join(ROOT, "dist/gofer.cjs");
const { found, reasons } = findRevisions();
const skip = fs.existsSync(GOFER) ? reasons.join("; ") : `${GOFER} isn't built`;
if (found.length === 0 || !fs.existsSync(GOFER)) t.pass("skipped", { skip });
t.setTimeout(300_000);

const { chown, dacOverride, fowner, fsetid } = Capability;
const WRITERS = [chown, dacOverride, fowner, fsetid];
/** All that an owner of a scratch directory does, and what the gofer does for it. */
const WRITES = `cd /tmp && echo a > a && busybox chown 5:6 a && busybox chmod 4750 a && echo b >> a && busybox ln a b &&
  busybox ln -s a c && busybox mkdir -p d/e && busybox chown 7:8 d && busybox mv a d/e/f && busybox touch -d @1 d/e/f &&
  busybox truncate -s 5 b && busybox rm c && cat b && echo`;

type Test = typeof t;

/** Has a standby wait in a folder: its pid, and its end. */
async function startStandby(folder: string): Promise<{ pid: number; stop: () => Promise<void> }> {
  fs.mkdirSync(folder, { recursive: true });
  const child = spawn(process.execPath, ["--no-warnings", PROGRAM, path.join(folder, "one")], {
    stdio: ["ignore", "ignore", "inherit", "pipe"],
    env: { PATH: process.env["PATH"] },
  });
  const link = child.stdio[3] as Socket;
  link.on("error", () => {});
  await new Promise((resolve) => link.once("data", resolve));
  const stop = async () => {
    child.kill("SIGKILL");
    await exitOf(child);
  };
  return { pid: child.pid!, stop };
}

/** Runs a sandbox, with a /tmp of its own or without, and looks at its server while it sleeps. */
async function look(t: Test, bench: Bench, hasUpper: boolean, standbyPid?: number): Promise<void> {
  const script = `${hasUpper ? WRITES : "echo"} && echo up; sleep 1000`;
  const bundle = bench.bundle(script, (spec) => {
    if (!hasUpper) return;
    const names = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID"];
    const sets = { bounding: names, effective: names, permitted: names, inheritable: names };
    Object.assign(spec.process, { capabilities: sets });
    const limits = { sizeBytes: 1024 * 1024, inodes: 64, mode: 0o1777 };
    const source = writeMount(bench.state, "upper", { kind: "upper", ...limits });
    spec.mounts.push({ destination: "/tmp", type: "bind", source, options: ["bind", "rw"] });
  });
  const { child, out } = bench.start(bench.argv("run", "-bundle", bundle, bench.id("a")));
  t.ok(await until(() => fs.readFileSync(out, "utf8").includes("up")), "the sandbox runs");
  t.match(fs.readFileSync(out, "utf8"), hasUpper ? "a\nb\n" : "up", "it writes its files");
  const server = bench.processes().find(({ argv }) => argv.includes(GOFER));
  if (standbyPid !== undefined) t.equal(server, undefined, "the standby serves");
  const pid = standbyPid ?? server?.pid;
  if (pid !== undefined) checkHardened(t, pid, hasUpper ? WRITERS : []);
  t.ok(pid, "the server is found");
  child.kill("SIGTERM");
  await exitOf(child);
  t.same(await bench.leftovers(), []);
}

const revisions = isLong ? found : found.slice(-1);
for (const revision of fs.existsSync(GOFER) ? revisions : []) {
  for (const isStandby of [false, true]) {
    for (const hasUpper of [false, true]) {
      const server = isStandby ? "standby" : "child";
      const name = `runsc ${revision.name}, ${server}, ${hasUpper ? "with a /tmp" : "a view alone"}`;
      t.test(name, (t) => test(t as Test, revision, isStandby, hasUpper));
    }
  }
}

async function test(t: Test, revision: Revision, isStandby: boolean, hasUpper: boolean) {
  const bench = new Bench(viewGofer, revision, revision.platforms[0]!);
  const folder = path.join(bench.dir, "standbys");
  Object.assign(bench.env, { BURROW_GOFER: GOFER, BURROW_STANDBYS: folder });
  const standby = isStandby ? await startStandby(folder) : undefined;
  try {
    await look(t, bench, hasUpper, standby?.pid);
  } finally {
    const log = path.join(bench.dir, "gofer.log");
    if (!t.passing() && fs.existsSync(log)) t.comment(fs.readFileSync(log, "utf8"));
    await standby?.stop();
    bench.close();
  }
}
