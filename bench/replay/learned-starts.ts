// learned-starts: what profiles that are learned from touches, that compose by package, and that packs are laid out by are worth: starts
// on an empty cache over HTTP with 20 ms before each answer; requests, bytes, what was here when it was first read, and what of that which
// was brought ahead was used. Environment A is all of the fixtures' channel, which imports numpy and pandas; B has no pandas, and imports
// numpy, dateutil and pytz: nobody has started it before.
//
// Expected: A's second start brings little that isn't read; B, composed, as A's second; laid out, the same bytes in few ranges. Needs root,
// runsc and the fixtures, as hot-start does.

import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseDigest } from "../../lib/base/digest.ts";
import { daemonStatus, isDaemonUp, stopDaemon } from "../../lib/cache/client.ts";
import { readIndex } from "../../lib/cli/read-index.ts";
import type { PrefetchFigures } from "../../lib/daemon/prefetched.ts";
import type { ProfileFigures } from "../../lib/daemon/profiles.ts";
import { ANY_COMMAND, Profile } from "../../lib/preload/profile.ts";
import { readLocator } from "../../lib/store/known.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { openOrigin } from "../../lib/store/open.ts";
import type { Bench, Result } from "../run.ts";
import { Origin } from "./origin.ts";
import { type Setup, setUp } from "./setup.ts";

const CLI = fileURLToPath(new URL("../../burrow.cjs", import.meta.url));
const PYTHON = "/opt/env/bin/python3";
const DELAY_MS = 20;
const STARTS = 3;

interface Started {
  readonly environment: string;
  readonly imports: string;
}

/** Starts on nodes that have nothing but what was learned. */
class Nodes {
  readonly #setup: Setup;
  readonly #origin: Origin;
  readonly #url: string;
  readonly #base: string;
  /** What the last one knew in the end, given to the next. */
  readonly profiles: string;
  #count = 0;

  constructor(setup: Setup, origin: Origin, url: string, base: string) {
    this.#setup = setup;
    this.#origin = origin;
    this.#url = url;
    this.#base = base;
    this.profiles = join(setup.work, "profiles");
  }

  async start({ environment, imports }: Started, isKept: boolean): Promise<Result> {
    const { work, env } = this.#setup;
    const cache = join(work, `node${this.#count++}`);
    const store = `${this.#url}/store`;
    const own = { ...env, BURROW_CACHE: cache, BURROW_STORE: store };
    const words = ["daemon", "start", "--idle", "0", "--standbys", "0"];
    const daemon = spawn(process.execPath, [CLI, ...words], { env: own, stdio: "ignore" });
    while (!(await isDaemonUp(cache))) await sleep(20);
    const known = join(cache, "profiles");
    const isFirst = !fs.existsSync(this.profiles);
    if (!isFirst) fs.cpSync(this.profiles, known, { recursive: true });
    this.#origin.begin(DELAY_MS);
    const view = ["--base", this.#base, "--env", environment, "--user", "0"];
    const program = `import time;t=time.time();import ${imports};print(time.time()-t)`;
    const run = [CLI, "run", "--quiet", ...view, "--", PYTHON, "-c", program];
    const child = spawn(process.execPath, run, { env: own, stdio: ["ignore", "pipe", "inherit"] });
    let out = "";
    child.stdout.on("data", (bytes: Buffer) => {
      out += bytes.toString();
    });
    const [code] = (await once(child, "close")) as [number | null];
    if (code !== 0) throw new Error(`burrow run ended with ${code}`);
    const status = await settled(cache);
    const bytes = this.#origin.sent.reduce((sum, { first, end }) => sum + end - first, 0);
    const { prefetch, profiles } = status;
    const read = isFirst ? await readOf(join(work, "store"), [this.#base, environment], known) : {};
    await stopDaemon(cache);
    if (daemon.exitCode === null) await once(daemon, "exit");
    if (isKept) {
      fs.rmSync(this.profiles, { recursive: true, force: true });
      fs.cpSync(known, this.profiles, { recursive: true });
    }
    fs.rmSync(cache, { recursive: true, force: true });
    const share = (part: number, all: number) => Math.round((100 * part) / Math.max(1, all)) / 100;
    return {
      importSeconds: Number(Number(out).toFixed(2)),
      requests: this.#origin.requests,
      ...this.#origin.kinds,
      megabytes: Math.round(bytes / 1e5) / 10,
      mbPerRequest: Math.round(bytes / 1e4 / Math.max(1, this.#origin.requests)) / 100,
      ...read,
      aheadMegabytes: Math.round(prefetch.prefetchedBytes / 1e5) / 10,
      localShare: share(prefetch.localTouches, prefetch.touches),
      usedShare: share(prefetch.usedBytes, prefetch.prefetchedBytes),
      packages: profiles.packages,
    };
  }
}

/** What a start on a new node read, by what that has learned: content, and as it lies in packs. */
async function readOf(origin: string, snapshots: readonly string[], profiles: string) {
  const store = openOrigin(origin);
  let [content, packed] = [0, 0];
  for (const text of snapshots) {
    const digest = parseDigest(text)!;
    const path = join(profiles, objectPath("profiles", digest).slice("profiles/".length));
    if (!fs.existsSync(path)) continue;
    const profile = Profile.decode(fs.readFileSync(path), digest);
    const [index, locator] = [await readIndex(store, digest), await readLocator(store, digest)];
    for (const { row, first, count } of profile.asks(ANY_COMMAND)) {
      const at = locator.find(index.blobDigest(row));
      const chunks = at < 0 ? 0 : locator.chunkCount(at);
      for (let k = first; k < (count === 0 ? chunks : Math.min(chunks, first + count)); k++) {
        const { length, stored } = locator.chunkAt(at, k);
        content += length;
        packed += stored;
      }
    }
  }
  const megabytes = (bytes: number) => Math.round(bytes / 1e5) / 10;
  return { readMegabytes: megabytes(content), readPackedMegabytes: megabytes(packed) };
}

/** When nothing is under way, and all was learned. */
async function settled(
  cache: string,
): Promise<{ prefetch: PrefetchFigures; profiles: ProfileFigures }> {
  for (;;) {
    // A daemon that is busy may answer too late to be heard.
    const status = (await daemonStatus(cache).catch(() => undefined)) as unknown as
      | {
          prefetch: PrefetchFigures;
          profiles: ProfileFigures;
          now: { isIdle: boolean; connections: number };
        }
      | undefined;
    const isQuiet = status?.now.isIdle === true && status.now.connections <= 1;
    if (isQuiet && status.profiles.unsaved === 0) return status;
    await sleep(50);
  }
}

export const bench: Bench = async (emit, { isQuick }) => {
  const setup = setUp();
  if (typeof setup === "string") return emit({ skipped: setup });
  const { work, fixtures, cli } = setup;
  const origin = new Origin({ store: join(work, "store") });
  try {
    const lock = join(fixtures, "channel/explicit.txt");
    const fewer = join(work, "fewer.txt");
    const lines = fs.readFileSync(lock, "utf8").split("\n");
    fs.writeFileSync(fewer, lines.filter((line) => !/\/pandas-\d/.test(line)).join("\n"));
    const base = setup.importBase();
    const a = { environment: cli("env", "create", "--quiet", lock), imports: "numpy,pandas" };
    const imports = "numpy,dateutil.rrule,pytz";
    const b = { environment: cli("env", "create", "--quiet", fewer), imports };
    const nodes = new Nodes(setup, origin, await origin.listen(), base);
    emit({ case: "B, foreseen", ...(await nodes.start(b, false)) });
    for (let start = 0; start < (isQuick ? 2 : STARTS); start++) {
      const what = start === 0 ? "A, foreseen" : `A, learned ${start}`;
      emit({ case: what, ...(await nodes.start(a, true)) });
    }
    fs.mkdirSync(join(work, "cache"), { recursive: true });
    fs.cpSync(nodes.profiles, join(work, "cache/profiles"), { recursive: true });
    cli("profile", "push", base, a.environment);
    cli("profile", "compose", b.environment);
    emit({ case: "B, composed", ...(await nodes.start(b, false)) });
    for (const snapshot of [base, a.environment]) {
      const { before, after } = JSON.parse(cli("store", "repack", "--json", snapshot));
      const case_ = snapshot === base ? "repack, base" : "repack, A";
      emit({
        case: case_,
        rangesBefore: before.count,
        rangesAfter: after.count,
        megabytes: Math.round(after.bytes / 1e5) / 10,
      });
    }
    emit({ case: "A, learned, laid out", ...(await nodes.start(a, false)) });
    emit({ case: "B, composed, laid out", ...(await nodes.start(b, false)) });
  } finally {
    origin.close();
    setup.dispose();
  }
};
