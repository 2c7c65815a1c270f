// The units of docs/systemd under systemd itself (pitfalls A3, A4): a user-mode Linux boots it twice on one disk, and
// test/suite/systemd-check.ts says in it what a sandbox sees while the daemon is started by its socket, restarted, reloaded, killed, out of
// memory and stopped. Skipped with the reason where there is no such Linux, or no systemd to run in it.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { type Test, test } from "tap";
import { findUml } from "../suite/power-machine.ts";
import { temporary } from "../suite/served.ts";
import type { Judgement } from "../suite/systemd-check.ts";
import { bootUml, ROOT } from "../suite/uml.ts";

/** Some 2 minutes on an idle machine. */
const BOOT_MAX_MS = 900_000;
const DISK_BYTES = 128 * 1024 * 1024;
/** What a boot must have judged, at least. */
const JUDGEMENTS = [38, 7];

const hasSystemd = fs.existsSync("/usr/lib/systemd/systemd");
// A lazy mount outlives its daemon from Linux 6.9 on.
const uml = hasSystemd
  ? findUml("trixie")
  : { root: "", skip: "no systemd: apt-get install systemd" };

test("a sandbox under the units of docs/systemd", {
  skip: uml.skip,
  timeout: 2 * BOOT_MAX_MS,
}, async (t) => {
  const folder = temporary(t);
  const disk = `${folder}/disk`;
  fs.writeFileSync(disk, "");
  fs.truncateSync(disk, DISK_BYTES);
  t.equal(spawnSync("mkfs.ext4", ["-q", "-F", disk]).status, 0);
  for (const boot of [1, 2]) await boots(t, folder, disk, boot);
});

async function boots(t: Test, folder: string, disk: string, boot: number): Promise<void> {
  const given = `${folder}/given`;
  const values = { root: uml.root, burrow: ROOT, node: process.execPath, boot };
  const lines = Object.entries(values).map(([name, value]) => `${name}='${value}'\n`);
  fs.writeFileSync(given, lines.join(""));
  const output = await bootUml({
    ...{ uml: uml.root, folder, memory: "1500M", given, words: [`ubd0=${disk}`] },
    ...{ script: "systemd-guest.sh", maxMs: BOOT_MAX_MS },
  });
  const said = (word: string) =>
    [...output.matchAll(new RegExp(`^@@ ${word} ?(.*?)\\r?$`, "gm"))].map(([, line]) => line!);
  for (const line of [...said("exposure"), ...said("restart")]) t.comment(line);
  const judgements = said("judged").map((line) => JSON.parse(line) as Judgement);
  for (const { name, isRight, seen } of judgements) t.ok(isRight, name, { seen });
  t.ok(judgements.length >= JUDGEMENTS[boot - 1]!, `${judgements.length} judgements`);
  if (said("done").length === 0) t.fail(`boot ${boot} was not done`, { output });
}
