// What making layers of archives and directories takes, per second of CPU: of this process, and with the decompressors that it
// starts. Peer, in turns with it: the usual tools over the same input, which unpack it to a directory of the same file system and
// hash every file (`tar -x`, `sha256sum`); they compress and pack nothing. docs/benchmarks.md has the figures.
//
// Expected a MB of content: SHA-256 of the file, of its blocks where it is large, and of the pack it goes to, at 1.4 GB/s: 2 ms; LZ4
// at 400 MB/s: 2.5 ms; a few copies: 1 ms. An entry: header, checks, hashes of small data, rows: 50 us, and 20 to 100 of them
// make a MB. So 100 to 150 MB/s, without what zstd (2 ms a MB) or bzip2 (40 ms) take.
//
// $BURROW_FIXTURES names the inputs (fixtures/check.sh DIR); without it there is only what this file makes: 10^5 empty files.

import { execFileSync, spawnSync } from "node:child_process";
import {
  createWriteStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import type { Bench } from "../run.ts";
import { median } from "../samples.ts";

const CHILD = fileURLToPath(new URL("./ingest-once.js", import.meta.url));
const ROUNDS = 7;
const MANY = 1_000_000;

/** What a round says. */
export interface IngestRound {
  readonly entries: number;
  readonly contentBytes: number;
  /** Bytes of new packs. */
  readonly storedBytes: number;
  readonly wallMs: number;
  readonly ownMs: number;
  /** Of decompressors. */
  readonly childMs: number;
  readonly residentKib: number;
}

interface Case {
  readonly name: string;
  readonly kind: "tar" | "conda" | "directory";
  readonly sources: readonly string[];
  /** What the peer does with each source "$1", in an empty directory. */
  readonly peer?: string;
}

const HASH_ALL = "find . -type f -print0 | xargs -0 -r sha256sum > /dev/null";
const PEERS = {
  tar: `tar -xf "$1" && ${HASH_ALL}`,
  conda: `unzip -q "$1" && for part in *.tar.zst; do zstd -dcq "$part" | tar -x; rm "$part"; done; ${HASH_ALL}`,
  bz2: `bzip2 -dc "$1" | tar -x && ${HASH_ALL}`,
  directory: `cd "$1" && ${HASH_ALL}`,
};
/** The packages that a query with numpy and pandas is made of. */
const PACKAGES = /^(python|numpy|pandas|libopenblas)-\d/;

export const bench: Bench = async (emit, { isQuick }) => {
  const work = mkdtempSync(join(tmpdir(), "burrow-ingest-"));
  try {
    for (const one of await casesOf(work, isQuick)) {
      const rounds: { own: IngestRound; peer: Cost | undefined }[] = [];
      for (let i = 0; i < (isQuick ? 1 : ROUNDS); i++) {
        rounds.push({ own: ingest(one, work), peer: one.peer ? unpack(one, work) : undefined });
      }
      emit({ case: one.name, sources: one.sources.length, ...figuresOf(rounds) });
    }
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
};

function figuresOf(rounds: readonly { own: IngestRound; peer: Cost | undefined }[]) {
  const { entries, contentBytes, storedBytes } = rounds[0]!.own;
  const of = (figure: (round: IngestRound) => number) => rounds.map(({ own }) => figure(own));
  const perSecond = (ms: readonly number[], pick: (of: readonly number[]) => number) =>
    Math.round(contentBytes / pick(ms) / 100) / 10;
  const least = (figures: readonly number[]) => Math.min(...figures);
  const ownMs = of((round) => round.ownMs);
  const allMs = of((round) => round.ownMs + round.childMs);
  const peerMs = rounds.flatMap(({ peer }) => (peer ? [peer.cpuMs] : []));
  const hasPeer = peerMs.length > 0;
  const common = {
    entries,
    contentBytes,
    storedBytes,
    rounds: rounds.length,
    ownCpuMs: Math.round(median(ownMs)),
    ownCpuMsMin: Math.round(least(ownMs)),
    childCpuMs: Math.round(median(of((round) => round.childMs))),
    wallMs: Math.round(median(of((round) => round.wallMs))),
    mbPerOwnCpuSecond: perSecond(ownMs, median),
    mbPerOwnCpuSecondMax: perSecond(ownMs, least),
    mbPerCpuSecond: perSecond(allMs, median),
    mbPerWallSecond: perSecond(
      of((round) => round.wallMs),
      median,
    ),
    residentMib: Math.round(Math.max(...of((round) => round.residentKib)) / 1024),
  };
  if (!hasPeer) return common;
  const ratio = Math.round((median(allMs) / median(peerMs)) * 1000) / 1000;
  return { ...common, peerCpuMs: Math.round(median(peerMs)), cpuRatioToPeer: ratio };
}

async function casesOf(work: string, isQuick: boolean): Promise<Case[]> {
  const many = join(work, "many.tar");
  await pipeline(Readable.from(emptyFiles(isQuick ? MANY / 100 : MANY)), createWriteStream(many));
  const cases: Case[] = [{ name: "empty files", kind: "tar", sources: [many] }];
  const fixtures = process.env["BURROW_FIXTURES"];
  if (fixtures === undefined || !existsSync(join(fixtures, "base.tar"))) return cases;
  const native = join(fixtures, "channel", "linux-64");
  const conda = readdirSync(native)
    .filter((name) => PACKAGES.test(name))
    .map((name) => join(native, name));
  const bz2 = conda.map((path) => asTarBz2(path, work));
  const root = join(fixtures, "root");
  cases.unshift(
    { name: "tar", kind: "tar", sources: [join(fixtures, "base.tar")], peer: PEERS.tar },
    { name: "conda", kind: "conda", sources: conda, peer: PEERS.conda },
    { name: "tar.bz2", kind: "conda", sources: bz2, peer: PEERS.bz2 },
    { name: "directory", kind: "directory", sources: [root], peer: PEERS.directory },
  );
  const wide = join(fixtures, "wide", "channel");
  if (existsSync(wide)) {
    const sources = ["linux-64", "noarch"].flatMap((subdir) =>
      readdirSync(join(wide, subdir))
        .filter((name) => name.endsWith(".conda"))
        .map((name) => join(wide, subdir, name)),
    );
    cases.splice(2, 0, { name: "wide", kind: "conda", sources, peer: PEERS.conda });
  }
  return cases;
}

/** The same package in the older format: one tar, its info part first. */
function asTarBz2(path: string, work: string): string {
  const out = join(work, path.slice(path.lastIndexOf("/") + 1).replace(/\.conda$/, ".tar.bz2"));
  const script = `mkdir "$2.d" && cd "$2.d" && unzip -q "$1" && for part in *.tar.zst; do zstd -dq --rm "$part"; done &&
    tar -Af info-*.tar pkg-*.tar && bzip2 -c info-*.tar > "$2" && rm -r "$2.d"`;
  execFileSync("sh", ["-ec", script, "sh", path, out]);
  return out;
}

/** A tar of empty files in directories of a thousand. */
function* emptyFiles(count: number): Iterable<Buffer> {
  const header = (name: string, type: string) => {
    const block = Buffer.alloc(512);
    block.write(name, 0, "latin1");
    block.write(["0000644", "0000000", "0000000", "00000000000", "14000000000"].join("\0"), 100);
    block.write(`        ${type}`, 148);
    block.write("ustar\u000000", 257);
    const sum = block.reduce((total, byte) => total + byte, 0);
    block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
    return block;
  };
  for (let i = 0; i < count; i++) {
    const folder = `folder-${Math.floor(i / 1000)}`;
    if (i % 1000 === 0) yield header(`${folder}/`, "5");
    yield header(`${folder}/file-${i}.txt`, "0");
  }
  yield Buffer.alloc(1024);
}

function ingest({ kind, sources }: Case, work: string): IngestRound {
  const store = join(work, "store");
  rmSync(store, { recursive: true, force: true });
  const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env;
  const options = { encoding: "utf8", env } as const;
  const child = spawnSync(process.execPath, [CHILD, kind, store, ...sources], options);
  if (child.status !== 0) throw new Error(`the round failed: ${child.stderr}`);
  return JSON.parse(child.stdout) as IngestRound;
}

interface Cost {
  readonly cpuMs: number;
}

/** Has the usual tools unpack and hash the sources: what they took. */
function unpack({ sources, peer }: Case, work: string): Cost {
  const folder = join(work, "unpacked");
  let cpuMs = 0;
  for (const source of sources) {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder);
    // bash says what its children took, when all have ended.
    const script = `set -e; ${peer}; times`;
    const { status, stdout, stderr } = spawnSync("bash", ["-c", script, "bash", source], {
      cwd: folder,
      encoding: "utf8",
    });
    if (status !== 0) throw new Error(`the peer failed: ${stderr}`);
    for (const [, minutes, seconds] of stdout.matchAll(/(\d+)m([\d.]+)s/g)) {
      cpuMs += (Number(minutes) * 60 + Number(seconds)) * 1000;
    }
  }
  rmSync(folder, { recursive: true, force: true });
  return { cpuMs };
}
