// Where diod, the reference server of 9P2000.L, and its clients are, or why there are none. Tests and benches only.

import { spawnSync } from "node:child_process";
import { tmpdir } from "node:os";
import path from "node:path";

const ROOT = path.resolve(import.meta.dirname, "../../..");

export interface Diod {
  readonly root: string;
  /** The server. */
  readonly program: string;
  /** LD_LIBRARY_PATH of all of its programs. */
  readonly libraries: string;
  readonly skip: string | false;
}

/** Gets it first if it isn't there: $BURROW_TEST_CACHE. */
export function findDiod(): Diod {
  const folder = process.env["BURROW_TEST_CACHE"] ?? path.join(tmpdir(), "burrow-test-cache");
  const script = path.join(ROOT, "fixtures/diod.sh");
  const { status, stdout, stderr } = spawnSync("bash", [script, folder], { encoding: "utf8" });
  if (status !== 0) {
    const why = stderr.trim().split("\n").at(-1);
    return { root: "", program: "", libraries: "", skip: `no diod: ${why}` };
  }
  const root = stdout.trim();
  const machine = process.arch === "arm64" ? "aarch64" : "x86_64";
  const libraries = ["usr/lib", "lib"].map((folder) => `${root}/${folder}/${machine}-linux-gnu`);
  return { root, program: `${root}/usr/sbin/diod`, libraries: libraries.join(":"), skip: false };
}
