// A real S3 for the long tests: Ceph's gateway on loopback, started for one test. Tests only.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import type { Test } from "tap";
import { freePort } from "./free-port.ts";
import { setEnvironment } from "./s3-server.ts";
import { until } from "./wait.ts";

const ROOT = path.resolve(import.meta.dirname, "../../..");
const PROGRAMS = ["radosgw", "radosgw-admin", "ceph", "ceph-mon", "ceph-osd", "monmaptool"];
const missing = PROGRAMS.filter((name) => spawnSync("which", [name]).status !== 0);
/** Why tests of it can't run here, or false. */
export const noRadosgw: string | false =
  missing.length > 0 &&
  `no ${missing.join(", ")}: apt-get install radosgw ceph-mon ceph-osd ceph-common`;

/** Whether a process is at work: one that ended may wait for its parent. */
function isAlive(pid: number): boolean {
  try {
    return !/\) Z /.test(fs.readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

/** A gateway with the bucket "box", and what a process needs to get in in the environment: its variables. */
export async function radosgw(t: Test): Promise<Record<string, string>> {
  const above = fs.mkdtempSync(`${tmpdir()}/burrow-ceph-`);
  const folder = path.join(above, "ceph");
  t.teardown(async () => {
    const pids = fs
      .readdirSync(folder)
      .filter((name) => name.endsWith(".pid"))
      .map((name) => Number(fs.readFileSync(path.join(folder, name), "utf8")));
    for (const pid of pids) if (pid > 1 && isAlive(pid)) process.kill(pid, "SIGKILL");
    await until(() => !pids.some(isAlive));
    fs.rmSync(above, { recursive: true, force: true });
  });
  const port = await freePort();
  const words = [path.join(ROOT, "fixtures/radosgw.sh"), folder, String(port)];
  const up = spawnSync("bash", [...words, String(await freePort())], { encoding: "utf8" });
  t.equal(up.status, 0, up.stderr);
  const environment = {
    AWS_ACCESS_KEY_ID: "AKIDBURROW",
    AWS_SECRET_ACCESS_KEY: "SECRETBURROW",
    AWS_ENDPOINT_URL_S3: `http://127.0.0.1:${port}`,
    AWS_REGION: "us-east-1",
    AWS_EC2_METADATA_DISABLED: "true",
  };
  setEnvironment(t, environment);
  await client().send(new CreateBucketCommand({ Bucket: "box" }));
  return environment;
}

/** AWS's own client of it. */
export const client = () => new S3Client({ forcePathStyle: true });
