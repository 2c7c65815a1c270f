// Platforms: which of runsc's start a sandbox on this machine, by starting one of each, with nothing of ours in it. Control plane.

import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const PLATFORMS = ["systrap", "ptrace", "kvm"] as const;
/** A start takes a quarter of a second; one that hangs (kvm within some virtual machines) would do so for ever. */
const START_MS = 5_000;

export interface Tried {
  /** Undefined: the one that runsc takes by itself. */
  readonly platform: string | undefined;
  /** Why no sandbox started; undefined when one did. */
  readonly fault: string | undefined;
}

/** Starts a sandbox on each platform, at once. Nothing of them is left. */
export async function tryPlatforms(runsc: string): Promise<Tried[]> {
  const folder = mkdtempSync(join(tmpdir(), "burrow-doctor-"));
  try {
    const all = [undefined, ...PLATFORMS].map(async (platform) => {
      return { platform, fault: await faultOf(runsc, folder, platform) };
    });
    return await Promise.all(all);
  } finally {
    rmSync(folder, { recursive: true, force: true });
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
  // Killed, runsc takes its sandbox with it.
  const env = { ...process.env, TMPDIR: folder }; // its bundle, which it then leaves
  const options = { timeout: START_MS, killSignal: "SIGKILL", env } as const;
  return new Promise((resolve) => {
    execFile(runsc, words, options, (error, _stdout, stderr) => {
      if (error === null) resolve(undefined);
      else if (error.killed === true) resolve(`nothing started within ${START_MS / 1000} s`);
      else resolve(stderr.trim().split("\n").at(-1)?.slice(0, 120) || `exit code ${error.code}`);
    });
  });
}
