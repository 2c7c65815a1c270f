// Where fusermount3 is, by which who isn't root mounts, or why there is none. Tests only.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

const ROOT = path.resolve(import.meta.dirname, "../../..");

export interface Fusermount {
  /** Not set-user-ID, which the caller's copy has to be. */
  readonly program: string;
  readonly skip: string | false;
}

/** The machine's own, or gets one: $BURROW_TEST_CACHE. */
export function findFusermount(): Fusermount {
  const own = spawnSync("sh", ["-c", "command -v fusermount3"], { encoding: "utf8" });
  if (own.status === 0) return { program: own.stdout.trim(), skip: false };
  const folder = process.env["BURROW_TEST_CACHE"] ?? path.join(tmpdir(), "burrow-test-cache");
  const script = path.join(ROOT, "fixtures/fuse3.sh");
  const { status, stdout, stderr } = spawnSync("bash", [script, folder], { encoding: "utf8" });
  if (status !== 0)
    return { program: "", skip: `no fusermount3: ${stderr.trim().split("\n").at(-1)}` };
  const root = stdout.trim();
  const program = [`${root}/bin/fusermount3`, `${root}/usr/bin/fusermount3`].find(fs.existsSync);
  return program === undefined
    ? { program: "", skip: `no fusermount3 in ${root}` }
    : { program, skip: false };
}
