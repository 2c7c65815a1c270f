// Owns: independent suites in a sandbox: pjdfstest, in C and in Rust, the file system calls of the Linux Test Project, fsx and fsstress of
// xfstests. No check may be worse in a directory that is passed through, in a tmpfs or in a writable view than over runsc's own
// gofer, and in the tmpfs none worse than in the sandbox's own, but for what stands here. BURROW_SUITES=DIR of fixtures/suites.sh;
// BURROW_SUITE names one suite, BURROW_PLACE one place, BURROW_REVISION one runsc (2022, 2024, 2026), so that several can run side by
// side; BURROW_OUT a directory that keeps what each printed. Hours with all. Plane: control.
import * as fs from "node:fs";
import t from "tap";
import { findRevisions, hostGofer, stockGofer } from "./runsc.ts";
import { type Outcomes, PLACES, runSuite, suitesIn } from "./suites.ts";

// No limit: each program of a suite has its own, and all of them take hours.
t.setTimeout(0);
const directory = process.env["BURROW_SUITES"];
const seed = Number(process.env["BURROW_SEED"] ?? 1 + (Date.now() % 1_000_000));
const { found, reasons } = findRevisions();
for (const reason of reasons) t.comment(`not tested: ${reason}`);
const isThere = directory !== undefined && fs.existsSync(`${directory}/versions`);
const skip = isThere
  ? found.length === 0 && reasons.join("; ")
  : "needs BURROW_SUITES=DIR after fixtures/suites.sh";

/**
 * What looks worse over ours, by suite. setxattr03 begins where user xattrs work, and then wants flags of inodes, which no sandbox has: over
 * runsc's gofer it is left out. open11 ends at its first device node there; in a tmpfs it goes on, and can't open one.
 */
const NOT_WORSE: Record<string, RegExp> = { LTP: /^(setxattr03|open11)$/ };
/**
 * What the sandbox's own tmpfs has and no gofer's mount under these runscs can have (docs/conformance.md, "What no gofer can give"): links,
 * names, times and groups of FIFOs and sockets, device numbers, link counts of 0, NOREPLACE; that nodes can be opened, and the group bit.
 * Leases, fcntl24 to 33, no sandbox has; they aren't asked for where statfs says tmpfs.
 */
const NOT_OF_MOUNTS: Record<string, readonly string[]> = {
  LTP: "creat08 fcntl24 fcntl25 fcntl26 fcntl32 fcntl33 mknod03 mknod04 mknod05 open10 open11 renameat201".split(
    " ",
  ),
  "pjdfstest in Rust": [
    "link::remove_link::fifo",
    "link::remove_link::socket",
    "link::share_metadata::fifo",
    "link::share_metadata::socket",
    "mkfifo::changed_time_fields_success",
    "mknod::changed_time_fields_success",
    "mknod::device_files::block",
    "mknod::device_files::char",
    "rename::eexist_enotempty_to_non_empty::fifo",
    "rename::eexist_enotempty_to_non_empty::socket",
    "rename::preserve_metadata::fifo",
    "rename::preserve_metadata::socket",
    "unlink::open_file_not_freed",
    "unlink::unchanged_ctime_failed::fifo",
    "unlink::unchanged_ctime_failed::socket",
    "unlink::update_mtime_ctime_success_folder::fifo",
    "unlink::update_mtime_ctime_success_folder::socket",
  ],
};

/** Of these the runsc of 2026 has: it shows the number of a device. gVisor: gofer.go, statTo: 1338 of 160fafc42237. */
const OF_MOUNTS_SINCE_2026 = /^(mknod::device_files::|open11$)/;
/** And what it alone lacks: a chown to the owner that a file has isn't sent, so set-id bits stay (setStat: 1396 to 1406). */
const NOT_OF_MOUNTS_SINCE_2026: Record<string, readonly string[]> = { LTP: ["fchown02"] };

/** Checks whose outcome is less than in the other run; those that were not reached are. */
function worse(ours: Outcomes, other: Outcomes): string[] {
  return [...other]
    .filter(([name, good]) => (ours.get(name) ?? -Infinity) < good)
    .map(([name]) => name);
}

const passed = (outcomes: Outcomes) => [...outcomes.values()].filter((good) => good > 0).length;

if (skip) t.pass("skipped", { skip });
else {
  const only = process.env["BURROW_SUITE"];
  const suites = suitesIn(directory!, seed).filter(
    ({ name }) => only === undefined || name === only,
  );
  const where = process.env["BURROW_PLACE"];
  const places = PLACES.filter((place) => where === undefined || place === where);
  const under = process.env["BURROW_REVISION"];
  for (const revision of found.filter(({ name }) => under === undefined || name === under)) {
    for (const suite of suites) {
      t.test(`${revision.name}: ${suite.name}, seed ${seed}`, async (t) => {
        const passedThrough = await runSuite(suite, stockGofer, revision, "memory", directory!);
        t.ok(
          passedThrough.size > 4,
          `runsc's gofer: ${passed(passedThrough)} of ${passedThrough.size}`,
        );
        for (const place of places) {
          const ours = await runSuite(suite, hostGofer, revision, place, directory!);
          const isOther = place === "disk";
          const peer = isOther
            ? await runSuite(suite, stockGofer, revision, place, directory!)
            : passedThrough;
          const less = worse(ours, peer).filter((name) => !NOT_WORSE[suite.name]?.test(name));
          t.same(less, [], `${place}: ${passed(ours)} of ${ours.size}`);
          if (place !== "tmpfs") continue;
          const own = await runSuite(suite, stockGofer, revision, place, directory!);
          // What passes against expectation fails here, too.
          const left = worse(ours, own).sort();
          const known = NOT_OF_MOUNTS[suite.name] ?? [];
          const expected =
            revision.name === "2026"
              ? known
                  .filter((name) => !OF_MOUNTS_SINCE_2026.test(name))
                  .concat(NOT_OF_MOUNTS_SINCE_2026[suite.name] ?? [])
                  .sort()
              : known;
          t.same(left, expected, `the sandbox's own tmpfs: ${passed(own)} of ${own.size}`);
        }
      });
    }
  }
}
