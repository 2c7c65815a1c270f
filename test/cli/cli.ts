// Owns: what the tests of the command line share: a node of its own in a temporary directory, running burrow to its end with a
// limit, and finding and removing all that it started. Plane: control.
import { type ChildProcess, spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import type { Test } from "tap";
import { stopDaemon } from "../../lib/cache/client.ts";
import { inParallel } from "../../lib/store/parallel.ts";
import { exitOf, findRevisions } from "../conformance/runsc.ts";
import { removeLazyMount } from "../suite/lazy-leftovers.ts";
import { NULL_NETNS, unmountNullNetns } from "../suite/null-netns.ts";

const ROOT = path.resolve(import.meta.dirname, "../../..");
export const MAIN = path.join(ROOT, "dist/burrow.cjs");
checkFresh();
/** Packages of other projects, when they are here. */
export const DATA = path.join(ROOT, "../shared/data");
export const ZEROS = `sha256:${"0".repeat(64)}`;
/** Far above what any takes, so that only what hangs is ended: a preload took more than a minute at a load of 42. */
const LIMIT_MS = 180_000;
/** Commands at once: each has LIMIT_MS from its own start, and machines that test have few CPUs. */
const AT_ONCE = 4;

/** What is tested must be what was compiled last. */
function checkFresh(): void {
  const lib = path.join(ROOT, "dist/lib");
  const { mtimeMs } = fs.statSync(path.join(ROOT, "dist/bundles/burrow.cache"));
  for (const name of fs.readdirSync(lib, { recursive: true, encoding: "utf8" })) {
    if (!name.endsWith(".js") || fs.statSync(path.join(lib, name)).mtimeMs <= mtimeMs) continue;
    throw new Error(`dist/burrow.cjs is older than dist/lib/${name}. Run: npm run build`);
  }
}

export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  /** The caller writes to stdin and ends it. */
  readonly keepsInput?: boolean;
  env?: NodeJS.ProcessEnv;
  input?: string;
  /** Another user for the process; this one's when missing. */
  uid?: number;
  /** A file for stdout in place of a pipe. */
  stdoutFile?: string;
}

/** State, cache and store of one test. */
export class Node {
  readonly dir = fs.mkdtempSync(path.join(os.tmpdir(), "burrow-cli-"));
  readonly state = path.join(this.dir, "state");
  readonly cache = path.join(this.dir, "cache");
  readonly store = path.join(this.dir, "store");
  readonly env: NodeJS.ProcessEnv = {
    PATH: process.env["PATH"],
    TMPDIR: path.join(this.dir, "tmp"),
    BURROW_STATE: this.state,
    BURROW_CACHE: this.cache,
    BURROW_STORE: this.store,
  };
  readonly #children: ChildProcess[] = [];
  readonly #limitMs: number;

  /** `limitMs`: how long a command may take. */
  constructor(limitMs = LIMIT_MS) {
    this.#limitMs = limitMs;
    fs.chmodSync(this.dir, 0o755);
    fs.mkdirSync(this.env["TMPDIR"]!);
  }

  path(name: string): string {
    return path.join(this.dir, name);
  }

  /** A file of this node's directory, with its folders. */
  file(name: string, content: string | Uint8Array, mode = 0o644): string {
    fs.mkdirSync(path.dirname(this.path(name)), { recursive: true });
    fs.writeFileSync(this.path(name), content, { mode });
    return this.path(name);
  }

  start(words: readonly string[], options: RunOptions = {}): ChildProcess {
    const out = options.stdoutFile === undefined ? "pipe" : fs.openSync(options.stdoutFile, "w");
    const child = spawn(process.execPath, ["--no-warnings", MAIN, ...words], {
      cwd: this.dir,
      env: { ...this.env, ...options.env },
      ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }),
      stdio: [
        options.input === undefined && options.keepsInput !== true ? "ignore" : "pipe",
        out,
        "pipe",
      ],
    });
    if (typeof out === "number") fs.closeSync(out);
    if (options.keepsInput !== true) child.stdin?.end(options.input);
    this.#children.push(child);
    return child;
  }

  /** Runs burrow to its end. */
  async run(words: readonly string[], options: RunOptions = {}): Promise<Outcome> {
    const child = this.start(words, options);
    const timer = setTimeout(() => child.kill("SIGKILL"), this.#limitMs);
    const texts = { stdout: "", stderr: "" };
    const ends: Promise<unknown>[] = [];
    for (const name of ["stdout", "stderr"] as const) {
      child[name]?.setEncoding("utf8").on("data", (text: string) => {
        texts[name] += text;
      });
      if (child[name]) ends.push(new Promise((resolve) => child[name]!.once("close", resolve)));
    }
    const code = await exitOf(child);
    await Promise.all(ends);
    clearTimeout(timer);
    return { code, ...texts };
  }

  /** Runs burrow with each of these words, some at a time: the outcomes in their order. */
  async runAll(commands: readonly (readonly string[])[]): Promise<Outcome[]> {
    const outcomes: Outcome[] = [];
    await inParallel(commands.entries(), AT_ONCE, async ([i, words]) => {
      outcomes[i] = await this.run(words);
    });
    return outcomes;
  }

  /** Names in the folders of running sandboxes: empty when nothing is left. */
  leftovers(): string[] {
    return ["mounts", "runs", "runsc"].flatMap((folder) => {
      const where = path.join(this.state, folder);
      const names = fs.existsSync(where) ? fs.readdirSync(where) : [];
      return names.filter((name) => name !== NULL_NETNS).map((name) => `${folder}/${name}`);
    });
  }

  /** Processes with this node's directory in their arguments, but for the daemon. */
  processes(): string[] {
    return fs.readdirSync("/proc").flatMap((pid) => {
      if (!/^\d+$/.test(pid)) return [];
      try {
        const words = fs.readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
        // The daemon's own; a standby that serves has another title.
        const isNodes = words.includes(" daemon start ") || words.includes("/standby.cjs ");
        return words.includes(this.dir) && !isNodes ? [words] : [];
      } catch {
        return []; // it ended meanwhile
      }
    });
  }

  async close(): Promise<void> {
    for (const child of this.#children) if (child.exitCode === null) child.kill("SIGKILL");
    await stopDaemon(this.cache).catch(() => false);
    removeLazyMount(this.cache);
    for (const root of ["state/runsc", "run"]) unmountNullNetns(path.join(this.dir, root));
    fs.rmSync(this.dir, { recursive: true, force: true });
  }
}

export function newNode(t: Test): Node {
  const node = new Node();
  t.teardown(() => node.close());
  return node;
}

/** A node with a base of busybox in its store: its digest. */
export async function busybox(
  t: Test,
  runsc = findRevisions().found[0]!.path,
): Promise<{ node: Node; base: string }> {
  const node = newNode(t);
  node.env["BURROW_RUNSC"] = runsc;
  node.file("base/bin/busybox", fs.readFileSync("/bin/busybox"), 0o755);
  for (const name of ["sh", "cat", "dd", "id", "ls", "pwd", "sleep", "touch"]) {
    fs.symlinkSync("busybox", node.path(`base/bin/${name}`));
  }
  node.file("base/etc/greeting", "hello\n");
  for (const name of ["dev", "proc", "sys", "tmp"]) fs.mkdirSync(node.path(`base/${name}`));
  const { code, stdout, stderr } = await node.run(["layer", "import", "--snapshot", "base"]);
  t.equal(code, 0, stderr);
  return { node, base: stdout.trim() };
}

/** Runs commands that must fail, with this code and line on stderr, and print nothing. */
export async function checkRefused(
  t: Test,
  node: Node,
  cases: readonly (readonly [words: readonly string[], line: RegExp, code: number])[],
): Promise<void> {
  const outcomes = await node.runAll(cases.map(([words]) => words));
  for (const [i, { code, stdout, stderr }] of outcomes.entries()) {
    const [words, line, expected] = cases[i]!;
    t.equal(code, expected, words.join(" "));
    t.equal(stdout, "");
    t.match(stderr, line);
    t.notMatch(stderr, /BURROW_INTERNAL/);
  }
}
