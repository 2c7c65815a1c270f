// Owns: programs that try a file system (posix/*.c, random/random.c) built and run: on the host, in a sandbox over runsc's own gofer and over ours.
// Assumes root and a C compiler. Plane: control.
import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { writeMount } from "../suite/gofer-process.ts";
import { makeView } from "../suite/view-cache.ts";
import { Bench, type Gofer, type Revision, ROOT } from "./runsc.ts";

/** Where host directories lie that checks run in: a tmpfs, as the model is one. */
const MEMORY = fs.existsSync("/dev/shm") ? "/dev/shm" : os.tmpdir();
/** What a process of root has in a sandbox of Docker's, and no less: the checks are of rights, too. */
const CAPABILITIES = "CHOWN DAC_OVERRIDE FOWNER FSETID SETUID SETGID MKNOD".split(" ");
const UPPER = { kind: "upper", sizeBytes: 64 * 1024 * 1024, inodes: 10_000, mode: 0o755 };

/** Builds the sources of a folder here, static, in `directory`: the program's path, or why it can't be. */
export function buildProgram(
  name: "posix" | "random",
  directory: string,
): { path: string } | { reason: string } {
  const folder = path.join(ROOT, "test/conformance", name);
  const sources = fs.readdirSync(folder).filter((file) => file.endsWith(".c"));
  const program = path.join(directory, name);
  const flags = ["-std=c2x", "-O1", "-static", "-Wall", "-Wextra", "-Wno-unused-result"];
  const words = [...flags, "-o", program, ...sources.map((file) => path.join(folder, file))];
  const built = spawnSync("cc", words, { encoding: "utf8" });
  if (built.error !== undefined) return { reason: "no C compiler (cc)" };
  return built.status === 0 ? { path: program } : { reason: built.stderr };
}

/** A check's result by its name; names within a group that come again are numbered. */
export type Results = Map<string, string>;

export function parse(text: string): Results {
  const results: Results = new Map();
  let group = "";
  let above = "";
  for (const line of text.split("\n")) {
    if (line.startsWith("# ")) group = line.slice(2);
    const at = line.lastIndexOf(": ");
    if (at < 0) continue;
    const name = line.slice(0, at);
    if (!name.startsWith(" ")) above = name;
    let key = `${group}: ${name.startsWith(" ") ? `${above},${name.slice(1)}` : name}`;
    for (let count = 2; results.has(key); count++) key = `${key.replace(/ \d+$/, "")} ${count}`;
    results.set(key, line.slice(at + 2));
  }
  return results;
}

/** A new, empty directory of a tmpfs of the host. */
export function memoryDirectory(): string {
  const directory = fs.mkdtempSync(path.join(MEMORY, "burrow-posix-"));
  fs.chmodSync(directory, 0o755);
  return directory;
}

/** What a program prints in a new directory of the host's tmpfs; `args` follow the directory. */
export function runOnHost(program: string, args: readonly string[] = []): string {
  const directory = memoryDirectory();
  try {
    const done = spawnSync(program, [directory, ...args], { encoding: "latin1", ...LIMITS });
    if (done.status !== 0) throw new Error(`on the host: ${done.status} ${done.stderr}`);
    return done.stdout;
  } finally {
    fs.rmSync(directory, { recursive: true });
  }
}

const LIMITS = { timeout: 120_000, maxBuffer: 256 * 1024 * 1024 };

export interface SandboxRuns<T> {
  /** In a host directory that is passed through. */
  readonly passed: T;
  /** In a tmpfs: of the sandbox's own over runsc's gofer, ours over ours. */
  readonly tmpfs: T;
  /** In a writable view, over ours. */
  readonly overlay: T;
  /** What was left of either, on the host. */
  readonly left: string[];
}

/** A mount of a view with something in it, and an upper of that size. */
export function overlayMount(
  directory: string,
  { sizeBytes, inodes }: { sizeBytes: number; inodes: number },
): string {
  const source = makeView(directory, { "lower/file": "below\n", lower: "/" });
  const view = JSON.parse(fs.readFileSync(path.join(source, "mount.json"), "utf8")) as object;
  return writeMount(directory, "overlay", { ...view, upper: { sizeBytes, inodes } });
}

/** What a program prints in one sandbox, in a host directory, in a tmpfs and over ours in a writable view. */
export async function runInSandbox(
  program: string,
  gofer: Gofer,
  revision: Revision,
  args: readonly string[] = [],
): Promise<SandboxRuns<string>> {
  const bench = new Bench(gofer, revision, revision.platforms[0]!);
  const data = memoryDirectory();
  try {
    const isStock = gofer.name === "stock";
    const options = ["rbind", "rw"];
    const words = args.join(" ");
    const places = isStock ? "data tmpfs" : "data tmpfs overlay";
    const script = `for at in ${places}; do echo ==; /bin/program /mnt/$at ${words} || exit 1; done`;
    const bundle = bench.bundle(script, (spec) => {
      fs.copyFileSync(program, path.join(bench.dir, "tree/bin/program"));
      if (!isStock) {
        const source = overlayMount(bench.state, UPPER);
        spec.mounts.push({ destination: "/mnt/overlay", type: "bind", source, options });
      }
      const capabilities = CAPABILITIES.map((name) => `CAP_${name}`);
      const sets = ["bounding", "effective", "permitted"].map((set) => [set, capabilities]);
      Object.assign(spec.process, { capabilities: Object.fromEntries(sets) });
      spec.mounts.push(
        { destination: "/mnt/data", type: "bind", source: data, options },
        isStock
          ? { destination: "/mnt/tmpfs", type: "tmpfs", source: "tmpfs", options: ["mode=755"] }
          : {
              destination: "/mnt/tmpfs",
              type: "bind",
              source: writeMount(bench.state, "upper", UPPER),
              options,
            },
      );
    });
    const argv = bench.argv("--file-access-mounts=shared", "run", "-bundle", bundle, bench.id("a"));
    const run = await bench.outcomeOf(argv);
    if (run.code !== 0)
      throw new Error(`${gofer.name}: ${run.code} ${run.stderr} ${run.stdout.slice(-200)}`);
    const [, passed = "", tmpfs = "", overlay = ""] = run.stdout.split("==\n");
    const left = [...(await bench.leftovers()), ...fs.readdirSync(data)];
    return { passed, tmpfs, overlay, left };
  } finally {
    bench.close();
    fs.rmSync(data, { recursive: true });
  }
}
