// Owns: proof that a sandbox which has started may run for longer than it may take to start. Needs root and a runsc; skipped with the
// reason otherwise. Plane: control.

import { test } from "tap";
import { findRevisions } from "../conformance/runsc.ts";
import { busybox } from "./cli.ts";

const { found, reasons } = findRevisions();
const skip = found.length === 0 ? reasons.join("; ") : false;

for (const revision of found) {
  test(`${revision.name}: a deadline for the start is none for the command`, {
    skip,
  }, async (t) => {
    const { node, base } = await busybox(t, revision.path);
    const words = ["--platform", "ptrace", "--start-timeout", "15", "--", "/bin/sleep", "16"];
    t.match(await node.run(["run", "--base", base, ...words]), { code: 0 });
  });
}
