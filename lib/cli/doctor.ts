// burrow doctor: what this machine lacks to run sandboxes, and how to get it. Control plane.

import { execFileSync, spawnSync } from "node:child_process";
import { accessSync, constants, existsSync, readFileSync, statfsSync, statSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { NATIVE_DIRECTORY } from "../sys/native.ts";
import { addCommonOptions, type Context, contextOf } from "./context.ts";
import { hardening } from "./hardening.ts";
import { ExitCode, print, table } from "./output.ts";
import { tryPlatforms } from "./platforms.ts";

interface Finding {
  readonly name: string;
  /** ok: there; missing: sandboxes don't run without it; limited: something works less well. */
  readonly state: "ok" | "missing" | "limited";
  readonly detail: string;
  readonly advice?: string;
}

const FUSE = "/dev/fuse";

/** How long a program may take to say its version. */
const ANSWER_MS = 5_000;

/** The server as the build leaves it. */
const GOFER = fileURLToPath(new URL("../../gofer.cjs", import.meta.url));

export function addDoctor(program: Command): void {
  addCommonOptions(program.command("doctor"))
    .description("say what this machine lacks and how to get it")
    .addHelpText(
      "after",
      "\nExits 0 when sandboxes can run, 1 otherwise.\n\nExample:\n  burrow doctor --json",
    )
    .action(async (options: Record<string, never>) => {
      const context = contextOf(options);
      const findings = [...diagnose(context), ...(await sandboxes())];
      print(context.isJson, findings, show(findings));
      const isFit = findings.every((finding) => finding.state !== "missing");
      process.exitCode = isFit ? ExitCode.ok : ExitCode.failed;
    });
}

function show(findings: readonly Finding[]): string {
  const rows = findings.map(({ name, state, detail }) => [state, name, detail]);
  const advice = findings.filter(
    (finding) => finding.advice !== undefined && finding.state !== "ok",
  );
  const lines = advice.map(({ name, advice: text }) => `  ${name}: ${text}`);
  return lines.length === 0 ? table(rows) : `${table(rows)}\n\nWhat to do:\n${lines.join("\n")}`;
}

function diagnose(context: Context): Finding[] {
  return [
    node(),
    platform(),
    built(),
    server(),
    runsc(),
    root(),
    ptrace(),
    futexWaitv(),
    hardened(),
    program("zstd", undefined, "apt-get install zstd (to import .conda packages)", "limited"),
    program("bzip2", undefined, "apt-get install bzip2 (to import .tar.bz2 packages)", "limited"),
    folder("state", context.state),
    folder("cache", context.cache),
    fuse(),
  ];
}

function node(): Finding {
  const isFit = Number(process.versions.node.split(".")[0]) >= 20;
  const detail = `Node.js ${process.versions.node}`;
  return {
    name: "node",
    state: isFit ? "ok" : "missing",
    detail,
    advice: "install Node.js 20 or later",
  };
}

function platform(): Finding {
  const isFit = process.platform === "linux" && process.arch === "x64";
  const detail = `${process.platform} ${process.arch}`;
  return {
    name: "platform",
    state: isFit ? "ok" : "missing",
    detail,
    advice: "use Linux on x86-64",
  };
}

function built(): Finding {
  const missing = ["burrow.node", "burrow-runsc", "burrow-stub"].filter(
    (name) => !existsSync(join(NATIVE_DIRECTORY, name)),
  );
  const isBuilt = missing.length === 0;
  const detail = isBuilt
    ? "addon, launcher and stub are built"
    : `not built: ${missing.join(", ")}`;
  return { name: "native", state: isBuilt ? "ok" : "missing", detail, advice: "npm run build" };
}

/** Whether the server's node takes the flags that the build found good for its own. */
function server(): Finding {
  const program = setting("BURROW_GOFER") ?? GOFER;
  const command = setting("BURROW_NODE") ?? process.execPath;
  const finding = (state: Finding["state"], detail: string): Finding => {
    const advice = `npm run build, with the Node.js that is to run it (${command})`;
    return { name: "server", state, detail, advice };
  };
  if (!existsSync(program)) return finding("missing", `not built: ${program}`);
  const list = `${program}.flags`;
  const flags = existsSync(list) ? readFileSync(list, "utf8").split(/\s+/).filter(Boolean) : [];
  const { status } = spawnSync(command, [...flags, "-e", ""], { timeout: ANSWER_MS });
  if (status === 0) return finding("ok", `${program}, under ${command}`);
  return finding("missing", `${command} doesn't take ${flags.join(" ")}: another one built it`);
}

function setting(variable: string): string | undefined {
  return process.env[variable] || undefined;
}

function program(
  name: string,
  path: string | undefined,
  advice: string,
  worst: Finding["state"],
): Finding {
  const candidates = path
    ? [path]
    : (process.env["PATH"] ?? "").split(delimiter).map((dir) => join(dir, name));
  const found = candidates.find(isProgram);
  const detail = path === undefined || path === "" ? "not found" : `not found at ${path}`;
  return found === undefined
    ? { name, state: worst, detail, advice }
    : { name, state: "ok", detail: found, advice };
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** The runtime, which must also answer. */
function runsc(): Finding {
  const advice = "apt-get install runsc, or name one in $BURROW_RUNSC";
  const found = program("runsc", process.env["BURROW_RUNSC"], advice, "missing");
  if (found.state !== "ok") return found;
  try {
    const output = execFileSync(found.detail, ["--version"], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
      timeout: ANSWER_MS,
    });
    const version = output.split("\n")[0]?.replace("runsc version ", "") ?? "";
    return { ...found, detail: `${found.detail} (${version})` };
  } catch {
    return { ...found, state: "missing", detail: `${found.detail} does not answer --version` };
  }
}

function root(): Finding {
  const isRoot = process.getuid?.() === 0;
  const detail = isRoot ? "root" : `uid ${process.getuid?.()}`;
  const advice = "run as root: runsc makes namespaces that an ordinary user may not";
  return { name: "user", state: isRoot ? "ok" : "missing", detail, advice };
}

function ptrace(): Finding {
  let scope = "0";
  try {
    scope = readFileSync("/proc/sys/kernel/yama/ptrace_scope", "utf8").trim();
  } catch {
    // No Yama: nothing restricts ptrace of one's own children.
  }
  const isFit = scope !== "3";
  const advice = "sysctl kernel.yama.ptrace_scope=1 (3 can only be undone by a restart)";
  return {
    name: "ptrace",
    state: isFit ? "ok" : "missing",
    detail: `ptrace_scope ${scope}`,
    advice,
  };
}

/** futex_waitv came with Linux 5.16. */
function futexWaitv(): Finding {
  const release = readFileSync("/proc/sys/kernel/osrelease", "utf8").trim();
  const [major = 0, minor = 0] = release.split(".").map(Number);
  const isFit = major > 5 || (major === 5 && minor >= 16);
  const advice = "use Linux 5.16 or later";
  return { name: "kernel", state: isFit ? "ok" : "missing", detail: `Linux ${release}`, advice };
}

/** What a gofer gives up. */
function hardened(): Finding {
  const advice =
    "Linux 5.19 or later with lsm=landlock,…; BURROW_HARDEN unset. docs/seccomp.md says what is given up without";
  return { name: "hardening", ...hardening(), advice };
}

/** Whether sandboxes start, and on which platforms; nothing where something above is missing that they need anyway. */
async function sandboxes(): Promise<Finding[]> {
  if (runsc().state !== "ok" || root().state !== "ok") return [];
  const tried = await tryPlatforms(
    program("runsc", process.env["BURROW_RUNSC"], "", "missing").detail,
  );
  const [own, ...named] = tried;
  const fit = named.flatMap(({ platform, fault }) => (fault === undefined ? [platform!] : []));
  const unfit = named.flatMap(({ platform, fault }) =>
    fault === undefined ? [] : [`not on ${platform} (${fault})`],
  );
  const starts = fit.length === 0 ? "start on no platform" : `start on ${fit.join(", ")}`;
  const detail = [starts, ...unfit].join("; ");
  if (own?.fault === undefined) return [{ name: "sandboxes", state: "ok", detail }];
  const advice =
    fit.length === 0
      ? `runsc says: ${own.fault}`
      : `the platform that runsc takes by itself starts none (${own.fault}): burrow run --platform ${fit[0]}`;
  const state = fit.length === 0 ? "missing" : "limited";
  return [{ name: "sandboxes", state, detail, advice }];
}

/** A folder that is written to, or can be made: nothing is made to find out. */
function folder(name: string, path: string): Finding {
  let there = path;
  while (!existsSync(there)) there = dirname(there);
  try {
    if (!statSync(there).isDirectory()) throw new Error("no directory");
    accessSync(there, constants.W_OK | constants.X_OK);
    const space = statfsSync(there);
    const free = (space.bavail * space.bsize) / 1e9;
    const detail = `${path}${there === path ? "" : " (will be made)"}, ${free.toFixed(1)} GB free`;
    const advice = "free some space, or name another folder";
    return { name, state: free < 1 ? "limited" : "ok", detail, advice };
  } catch {
    const advice = `name a writable folder: --${name} DIR or $BURROW_${name.toUpperCase()}`;
    return { name, state: "missing", detail: `${path} is not writable`, advice };
  }
}

/** What burrow mount and a lazy mount need; no sandbox does. */
function fuse(): Finding {
  const why = "(for burrow mount, and a daemon with --lazy-mount)";
  const lacks = (detail: string, advice: string): Finding => ({
    name: "fuse",
    state: "limited",
    detail,
    advice: `${advice} ${why}`,
  });
  if (!existsSync(FUSE))
    return lacks(`no ${FUSE}`, "modprobe fuse, or give the container the device");
  try {
    accessSync(FUSE, constants.R_OK | constants.W_OK);
  } catch {
    return lacks(
      `${FUSE} is not for uid ${process.getuid?.()}`,
      `chmod 666 ${FUSE}, as udev has it`,
    );
  }
  if (root().state === "ok") return { name: "fuse", state: "ok", detail: FUSE };
  const helper = program("fusermount3", undefined, "", "limited");
  if (helper.state !== "ok") return lacks("no fusermount3", "apt-get install fuse3");
  return { name: "fuse", state: "ok", detail: `${FUSE}, ${helper.detail}` };
}
