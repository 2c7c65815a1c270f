// Owns: sandboxes without root: `runsc --rootless run` in a user namespace with one id (unshare --user --map-root-user), a directory of the
// host, a query's tmpfs and a writable view in it: written, renamed, linked, measured, with nothing left. Plane: control.
import * as fs from "node:fs";
import t from "tap";
import { writeMount } from "../suite/gofer-process.ts";
import { memoryDirectory, overlayMount } from "./posix-runs.ts";
import { Bench, findRevisions, hostGofer } from "./runsc.ts";

t.setTimeout(300_000);
const { found, reasons } = findRevisions();
for (const reason of reasons) t.comment(`not tested: ${reason}`);
const SIZE = { sizeBytes: 16 << 20, inodes: 1000 };
const UPPER = { kind: "upper", mode: 0o755, ...SIZE };
const SCRIPT = `for at in data tmpfs overlay; do cd /mnt/$at; busybox mkdir x && echo hi >x/f && busybox mv x/f x/g && busybox ln x/g h &&
  busybox chmod 600 h && cat x/g && busybox stat -c "%a %h %u" h; busybox cat lower/file 2>/dev/null; done; busybox df /mnt/tmpfs | busybox awk 'NR==2 { print $2 }'`;

if (found.length === 0) t.pass("skipped", { skip: reasons.join("; ") });
for (const revision of found) {
  t.test(`${revision.name}: a sandbox in a user namespace of one id`, async (t) => {
    const bench = new Bench(hostGofer, revision, revision.platforms[0]!);
    const data = memoryDirectory();
    try {
      const bundle = bench.bundle(SCRIPT, (spec) => {
        const sources = {
          data,
          tmpfs: writeMount(bench.state, "upper", UPPER),
          overlay: overlayMount(bench.state, SIZE),
        };
        for (const [name, source] of Object.entries(sources)) {
          const options = ["rbind", "rw"];
          spec.mounts.push({ destination: `/mnt/${name}`, type: "bind", source, options });
        }
        spec.linux.namespaces.push({ type: "user" });
        spec.linux.uidMappings = [{ containerID: 0, hostID: 0, size: 1 }];
        spec.linux.gidMappings = spec.linux.uidMappings;
      });
      const flags = ["--file-access-mounts=shared", "--rootless"];
      const argv = bench.argv(...flags, "run", "-bundle", bundle, bench.id("a"));
      const run = await bench.outcomeOf(["unshare", "--user", "--map-root-user", ...argv]);
      const each = "hi\n600 2 0\n";
      t.same([run.code, run.stdout], [0, `${each}${each}${each}below\n16384\n`], run.stderr);
      t.notMatch(
        fs.readFileSync(bench.env["BURROW_LOG"]!, "utf8"),
        /keeps|no Landlock|not hardened/,
      );
      t.same(fs.readFileSync(`${data}/x/g`, "utf8"), "hi\n");
      t.same(await bench.leftovers(), []);
    } finally {
      bench.close();
      fs.rmSync(data, { recursive: true });
    }
  });
}
