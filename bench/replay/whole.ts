// Whole: what the peers of a cold start do before it: they fetch the base and all packages of a workload from an origin and install
// them into a new root. By tar and a plain reading of the format, or by the installers that users have, which fixtures/rattler.sh gets.

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ReadableStream } from "node:stream/web";
import { fileURLToPath } from "node:url";
import { inParallel } from "../../lib/store/parallel.ts";

const PREFIX = "/opt/env";
const SITE = `${PREFIX}/lib/python3.11/site-packages`;
const FETCHES = 8;
/** What the channel's lock is a solution of. */
const SPECS = ["burrow-greet", "burrow-prefix", "burrow-tally", "numpy>=1.24"];

export interface Whole {
  readonly fixtures: string;
  /** The origin's: below it are `channel` and `fixtures`. */
  readonly url: string;
  /** Paths of what is installed beside the channel's packages. */
  readonly wheels: readonly string[];
  /** A new folder, for what is fetched. */
  readonly aside: string;
  /** A new folder, to be the root. */
  readonly root: string;
}

/** Each resolves when the root can be run, and rejects when it can't. */
export const INSTALLERS = {
  "fetch, unpack, run": fetchAndUnpack,
  "rattler install, run": (whole: Whole) => byRattler(whole, []),
  "rattler solve, install, run": (whole: Whole) => byRattler(whole, SPECS),
} as const satisfies Record<string, (whole: Whole) => Promise<void>>;

/** What rattler.sh has got, by name and version; why nothing is installed by it, where it isn't there. */
export function rattlerOf(fixtures: string): { installer: string } | { skipped: string } {
  const ready = join(fixtures, "rattler/ready");
  if (!fs.existsSync(ready)) return { skipped: `needs fixtures/rattler.sh ${fixtures} first` };
  return { installer: fs.readFileSync(ready, "utf8").trim() };
}

const ours = (name: string) => fileURLToPath(new URL(`../../../fixtures/${name}`, import.meta.url));

/** Runs a program to its end; rejects when that is none. */
async function run(...command: Parameters<typeof spawn>): Promise<void> {
  const [code] = (await once(spawn(...command), "close")) as [number | null];
  if (code !== 0) throw new Error(`${command[0]}: exit ${code}`);
}

async function get(url: string): Promise<Response> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return response;
}

/** All of it side by side, then unpacked by tar, by fixtures/link.py and, on all CPUs, by fixtures/unzip.py. */
async function fetchAndUnpack({ fixtures, url, wheels, aside, root }: Whole): Promise<void> {
  fs.mkdirSync(join(aside, "channel"), { recursive: true });
  const list = fs.readFileSync(join(fixtures, "channel/explicit.txt"), "utf8");
  const archives = [...list.matchAll(/[^/\s]+\/[^/\s]+\.(?:conda|tar\.bz2)(?=#|\s|$)/g)].map(
    ([path]) => path,
  );
  const beside = wheels.map((path) => relative(fixtures, path));
  const all = ["base.tar", ...archives.map((path) => `channel/${path}`), ...beside];
  await inParallel(all, FETCHES, async (path) => {
    const from = path.startsWith("channel/") ? path : `fixtures/${path}`;
    const file = join(aside, path);
    fs.mkdirSync(join(file, ".."), { recursive: true });
    fs.writeFileSync(file, Buffer.from(await (await get(`${url}/${from}`)).arrayBuffer()));
  });
  execFileSync("tar", ["-xf", join(aside, "base.tar"), "-C", root]);
  const here = list.replaceAll(/file:\S*\/channel(?=\/)/g, `file://${join(aside, "channel")}`);
  const lock = join(aside, "explicit.txt");
  fs.writeFileSync(lock, here);
  const python = join(fixtures, "venv/bin/python");
  const linked = [ours("link.py"), lock, root, PREFIX, join(aside, "pkgs")];
  const unzipped = [ours("unzip.py"), root, PREFIX, ...beside.map((path) => join(aside, path))];
  const both = wheels.length === 0 ? [linked] : [linked, unzipped];
  await Promise.all(both.map((words) => run(python, ["-B", ...words], { stdio: "ignore" })));
}

/**
 * Side by side: the base, unpacked while it comes; the channel's packages by rattler, with its cache empty, by a lock or by specs; then the
 * wheels by uv, as pixi has it.
 */
async function byRattler(whole: Whole, specs: readonly string[]): Promise<void> {
  const { fixtures, url, wheels, aside, root } = whole;
  const venv = join(fixtures, "rattler/bin");
  const lock = join(fixtures, "channel/explicit.txt");
  const words = ["-B", ours("install.py"), `${url}/channel`, lock, root, PREFIX, aside, ...specs];
  await Promise.all([unpackBase(whole), run(join(venv, "python"), words, { stdio: "ignore" })]);
  if (wheels.length === 0) return;
  const pylock = join(aside, "pylock.toml");
  fs.writeFileSync(
    pylock,
    lockOf(wheels, `${url}/fixtures/${relative(fixtures, dirname(wheels[0]!))}`),
  );
  const flags = ["--quiet", "--no-config", "--preview-features", "pylock", "--target", root + SITE];
  const own = ["--python", join(venv, "python"), "--python-version", "3.11"];
  const env = { ...process.env, UV_CACHE_DIR: join(aside, "uv") };
  await run(join(venv, "uv"), ["pip", "install", ...flags, ...own, "-r", pylock], {
    env,
    stdio: "inherit",
  });
}

/** A lock of wheels below `url` (PEP 751), by the digests that the script has which downloaded them: uv asks for each once. */
function lockOf(wheels: readonly string[], url: string): string {
  const requirements = fs.readFileSync(ours(`${basename(join(wheels[0]!, "../.."))}.txt`), "utf8");
  const files = new Map(
    wheels.map((path) => [basename(path).split("-")[0]!.toLowerCase(), basename(path)]),
  );
  const pinned = requirements.matchAll(/^(\S+)==(\S+) --hash=sha256:(\w+)$/gm);
  const packages = [...pinned].map(([, name = "", version = "", digest = ""]) => {
    const file = files.get(name.toLowerCase().replace(/[-_.]+/g, "_"));
    if (file === undefined) throw new Error(`${name} ${version}: no wheel of it is there`);
    const wheel = `{ url = "${url}/${file}", hashes = { sha256 = "${digest}" } }`;
    return `[[packages]]\nname = "${name}"\nversion = "${version}"\nwheels = [${wheel}]\n`;
  });
  return `lock-version = "1.0"\ncreated-by = "bench"\n${packages.join("")}`;
}

async function unpackBase({ url, root }: Whole): Promise<void> {
  const tar = spawn("tar", ["-xf", "-", "-C", root], { stdio: ["pipe", "ignore", "inherit"] });
  const closed = once(tar, "close") as Promise<[number | null]>;
  const { body } = await get(`${url}/fixtures/base.tar`);
  await pipeline(Readable.fromWeb(body as ReadableStream), tar.stdin);
  const [code] = await closed;
  if (code !== 0) throw new Error(`tar: exit ${code}`);
}
