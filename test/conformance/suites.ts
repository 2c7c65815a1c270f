// Owns: what independent suites (fixtures/suites.sh) say of a file system, run in a sandbox place by place: in a directory that is
// passed through, in a tmpfs, in a writable view. Assumes root and a machine whose /usr runs in a sandbox. Plane: control.
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { writeMount } from "../suite/gofer-process.ts";
import { memoryDirectory, overlayMount } from "./posix-runs.ts";
import { Bench, exitOf, type Gofer, type Revision, type Spec, stockGofer } from "./runsc.ts";

/** A check's outcome by its name: the more the better. */
export type Outcomes = Map<string, number>;

export interface Suite {
  readonly name: string;
  /** For bash, in an empty directory of the place: what it prints is for `parse`. */
  readonly script: string;
  readonly parse: (text: string) => Outcomes;
}

/** A program of LTP's takes some 40 ms, with a sandbox's processes some seconds; what hangs must not hold up the others. */
const LTP_RUN = `run() { mkdir -m 777 "$1"; cd "$1"
  TMPDIR=$PWD timeout 60 /suites/ltp/"$1" 2>&1 </dev/null | sed "s/^/$1: /"; echo "$1: exit \${PIPESTATUS[0]}"; cd ..; rm -rf "$1"; }
export LTPROOT=/suites PATH=/suites/ltp:$PATH LTP_COLORIZE_OUTPUT=n LTP_TIMEOUT_MUL=4 KCONFIG_SKIP_CHECK=1; chmod 777 .`;
/** Takes all FDs that there may be, of runsc's gofer as well: what comes after it fails over both. */
const LTP_OMITTED = /^creat05$|child$/;

/** "NAME   ok" and "NAME   FAILED", in any order. */
function parseRust(text: string): Outcomes {
  const results = text.matchAll(/^(\S+::\S.*?) +(ok|FAILED|skipped)$/gm);
  return new Map([...results].map(([, name, said]) => [name!, said === "FAILED" ? 0 : 1]));
}

/** TAP of one file after the other. */
function parseTap(text: string): Outcomes {
  const found: Outcomes = new Map();
  let file = "";
  for (const line of text.split("\n")) {
    if (line.startsWith("# ")) file = line.slice(2);
    const said = /^(not )?ok (\d+)/.exec(line);
    if (said) found.set(`${file} ${said[2]}`, said[1] === undefined ? 1 : 0);
  }
  return found;
}

/**
 * Programs that pass some checks and fail others: a failure outweighs what passes. One that passes none is as bad as can be: how often
 * it says so is chance, as with threads that all break at the same call (fcntl34, fcntl17).
 */
function parseLtp(text: string): Outcomes {
  const found: Outcomes = new Map();
  for (const [, name, said] of text.matchAll(/^([\w-]+): (.*)$/gm)) {
    const value = /\bTPASS\b/.test(said!)
      ? 1
      : /\bT(FAIL|BROK)\b|exit 1[23]\d/.test(said!)
        ? -1000
        : 0;
    found.set(name!, (found.get(name!) ?? 0) + value);
  }
  for (const [name, value] of found) {
    if (value < 0 && value % 1000 === 0) found.set(name, -Infinity);
  }
  return found;
}

/** "NAME: exit CODE". */
function parseExit(text: string): Outcomes {
  const results = text.matchAll(/^(.+): exit (\d+)$/gm);
  return new Map([...results].map(([, name, code]) => [name!, code === "0" ? 1 : 0]));
}

/** The suites under a directory of fixtures/suites.sh; `seed` is of those that deal. */
export function suitesIn(directory: string, seed: number): Suite[] {
  const ltp = fs.readdirSync(path.join(directory, "ltp")).filter((name) => !LTP_OMITTED.test(name));
  const fsx = [`-S ${seed}`, `-S ${seed} -W -R`, `-S ${seed} -y -F -H`, `-S ${seed} -X -l 100000`];
  return [
    {
      name: "pjdfstest in Rust",
      script: `/suites/pjd-rust -c /suites/pjd-rust.toml -p "$PWD" 2>&1`,
      parse: parseRust,
    },
    {
      name: "fsx and fsstress",
      script: `for o in ${fsx.map((words) => `"${words}"`).join(" ")}; do
  timeout 300 /suites/fsx -N 4000 -q $o f >out 2>&1; echo "fsx $o: exit $?"; rm -f f*; done
timeout 300 /suites/fsstress -d s -n 1500 -p 3 -s ${seed} >out 2>&1; echo "fsstress: exit $?"; rm -rf s; echo "rm: exit $?"`,
      parse: parseExit,
    },
    {
      name: "LTP",
      script: `${LTP_RUN}
for t in ${ltp.join(" ")}; do run $t; done`,
      parse: parseLtp,
    },
    {
      name: "pjdfstest",
      script: `for t in $(cd /suites/pjd/tests && find . -name '*.t' | sort); do
  echo "# $t"; timeout 300 /bin/sh /suites/pjd/tests/$t 2>/dev/null; done`,
      parse: parseTap,
    },
  ];
}

const CAPABILITIES =
  "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL LINUX_IMMUTABLE MKNOD SETGID SETPCAP SETUID SYS_ADMIN SYS_CHROOT SYS_RESOURCE";
const UPPER = { kind: "upper", sizeBytes: 512 << 20, inodes: 200_000, mode: 0o755 };
/** Places of a sandbox: of each gofer those that it has. "disk" is a directory of the machine's own file system, "memory" of a tmpfs. */
export const PLACES = ["memory", "disk", "tmpfs", "overlay"] as const;
export type Place = (typeof PLACES)[number];

/** A tree in which the machine's own programs run, with the suites at /suites. */
function asMachine(bench: Bench, spec: Spec, suites: string): void {
  const tree = path.join(bench.dir, "tree");
  for (const name of ["etc", "usr", "suites", "mnt", "dev", "root", "var/tmp"])
    fs.mkdirSync(path.join(tree, name), { recursive: true });
  fs.rmSync(path.join(tree, "bin"), { recursive: true });
  for (const name of ["bin", "sbin", "lib", "lib64"])
    fs.symlinkSync(`usr/${name}`, path.join(tree, name));
  for (const name of ["passwd", "group", "ld.so.cache", "nsswitch.conf"])
    fs.copyFileSync(`/etc/${name}`, path.join(tree, "etc", name));
  fs.cpSync("/etc/alternatives", path.join(tree, "etc/alternatives"), {
    recursive: true,
    verbatimSymlinks: true,
  });
  const capabilities = CAPABILITIES.split(" ").map((name) => `CAP_${name}`);
  const sets = ["bounding", "effective", "permitted"].map((set) => [set, capabilities]);
  // With the host's own limit a program that opens all it may leaves nothing to the sandbox itself.
  const rlimits = [{ type: "RLIMIT_NOFILE", soft: 1024, hard: 1024 }];
  Object.assign(spec.process, { capabilities: Object.fromEntries(sets), rlimits });
  spec.process.env = ["PATH=/usr/local/bin:/usr/bin:/usr/sbin", "HOME=/root", "LC_ALL=C"];
  for (const destination of ["/dev", "/tmp", "/var/tmp", "/root"])
    spec.mounts.push({ destination, type: "tmpfs", source: "tmpfs" });
  const options = ["rbind", "ro"];
  spec.mounts.push({ destination: "/usr", type: "bind", source: "/usr", options });
  spec.mounts.push({ destination: "/suites", type: "bind", source: suites, options });
}

/** What a suite printed in one place of a new sandbox. */
export async function runSuite(
  suite: Suite,
  gofer: Gofer,
  revision: Revision,
  place: Place,
  suites: string,
): Promise<Outcomes> {
  const bench = new Bench(gofer, revision, revision.platforms[0]!);
  const directory =
    place === "memory"
      ? memoryDirectory()
      : fs.mkdtempSync(path.join(os.tmpdir(), "burrow-suite-"));
  fs.chmodSync(directory, 0o755);
  try {
    const bundle = bench.bundle("", (spec) => {
      asMachine(bench, spec, suites);
      const script = `mkdir -p -m 1777 /dev/shm; mkdir /mnt/at/w; cd /mnt/at/w || exit; ${suite.script}`;
      spec.process.args = ["/bin/bash", "-c", script];
      const destination = "/mnt/at";
      const options = ["rbind", "rw"];
      if (place === "tmpfs" && gofer === stockGofer)
        spec.mounts.push({ destination, type: "tmpfs", source: "tmpfs", options: ["mode=755"] });
      else {
        let source = directory;
        if (place === "tmpfs") source = writeMount(bench.state, "upper", UPPER);
        if (place === "overlay") source = overlayMount(bench.state, UPPER);
        spec.mounts.push({ destination, type: "bind", source, options });
      }
    });
    const words = ["--file-access-mounts=shared", "run", "-bundle", bundle, bench.id("a")];
    const { child, out } = bench.start(bench.argv(...words));
    await exitOf(child);
    const kept = process.env["BURROW_OUT"];
    const name = `${suite.name}-${revision.name}-${gofer.name}-${place}`.replace(/[ ,]+/g, "-");
    if (kept !== undefined) fs.copyFileSync(out, path.join(kept, name));
    return suite.parse(fs.readFileSync(out, "latin1"));
  } finally {
    bench.close();
    fs.rmSync(directory, { recursive: true });
  }
}
