// Owns: fio's and stress-ng's own verification in a sandbox, in a host directory that is passed through and in a query's tmpfs: fio
// finds every block as it wrote it, by calls and by mappings; no stressor of stress-ng fails that does not fail over runsc's own
// gofer. BURROW_VERIFIERS=DIR after fixtures/verifiers.sh DIR. Plane: control.
import * as fs from "node:fs";
import * as path from "node:path";
import t from "tap";
import { writeMount } from "../suite/gofer-process.ts";
import { memoryDirectory } from "./posix-runs.ts";
import {
  Bench,
  exitOf,
  findRevisions,
  type Gofer,
  hostGofer,
  type Revision,
  stockGofer,
} from "./runsc.ts";

t.setTimeout(1_800_000);
const verifiers = process.env["BURROW_VERIFIERS"];
const { found, reasons } = findRevisions();
for (const reason of reasons) t.comment(`not tested: ${reason}`);
const root = verifiers === undefined ? undefined : path.join(verifiers, "root");
const skip =
  root === undefined || !fs.existsSync(root)
    ? "needs BURROW_VERIFIERS=DIR after fixtures/verifiers.sh DIR"
    : found.length === 0 && reasons.join("; ");

const UPPER = { kind: "upper", sizeBytes: 512 * 1024 * 1024, inodes: 100_000, mode: 0o1777 };
const FIO =
  "fio --minimal --size=16m --bs=4k --rw=randwrite --verify=crc32c --verify_fatal=1 --numjobs=2";
/** A second each: what fails does so at once. */
const STRESS = "stress-ng --class filesystem --seq 1 --timeout 1 --verify --temp-path";

/** What a script printed in a sandbox over that root, with /mnt/data of the host and /mnt/tmpfs. */
async function runScript(gofer: Gofer, revision: Revision, script: string) {
  const bench = new Bench(gofer, revision, revision.platforms[0]!);
  const data = memoryDirectory();
  fs.chmodSync(data, 0o1777);
  try {
    const bundle = bench.bundle("", (spec) => {
      spec.root.path = root!;
      spec.process.args = ["/bin/busybox", "sh", "-c", `${script}; echo code $?`];
      spec.process.env = ["PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/tmp"];
      const rw = ["rbind", "rw"];
      const upper = writeMount(bench.state, "upper", UPPER);
      spec.mounts.push({ destination: "/tmp", type: "tmpfs", source: "tmpfs" });
      spec.mounts.push({ destination: "/mnt/data", type: "bind", source: data, options: rw });
      if (gofer !== stockGofer)
        spec.mounts.push({ destination: "/mnt/tmpfs", type: "bind", source: upper, options: rw });
    });
    const words = ["--file-access-mounts=shared", "run", "-bundle", bundle, bench.id("a")];
    const { child, out } = bench.start(bench.argv(...words));
    const code = await exitOf(child);
    return { code, out: fs.readFileSync(out, "latin1") };
  } finally {
    bench.close();
    fs.rmSync(data, { recursive: true });
  }
}

/** Stressors that stress-ng says failed. */
function failures(out: string): string[] {
  const names = [...out.matchAll(/fail:\s+\[\d+\]\s+([\w-]+):/g)].map((match) => match[1]!);
  return [...new Set(names)].sort();
}

if (skip) t.pass("skipped", { skip });
else {
  for (const revision of found) {
    for (const engine of ["psync", "mmap"]) {
      t.test(`${revision.name}: fio finds what it wrote, by ${engine}`, async (t) => {
        for (const place of ["data", "tmpfs"]) {
          const script = `${FIO} --name=v --ioengine=${engine} --directory=/mnt/${place}`;
          const { out } = await runScript(hostGofer, revision, script);
          t.match(out, /^code 0$/m, `${place}: ${out.slice(-500)}`);
        }
      });
    }
    t.test(
      `${revision.name}: stress-ng finds no fault that is not the sandbox's own`,
      async (t) => {
        const stock = await runScript(stockGofer, revision, `${STRESS} /mnt/data`);
        const known = failures(stock.out);
        t.match(stock.out, /dispatching hogs|passed:/, stock.out.slice(-500));
        t.comment(`over runsc's own gofer: ${known.join(" ")}`);
        for (const place of ["data", "tmpfs"]) {
          const ours = await runScript(hostGofer, revision, `${STRESS} /mnt/${place}`);
          t.comment(`${place}: ${failures(ours.out).join(" ")}`);
          t.match(ours.out, /dispatching hogs|passed:/, ours.out.slice(-500));
          t.same(
            failures(ours.out).filter((name) => !known.includes(name)),
            [],
            place,
          );
        }
      },
    );
  }
}
