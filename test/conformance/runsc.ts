// Owns: what the conformance tests share: which runsc there are, bundles, running the launcher, and
// finding and removing all that a test started. Assumes root and a built project. Plane: control.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { isLong } from "../suite/long.ts";
import { NULL_NETNS, unmountNullNetns } from "../suite/null-netns.ts";
import { sleep } from "../suite/wait.ts";
import { serveAsView } from "./view.ts";

export const ROOT = path.resolve(import.meta.dirname, "../../..");
/** Another build of the programs, say one with sanitizers, by $BURROW_TEST_NATIVE. */
const NATIVE = process.env["BURROW_TEST_NATIVE"] ?? path.join(ROOT, "build/native");
export const LAUNCHER = path.join(NATIVE, "burrow-runsc");
export const STUB = path.join(NATIVE, "burrow-stub");
export const ADOPTER = path.join(ROOT, "test/conformance/adopter.py");
const SERVER = path.join(ROOT, "dist/lib/gofer/main.js");

/** A runsc to test with, and the platforms it is to be tried on (never kvm). */
export interface Revision {
  name: string;
  path: string;
  platforms: string[];
}

/** Which runsc are here; `reasons` says of each that isn't why it can't be had. */
export function findRevisions(): { found: Revision[]; reasons: string[] } {
  const found: Revision[] = [];
  const reasons: string[] = [];
  if (process.getuid?.() !== 0)
    return { found, reasons: ["not root: runsc can't start sandboxes"] };
  for (const binary of [LAUNCHER, STUB]) {
    if (!fs.existsSync(binary)) return { found, reasons: [`${binary} isn't built`] };
  }
  if (!fs.existsSync("/bin/busybox"))
    return { found, reasons: ["no /bin/busybox (busybox-static)"] };
  const installed = spawnSync("runsc", ["--version"], { encoding: "utf8" });
  const year = /release-(\d{4})|~(\d{4})|version (\d{4})/.exec(installed.stdout ?? "");
  if (installed.status === 0) {
    const name = year?.slice(1).find(Boolean) ?? "installed";
    const where = spawnSync("sh", ["-c", "command -v runsc"], { encoding: "utf8" }).stdout.trim();
    const platforms = Number(name) < 2023 ? ["ptrace"] : ["systrap", "ptrace"];
    found.push({ name, path: fs.realpathSync(where), platforms });
  } else reasons.push("no runsc in PATH (Debian: apt install runsc)");
  // The newest takes minutes to build.
  const others = {
    "2024": "fixtures/runsc.sh",
    ...(isLong && { "2026": "fixtures/runsc-newest.sh" }),
  };
  for (const [name, script] of Object.entries(others)) {
    const made = fetched(script);
    if (made.status === 0)
      found.push({ name, path: made.stdout.trim(), platforms: ["systrap", "ptrace"] });
    else reasons.push(made.stderr.trim());
  }
  return { found, reasons };
}

/** Has a script of fixtures put a runsc where tests keep what they fetch. */
function fetched(script: string) {
  const cache = process.env["BURROW_TEST_CACHE"] ?? path.join(os.tmpdir(), "burrow-test-cache");
  return spawnSync("bash", [path.join(ROOT, script), cache], { encoding: "utf8" });
}

/** What runs behind the stub's place. The one choice between a stand-in and the real server. */
export interface Gofer {
  name: string;
  env(runsc: string): Record<string, string>;
  /** Makes `dir` the tree of mount `id`; returns what root.path or a mount's source is to be. */
  serve(state: string, id: string, dir: string): string;
}

/** runsc's own gofer, exec'd where the stub would be: proves the injection without our server. */
export const stockGofer: Gofer = {
  name: "stock",
  env: (runsc) => ({ BURROW_STUB: runsc, BURROW_GOFER: runsc }),
  serve: (_state, _id, dir) => dir,
};

/** Our stub and server over a directory of the host. */
export const hostGofer: Gofer = {
  name: "burrow, host directory",
  env: () => ({ BURROW_STUB: STUB, BURROW_GOFER: SERVER }),
  serve: (_state, _id, dir) => dir,
};

/** Our stub and server over a view: what sandboxes really have. */
export const viewGofer: Gofer = {
  ...hostGofer,
  name: "burrow, view",
  serve: (state, id, dir) => serveAsView(state, path.join(state, "../cache"), id, dir),
};

/** The gofers to test with here: the stand-in always, ours when it is built. */
export function gofers(): Gofer[] {
  return fs.existsSync(SERVER) ? [stockGofer, hostGofer, viewGofer] : [stockGofer];
}

export interface Result {
  code: number;
  stdout: string;
  stderr: string;
}

/** A directory of its own with bundles and runsc state; close() leaves no trace of what ran in it. */
export class Bench {
  readonly dir: string;
  readonly state: string;
  readonly env: NodeJS.ProcessEnv;
  readonly gofer: Gofer;
  readonly revision: Revision;
  readonly #platform: string;
  #count = 0;

  constructor(gofer: Gofer, revision: Revision, platform: string) {
    this.dir = fs.mkdtempSync(path.join(os.tmpdir(), "burrow-life-"));
    fs.chmodSync(this.dir, 0o755); // a user namespace's root walks through it
    this.state = path.join(this.dir, "state");
    this.gofer = gofer;
    this.revision = revision;
    this.#platform = platform;
    this.env = {
      PATH: process.env["PATH"],
      BURROW_STATE: this.state,
      BURROW_CACHE: path.join(this.dir, "cache"),
      BURROW_NO_DAEMON: "1",
      BURROW_NODE: process.execPath,
      BURROW_LOG: path.join(this.dir, "gofer.log"),
      BURROW_RUNSC: revision.path,
      ...gofer.env(revision.path),
    };
  }

  /** A container's id of this bench: runsc's sockets are of the whole machine. */
  id(name: string): string {
    return `${name}-${path.basename(this.dir).slice(-6)}`;
  }

  /** The launcher's words up to the subcommand's. */
  argv(...words: string[]): string[] {
    const globals = ["--root", path.join(this.dir, "run"), `--platform=${this.#platform}`];
    return [LAUNCHER, ...globals, "--network=none", "--ignore-cgroups", ...words];
  }

  /** Runs the launcher to its end, as outcomeOf. */
  run(...words: string[]): Promise<Result> {
    return this.outcomeOf(this.argv(...words));
  }

  /** Runs a program to its end while others run, 150 s at most: a loaded machine takes over 60. Output goes through files: a pipe would wait for the sandbox's. */
  async outcomeOf(argv: string[], env: NodeJS.ProcessEnv = {}): Promise<Result> {
    const { fds, result } = this.#output();
    const child = spawn(argv[0]!, argv.slice(1), {
      timeout: 150_000,
      env: { ...this.env, ...env },
      stdio: ["ignore", ...fds],
    });
    for (const fd of fds) fs.closeSync(fd);
    return result(await exitOf(child));
  }

  /** As outcomeOf, but nothing else goes on meanwhile. */
  exec(argv: string[], env: NodeJS.ProcessEnv = {}): Result {
    const { fds, result } = this.#output();
    const done = spawnSync(argv[0]!, argv.slice(1), {
      timeout: 150_000,
      env: { ...this.env, ...env },
      stdio: ["ignore", ...fds],
    });
    for (const fd of fds) fs.closeSync(fd);
    const signalCode = done.signal ? 128 + os.constants.signals[done.signal] : -1;
    return result(done.status ?? signalCode);
  }

  #output(): { fds: [number, number]; result: (code: number) => Result } {
    const out = path.join(this.dir, `out-${this.#count++}`);
    return {
      fds: [fs.openSync(out, "a+"), fs.openSync(`${out}-err`, "a+")],
      result: (code) => ({
        code,
        stdout: fs.readFileSync(out, "utf8"),
        stderr: fs.readFileSync(`${out}-err`, "utf8"),
      }),
    };
  }

  /** Starts argv in the background, output to files as in run(). */
  start(argv: string[]): { child: ChildProcess; out: string } {
    const out = path.join(this.dir, `out-${this.#count++}`);
    const fd = fs.openSync(out, "a+");
    const child = spawn(argv[0]!, argv.slice(1), { env: this.env, stdio: ["ignore", fd, fd] });
    fs.closeSync(fd);
    return { child, out };
  }

  /** A bundle that runs `sh -c script` in a busybox tree; `change` may alter the spec. */
  bundle(script: string, change: (spec: Spec) => void = () => {}): string {
    const dir = path.join(this.dir, `bundle-${this.#count++}`);
    const tree = path.join(this.dir, "tree");
    if (!fs.existsSync(tree)) {
      for (const name of ["bin", "proc", "tmp", "dev", "mnt/deep/er"]) {
        fs.mkdirSync(path.join(tree, name), { recursive: true });
      }
      fs.copyFileSync("/bin/busybox", path.join(tree, "bin/busybox"));
      for (const name of ["sh", "cat", "id", "sleep"]) {
        fs.symlinkSync("busybox", path.join(tree, "bin", name));
      }
    }
    fs.mkdirSync(dir);
    const id = path.basename(dir);
    const spec: Spec = {
      ociVersion: "1.0.0",
      process: {
        user: { uid: 0, gid: 0 },
        args: ["/bin/sh", "-c", script],
        env: ["PATH=/bin"],
        cwd: "/",
        terminal: false,
      },
      root: { path: this.gofer.serve(this.state, id, tree), readonly: true },
      mounts: [{ destination: "/proc", type: "proc", source: "proc" }],
      annotations: {},
      linux: {
        namespaces: ["pid", "mount", "ipc", "uts", "network"].map((type) => ({ type })),
      },
    };
    change(spec);
    fs.writeFileSync(path.join(dir, "config.json"), JSON.stringify(spec));
    return dir;
  }

  /** Directories whose content is a mount of the sandbox: served as the root is. */
  source(name: string, files: Record<string, string>): string {
    const dir = path.join(this.dir, `source-${name}`);
    fs.mkdirSync(dir);
    for (const [file, text] of Object.entries(files)) fs.writeFileSync(path.join(dir, file), text);
    return this.gofer.serve(this.state, name, dir);
  }

  /** Processes of this bench that are alive: by its directory in argv or environment. */
  processes(): Process[] {
    return allProcesses().filter((p) => p.words.includes(this.dir));
  }

  /** Everything a sandbox could leave, after up to 6 s for it to go. Empty is right. */
  async leftovers(): Promise<string[]> {
    let left: string[] = [];
    for (let round = 0; round < 60; round++) {
      const all = fs.readFileSync("/proc/self/mountinfo", "utf8").split("\n");
      const mounts = all.filter((line) => !line.includes(`/${NULL_NETNS} `));
      left = [
        ...this.processes().map((p) => `process ${p.pid} ${p.argv.slice(0, 200)}`),
        ...mounts.filter((line) => line.includes(this.dir)).map((line) => `mount ${line}`),
        ...cgroupsNamed(path.basename(this.dir)).map((dir) => `cgroup ${dir}`),
      ];
      if (left.length === 0) break;
      await sleep(100);
    }
    return left;
  }

  /** Ends what is still there, by pid, and removes the directory. */
  close(): void {
    const runsc = this.revision.path;
    const states = path.join(this.dir, "run");
    if (fs.existsSync(states)) {
      for (const name of fs.readdirSync(states)) {
        const id = /^(.*)_sandbox:/.exec(name)?.[1];
        if (id) spawnSync(runsc, ["--root", states, "delete", "-force", id], { timeout: 20_000 });
      }
    }
    for (const { pid } of this.processes()) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {} // it ended by itself
    }
    unmountNullNetns(states);
    fs.rmSync(this.dir, { recursive: true, force: true });
  }
}

export interface Spec {
  ociVersion: string;
  process: {
    user: { uid: number; gid: number };
    args: string[];
    env: string[];
    cwd: string;
    terminal: boolean;
  };
  root: { path: string; readonly: boolean };
  mounts: { destination: string; type: string; source: string; options?: string[] }[];
  annotations: Record<string, string>;
  linux: {
    namespaces: { type: string }[];
    uidMappings?: { containerID: number; hostID: number; size: number }[];
    gidMappings?: { containerID: number; hostID: number; size: number }[];
  };
}

export interface Process {
  pid: number;
  parent: number;
  tracer: number;
  /** Pid in its innermost pid namespace. */
  innerPid: number;
  name: string;
  argv: string;
  /** argv and environment. */
  words: string;
}

function allProcesses(): Process[] {
  const out: Process[] = [];
  for (const entry of fs.readdirSync("/proc")) {
    const pid = Number(entry);
    if (!pid || pid === process.pid) continue;
    try {
      const status = fs.readFileSync(`/proc/${pid}/status`, "utf8");
      const field = (name: string) => new RegExp(`^${name}:\\s*(.*)$`, "m").exec(status)?.[1] ?? "";
      if (field("State").startsWith("Z")) continue; // init's to reap
      const argv = fs.readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
      out.push({
        pid,
        parent: Number(field("PPid")),
        tracer: Number(field("TracerPid")),
        innerPid: Number(field("NSpid").split("\t").at(-1)),
        name: field("Name"),
        argv,
        words: argv + fs.readFileSync(`/proc/${pid}/environ`, "latin1"),
      });
    } catch {} // it ended meanwhile
  }
  return out;
}

function cgroupsNamed(name: string): string[] {
  const base = "/sys/fs/cgroup";
  if (!fs.existsSync(base)) return [];
  return fs.readdirSync(base).filter((entry) => entry.includes(name));
}

/** The exit code of a child, 128 + number if a signal ended it. */
export function exitOf(child: ChildProcess): Promise<number> {
  return new Promise((resolve) => {
    const end = (code: number | null, signal: NodeJS.Signals | null) =>
      resolve(code ?? 128 + os.constants.signals[signal!]);
    if (child.exitCode !== null || child.signalCode !== null) end(child.exitCode, child.signalCode);
    else child.on("exit", end);
  });
}
