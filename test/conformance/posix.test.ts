// Owns: system calls with their error cases, one by one (posix/*.c), in a sandbox: in a host directory that is passed through no
// result may be worse than over runsc's own gofer, in a query's tmpfs none worse than in the sandbox's own. Linux on the host
// is the model. The first runsc here; all of them with BURROW_LONG. docs/conformance.md has the reasons. Plane: control.

import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import t from "tap";
import { isLong } from "../suite/long.ts";
import {
  buildProgram,
  parse,
  type Results,
  runInSandbox,
  runOnHost,
  type SandboxRuns,
} from "./posix-runs.ts";
import { findRevisions, hostGofer, stockGofer } from "./runsc.ts";

t.setTimeout(300_000);

/** What is as on Linux over runsc's gofer and not over ours: with docs/conformance.md's reason. */
const WORSE_PASSED: Record<string, string> = {
  "data: truncate to 2^62": "sizes past 2^53 are EINVAL: numbers of JavaScript",
};

const CLIENT = "what a sandbox makes of every gofer mount: the same over runsc's gofer";
const NO_FLAGS = "sandboxes refuse it in a mount that is shared, and send a gofer no such flag";
/** What is as on Linux in the sandbox's own tmpfs and not in ours. */
const WORSE_TMPFS: Record<string, string> = {
  ...WORSE_PASSED,
  "names: rmdir of an open directory, its links": CLIENT,
  "names: unlink of an open file, its links": CLIENT,
  "rename: rename over a file, has no links": CLIENT,
  "rename: renameat2 NOREPLACE over a file": NO_FLAGS,
  "rename: renameat2 NOREPLACE to itself": NO_FLAGS,
  "rename: renameat2 NOREPLACE": NO_FLAGS,
  "rename: renameat2 NOREPLACE of nothing": NO_FLAGS,
  "owners: root: create 02770 in it, its mode": "no gofer is told whether the maker has CAP_FSETID",
  "owners: set-group-id directory: mkfifo, its owner": CLIENT,
  "special: mknod of a FIFO, link": CLIENT,
};

/** The same under some revisions alone: what the rest is as bad at. */
const TMPFS_BY_REVISION: Record<string, Record<string, string>> = {
  "2026": {
    "attributes: times: chown": CLIENT,
    "attributes: system.posix_acl_access: get": CLIENT,
    "owners: user: ftruncate clears set-id bits": CLIENT,
  },
};

function parsed({ passed, tmpfs, overlay, left }: SandboxRuns<string>): SandboxRuns<Results> {
  return { passed: parse(passed), tmpfs: parse(tmpfs), overlay: parse(overlay), left };
}

/** In a tmpfs and a writable view: in a directory of the host they would be the host's. */
const DEVICES = ["a character device", "a block device"].map((type) => `special: mknod of ${type}`);

/** Checks that are as on the host in `reference` and not in `ours`, or like neither of them. */
function worse(host: Results, reference: Results, ours: Results): string[] {
  const found: string[] = [];
  for (const [check, wanted] of host) {
    const got = ours.get(check);
    if (got !== wanted && reference.get(check) === wanted) found.push(check);
  }
  return found;
}

function unlike(ours: Results, ...others: Results[]): string[] {
  return [...ours.keys()].filter((check) =>
    others.every((other) => other.get(check) !== ours.get(check)),
  );
}

const directory = fs.mkdtempSync(path.join(os.tmpdir(), "burrow-posix-"));
t.teardown(() => fs.rmSync(directory, { recursive: true }));
const built = buildProgram("posix", directory);
const { found, reasons } = findRevisions();
for (const reason of reasons) t.comment(`not tested: ${reason}`);
const skip = "reason" in built ? built.reason : found.length === 0 && reasons.join("; ");
const revisions = isLong ? found : found.slice(0, 1);

if (skip) t.pass("skipped", { skip });
else {
  const program = (built as { path: string }).path;
  const host = parse(runOnHost(program));
  for (const revision of revisions) {
    t.test(
      `${revision.name}: system calls in directories of the host and in a tmpfs`,
      async (t) => {
        const worseTmpfs = { ...WORSE_TMPFS, ...TMPFS_BY_REVISION[revision.name] };
        const stock = parsed(await runInSandbox(program, stockGofer, revision));
        const ours = parsed(await runInSandbox(program, hostGofer, revision));
        t.ok(host.size > 500, `${host.size} checks`);
        const all = [...host.keys()];
        for (const run of [stock.passed, ours.passed, ours.tmpfs]) t.same([...run.keys()], all);
        t.same([...stock.left, ...ours.left], [], "nothing is left");
        t.same(worse(host, stock.passed, ours.passed), Object.keys(WORSE_PASSED));
        t.same(worse(host, stock.tmpfs, ours.tmpfs).sort(), Object.keys(worseTmpfs).sort());
        const strange = unlike(ours.passed, host, stock.passed);
        t.same(
          strange,
          Object.keys(WORSE_PASSED),
          "what is not as on Linux is as over runsc's gofer",
        );
        t.same(unlike(ours.tmpfs, ours.passed), DEVICES, "one code serves both");
        t.same([...ours.overlay.keys()], all);
        t.same(unlike(ours.overlay, ours.tmpfs), [], "a writable view is as a tmpfs");
      },
    );
  }
}
