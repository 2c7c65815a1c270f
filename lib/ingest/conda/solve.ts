// From specs to packages: the records that could matter, out of each channel's repodata by strict priority, go to the solver in a
// child process; what it chooses comes back as a list to import. docs/conda.md. Control plane.

import { type ChildProcess, spawn } from "node:child_process";
import { statSync } from "node:fs";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { BurrowError } from "../../base/error.ts";
import { isS3 } from "../../store/s3-place.ts";
import { type Channel, isCalled, showChannel } from "./channel.ts";
import { ARCHIVE_SUFFIX } from "./dist.ts";
import type { ExplicitPackage } from "./explicit.ts";
import { installOrder } from "./install-order.ts";
import { dependencyName, type MatchSpec, parseMatchSpec } from "./match-spec.ts";
import { loadRepodata, type RepodataOptions } from "./repodata.ts";
import { type RepodataRecord, readRecord } from "./repodata-record.ts";
import { badRepodata, type RepodataIndex } from "./repodata-scan.ts";
import type { VirtualPackage } from "./virtual.ts";

/** What the child reads: records by subdir and by their archive's name. */
export interface SolveTask {
  readonly specs: readonly string[];
  readonly subdirs: Readonly<Record<string, Readonly<Record<string, object>>>>;
}

export type SolveReply =
  | {
      readonly kind: "solved";
      readonly packages: readonly { readonly subdir: string; readonly fileName: string }[];
    }
  | { readonly kind: "unsolvable"; readonly why: string }
  | { readonly kind: "badSpec"; readonly why: string }
  | {
      readonly kind: "badRecord";
      readonly subdir: string;
      readonly fileName: string;
      readonly why: string;
    };

export interface SolveOptions extends RepodataOptions {
  readonly virtual: readonly VirtualPackage[];
  /** Called before work that takes a while. */
  readonly onStep?: (text: string) => void;
  /** How long the solver may think. */
  readonly solveMs?: number;
}

/** All that a sandbox can run is for Linux on x86-64. */
const SUBDIRS = ["linux-64", "noarch"] as const;
/** 707 packages of conda-forge take 12 s. */
const SOLVE_MS = 600_000;
/** Records given to the solver: a solve over all of scientific Python looks at some 50,000. */
const RECORDS_MAX = 500_000;

/** A channel's subdir that was found, and where its archives lie. */
interface Source {
  readonly channel: Channel;
  readonly subdir: string;
  readonly index: RepodataIndex;
  readonly base: string;
}

interface Candidate {
  readonly source: Source;
  readonly record: RepodataRecord;
}

/**
 * The packages that satisfy all specs, in install order: the newest that fit, each name from the first channel that has it. The same
 * specs, repodata and virtual packages give the same list. BURROW_UNSOLVABLE, BURROW_BAD_REPODATA, BURROW_USAGE for a spec that is none;
 * and see loadRepodata.
 */
export async function solve(
  specs: readonly string[],
  channels: readonly Channel[],
  options: SolveOptions,
): Promise<ExplicitPackage[]> {
  const parsed = specs.map(parseMatchSpec);
  const pins = pinsOf(parsed, channels);
  const sources: Source[] = [];
  for (const channel of channels) sources.push(...(await openChannel(channel, options)));
  const candidates = gather(parsed, channels, sources, pins);
  const task = taskOf(parsed, candidates, options.virtual);
  options.onStep?.(`solving over ${candidates.size} records`);
  const reply = await runSolver(task, options.solveMs ?? SOLVE_MS);
  if (reply.kind === "badRecord") throw refusedRecord(reply, candidates);
  if (reply.kind === "badSpec") {
    throw new BurrowError("BURROW_USAGE", `the solver can't read a spec: ${reply.why}`);
  }
  if (reply.kind === "unsolvable") {
    throw new BurrowError("BURROW_UNSOLVABLE", reply.why, {
      context: { channels: channels.map(showChannel).join(" ") },
    });
  }
  const chosen = reply.packages
    .map(({ subdir, fileName }) => candidates.get(`${subdir}/${fileName}`))
    .filter((one) => one !== undefined);
  return installOrder(chosen.map((one) => ({ ...one, ...one.record }))).map(asItem);
}

/** Which channel a name must come from, where specs say so. */
function pinsOf(specs: readonly MatchSpec[], channels: readonly Channel[]): Map<string, Channel> {
  const pins = new Map<string, Channel>();
  for (const { name, channel: called } of specs) {
    if (called === undefined) continue;
    const channel = channels.find((one) => isCalled(one, called));
    const known = pins.get(name);
    if (channel === undefined || (known !== undefined && known !== channel)) {
      const why =
        channel === undefined ? "is none of the channels given" : "is not the only one named";
      throw new BurrowError("BURROW_USAGE", `${called}::${name}: ${called} ${why}`);
    }
    pins.set(name, channel);
  }
  return pins;
}

async function openChannel(channel: Channel, options: SolveOptions): Promise<Source[]> {
  const sources: Source[] = [];
  for (const subdir of SUBDIRS) {
    options.onStep?.(`reading ${subdir} of ${showChannel(channel)}`);
    const index = await loadRepodata(channel, subdir, options);
    if (index === undefined) continue;
    const { info } = index;
    if (info["subdir"] !== undefined && info["subdir"] !== subdir) {
      throw badRepodata(index.where, `it is that of ${String(info["subdir"]).slice(0, 40)}`);
    }
    sources.push({ channel, subdir, index, base: baseOf(channel, subdir, index) });
  }
  if (sources.length > 0) return sources;
  throw new BurrowError("BURROW_NOT_FOUND", `no channel: ${whyNone(channel)}`, {
    context: { channel: showChannel(channel) },
  });
}

/** What is wrong with a channel that has no repodata, and what to do. */
function whyNone({ path }: Channel): string {
  const found = path === undefined ? undefined : statSync(path, { throwIfNoEntry: false });
  if (path !== undefined && found === undefined) return "there is no such directory";
  if (found?.isDirectory() === false) return "it is no directory";
  const what = `it has no repodata for Linux on x86-64 (${SUBDIRS.join(", ")})`;
  return path === undefined ? what : `${what}; "conda index" makes that for a folder of packages`;
}

/** Where a subdir's archives lie: beside its repodata, or where that says (CEP 15). Never a file of this node for a remote channel. */
function baseOf(channel: Channel, subdir: string, index: RepodataIndex): string {
  const own = `${channel.url}${subdir}/`;
  const said = index.info["base_url"];
  if (said === undefined || said === null) return own;
  const url = typeof said === "string" && URL.canParse(said, own) ? new URL(said, own) : undefined;
  // What is signed with this node's credentials is its user's to name: no web server's.
  const isOnS3 = url?.protocol === "s3:" && isS3(channel.url);
  const isRemote = url !== undefined && (isOnS3 || /^https?:$/.test(url.protocol));
  if (
    url === undefined ||
    !(isRemote || (channel.path !== undefined && url.protocol === "file:"))
  ) {
    throw badRepodata(index.where, "its base_url is none that archives can be fetched from");
  }
  return url.href.endsWith("/") ? url.href : `${url.href}/`;
}

/**
 * All records that a solve could choose, by "SUBDIR/FILE": those of the specs' names, of what these depend on, and so on. A name is
 * looked up in one channel only, the first that has it (conda's strict priority), so no channel can put a newer package in front of
 * one that stands before it.
 */
function gather(
  specs: readonly MatchSpec[],
  channels: readonly Channel[],
  sources: readonly Source[],
  pins: ReadonlyMap<string, Channel>,
): Map<string, Candidate> {
  const candidates = new Map<string, Candidate>();
  const names = new Set(specs.map(({ name }) => name));
  // A set grows while it is walked: each name once, in the order of its first mention.
  for (const name of names) {
    if (name.startsWith("__")) continue;
    const pin = pins.get(name);
    const home =
      pin ??
      channels.find((channel) =>
        sources.some((one) => one.channel === channel && one.index.records.has(name)),
      );
    for (const candidate of candidatesOf(name, home, sources)) {
      candidates.set(`${candidate.source.subdir}/${candidate.record.fileName}`, candidate);
      for (const text of candidate.record.depends) {
        const needed = dependencyName(text);
        if (needed !== undefined) names.add(needed);
      }
    }
    if (candidates.size > RECORDS_MAX) {
      throw badRepodata(
        sources[0]!.index.where,
        `over ${RECORDS_MAX} records depend on each other`,
      );
    }
  }
  return candidates;
}

/** A channel's records of one name: of a package in both formats, the newer format. */
function candidatesOf(
  name: string,
  home: Channel | undefined,
  sources: readonly Source[],
): Candidate[] {
  const found: Candidate[] = [];
  for (const source of sources.filter(({ channel }) => channel === home)) {
    const slices = source.index.records.get(name) ?? [];
    const files = new Set<string>();
    for (const { fileName } of slices) {
      if (files.has(fileName)) throw badRepodata(source.index.where, "it comes twice", fileName);
      files.add(fileName);
    }
    for (const slice of slices) {
      const isOld = slice.fileName.endsWith(".tar.bz2");
      if (isOld && files.has(slice.fileName.replace(ARCHIVE_SUFFIX, ".conda"))) continue;
      found.push({ source, record: readRecord(source.index, slice, source.subdir) });
    }
  }
  return found;
}

/** What the solver gets: one channel of all candidates and of what the machine is, which must be there in every answer. */
function taskOf(
  specs: readonly MatchSpec[],
  candidates: ReadonlyMap<string, Candidate>,
  virtual: readonly VirtualPackage[],
): SolveTask {
  const subdirs: Record<string, Record<string, object>> = { "linux-64": {}, noarch: {} };
  for (const { source, record } of candidates.values()) {
    subdirs[source.subdir]![record.fileName] = record.json;
  }
  for (const { name, version, build } of virtual) {
    const json = { name, version, build, build_number: 0, subdir: "noarch", depends: [] };
    subdirs["noarch"]![`${name}-${version}-${build}.conda`] = json;
  }
  const machine = virtual.map(({ name }) => name);
  return { specs: [...specs.map(({ text }) => text), ...machine], subdirs };
}

/** Runs the child to its end. It dies with this process. */
async function runSolver(task: SolveTask, limitMs: number): Promise<SolveReply> {
  const program = fileURLToPath(new URL("./solve-child.js", import.meta.url));
  // No environment: nothing of this user's is the solver's business.
  const child = spawn(process.execPath, ["--no-warnings", program], {
    env: {},
    stdio: ["pipe", "pipe", "pipe"],
  });
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    kill();
  }, limitMs);
  child.stdin.on("error", () => {}); // it ended early: its exit code says so
  child.stdin.end(JSON.stringify(task));
  try {
    const [reply, complaint, code] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      exitOf(child),
    ]);
    if (code === 0) return JSON.parse(reply) as SolveReply;
    if (isLate) {
      throw new BurrowError("BURROW_TIMEOUT", `no solution within ${limitMs / 1000} s`);
    }
    const why = complaint.trim().split("\n").slice(0, 2).join(" ").slice(0, 400);
    throw new BurrowError("BURROW_UNSOLVABLE", `the solver broke off: ${why || code}`);
  } finally {
    clearTimeout(timer);
    process.off("exit", kill);
  }
}

function exitOf(child: ChildProcess): Promise<number | string> {
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve(code ?? signal ?? "unknown"));
  });
}

/** The error for a record that only the solver's own reader refuses. */
function refusedRecord(
  { subdir, fileName, why }: SolveReply & { kind: "badRecord" },
  candidates: ReadonlyMap<string, Candidate>,
): BurrowError {
  const where = candidates.get(`${subdir}/${fileName}`)?.source.index.where ?? subdir;
  return badRepodata(where, `the solver can't read it: ${why}`, fileName);
}

/** A choice as a line of a list. BURROW_BAD_REPODATA without a hash: nothing would tell its archive from another. */
function asItem({ source, record }: Candidate, i: number): ExplicitPackage {
  const { fileName, name, version, build, md5, sha256, size } = record;
  if (md5 === undefined && sha256 === undefined) {
    throw badRepodata(source.index.where, "it has neither sha256 nor md5", fileName);
  }
  const url = `${source.base}${fileName}`;
  return {
    url,
    line: i + 1,
    dist: { name, version, build },
    ...(url.startsWith("file://") ? { path: fileURLToPath(url) } : {}),
    ...(md5 === undefined ? {} : { md5 }),
    ...(sha256 === undefined ? {} : { sha256 }),
    ...(size === undefined ? {} : { size }),
  };
}
