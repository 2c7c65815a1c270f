// Platforms: which of runsc's start a sandbox on this machine, by starting one of each, with nothing of ours in it. Control plane.

import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onInterrupt } from "./interrupt.ts";

const PLATFORMS = ["systrap", "ptrace", "kvm"] as const;
/** A start takes a quarter of a second; one that hangs (kvm within some virtual machines) would do so for ever. */
const START_MS = 5_000;

/** What a shell says of who died by SIGKILL. */
const KILLED = 128 + 9;

export interface Tried {
  /** Undefined: the one that runsc takes by itself. */
  readonly platform: string | undefined;
  /** Why no sandbox started; undefined when one did. */
  readonly fault: string | undefined;
}

/** Starts a sandbox on each platform, at once. Nothing of them is left. */
export async function tryPlatforms(runsc: string): Promise<Tried[]> {
  const folder = mkdtempSync(join(tmpdir(), "burrow-doctor-"));
  const clean = () => rmSync(folder, { recursive: true, force: true });
  const stopWatching = onInterrupt(clean);
  try {
    const all = [undefined, ...PLATFORMS].map(async (platform) => {
      return { platform, fault: await faultOf(runsc, folder, platform) };
    });
    return await Promise.all(all);
  } finally {
    stopWatching();
    clean();
  }
}

function faultOf(
  runsc: string,
  folder: string,
  platform: string | undefined,
): Promise<string | undefined> {
  const root = `--root=${join(folder, platform ?? "default")}`;
  const flags = platform === undefined ? [] : [`--platform=${platform}`];
  const words = [root, "--network=none", "--ignore-cgroups", ...flags, "do", "/bin/true"];
  const env = { ...process.env, TMPDIR: folder }; // its bundle, which it then leaves
  // Killed, runsc takes its sandbox with it. By timeout(1), which outlives us: one that hangs would have a CPU for ever.
  const limited = ["-s", "KILL", String(START_MS / 1000), runsc, ...words];
  return new Promise((resolve) => {
    const child = execFile("timeout", limited, { env }, (error, _stdout, stderr) => {
      stopWatching();
      if (error === null) resolve(undefined);
      else if (error.signal === "SIGKILL" || error.code === KILLED)
        resolve(`nothing started within ${START_MS / 1000} s`);
      else resolve(stderr.trim().split("\n").at(-1)?.slice(0, 120) || `exit code ${error.code}`);
    });
    const stopWatching = onInterrupt(() => {
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL"); // timeout's group, which runsc is in
    });
  });
}
