// Owns: proof that only plain files are opened as archives: a FIFO would be waited for. Plane: control.

import { spawnSync } from "node:child_process";
import path from "node:path";
import { test } from "tap";
import { checkArchive } from "../../../lib/ingest/conda/verify.ts";

test("an archive is a plain file", { timeout: 10_000 }, async (t) => {
  const dir = t.testdir({ "folder-1-0.conda": {} });
  const fifo = path.join(dir, "fifo-1-0.conda");
  t.equal(spawnSync("mkfifo", [fifo]).status, 0);
  for (const file of [fifo, path.join(dir, "folder-1-0.conda"), "/dev/zero"]) {
    await t.rejects(checkArchive(file), {
      code: "BURROW_BAD_ARCHIVE",
      message: "it is no plain file",
      context: { package: path.basename(file) },
    });
  }
});
