// What reading a large file that isn't donated takes, end to end over a channel, once it is on the node: 4 KiB at random and 1 MiB in order;
// and how fast the core finds a block. pread-cold has the first reading, over a link.
//
// Expected: a futex round trip of 4 to 8 us, a pread(2) of 0.7 us and a copy for 4 KiB; the copy alone for 1 MiB. A lookup is a bit of
// arithmetic and one byte.

import fs from "node:fs";
import type { Digest } from "../../lib/base/digest.ts";
import { pieceAt } from "../../lib/cache/pieces.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { Locator } from "../../lib/store/locator.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { noise, publish, TestNode } from "../../test/suite/daemon-node.ts";
import { open, walkTo } from "../../test/suite/lisafs-calls.ts";
import type { LisafsClient } from "../../test/suite/lisafs-client.ts";
import { serveMount } from "../../test/suite/served.ts";
import type { Bench, Result } from "../run.ts";
import { startDiod } from "./diod.ts";
import { Ends } from "./ends.ts";
import { BenchClient } from "./ninep-client.ts";

const MIB = 1024 * 1024;
const READS = 20_000;
const SMALL_BYTES = 4096;
/** What diod is asked for: it grants less. */
const PEER_MSIZE = MIB + 24;
const LOOKUP_ROUNDS = 11;

/** Microseconds of 4 KiB reads at random, sorted. */
function random(read: (offset: number) => void, bytes: number, count: number): number[] {
  const took: number[] = [];
  for (let i = 0; i < count; i++) {
    const offset = Math.floor(Math.random() * (bytes / SMALL_BYTES - 1)) * SMALL_BYTES;
    const startedMs = performance.now();
    read(offset);
    took.push((performance.now() - startedMs) * 1000);
  }
  return took.sort((a, b) => a - b);
}

/** MiB/s of reading the whole file in order by calls that block. */
function inOrder(read: (offset: number, count: number) => void, bytes: number, most: number) {
  const startedMs = performance.now();
  for (let at = 0; at < bytes; at += most) read(at, Math.min(most, bytes - at));
  return bytes / MIB / ((performance.now() - startedMs) / 1000);
}

interface Hot {
  readonly mibPerSecond: number;
  readonly us: readonly number[];
}

/** Ours and the peer's in turns, `rounds` times: the best in order, all at random. */
function hotInTurns(
  readers: readonly { read(offset: number, count: number): void; readonly readMax: number }[],
  bytes: number,
  rounds: number,
  reads: number,
): Hot[] {
  const hot = readers.map(() => ({ mibPerSecond: 0, us: [] as number[] }));
  for (let round = 0; round < rounds; round++) {
    for (const [i, reader] of readers.entries()) {
      const all = hot[i]!;
      const { readMax } = reader;
      const speed = inOrder((at, count) => reader.read(at, count), bytes, Math.min(MIB, readMax));
      all.mibPerSecond = Math.max(all.mibPerSecond, speed);
      all.us.push(...random((at) => reader.read(at, SMALL_BYTES), bytes, reads / rounds));
    }
  }
  for (const { us } of hot) us.sort((a, b) => a - b);
  return hot;
}

function percentiles(us: readonly number[]): { smallP50Us: number; smallP99Us: number } {
  const at = (share: number) => Number(us[Math.floor(us.length * share)]!.toFixed(1));
  return { smallP50Us: at(0.5), smallP99Us: at(0.99) };
}

/** How often a second of this thread's CPU time the place of a block is found in a locator, by round, sorted: others work here, too. */
function lookups(
  bytes: Uint8Array,
  digests: readonly (readonly [Digest, number])[],
  count: number,
): number[] {
  const locator = new Locator(bytes);
  const rates = Array.from({ length: LOOKUP_ROUNDS }, () => {
    const startedMs = threadMs();
    let found = 0;
    for (let i = 0; i < count; i++) {
      const [digest, size] = digests[(i * 7919) % digests.length]!;
      found += pieceAt(locator, digest, size, 0).length;
    }
    if (found === 0) throw new Error("nothing was found");
    return Math.round(count / ((threadMs() - startedMs) / 1000));
  });
  return rates.sort((a, b) => a - b);
}

/** CPU time of the main thread. man proc_pid_schedstat(5). */
function threadMs(): number {
  return Number(fs.readFileSync("/proc/self/schedstat", "latin1").split(" ")[0]) / 1e6;
}

interface HotFile {
  readonly client: LisafsClient;
  readonly fd: number;
  /** A directory of the bench's own. */
  readonly root: string;
  readonly content: Buffer;
  readonly isQuick: boolean;
}

/** Reads one file of what is served under `aname`, as the bench reads ours. */
function readerOf(ends: Ends, fd: number, aname: string, name: string) {
  const client = new BenchClient(fd, aname, PEER_MSIZE);
  ends.teardown(() => client.close());
  client.walk(1, name);
  client.open(1);
  const read = (offset: number, count: number) => client.read(1, offset, count);
  return { readMax: client.dataMax, read };
}

/** Reads the file that is whole on this node now, and the same by diod where there is one. */
async function hotBesidePeer(
  emit: (result: Result) => void,
  ends: Ends,
  { client, fd, root, content, isQuick }: HotFile,
): Promise<void> {
  const ours = {
    readMax: MIB,
    read: (offset: number, count: number) => {
      const { errno } = client.call(Mid.PRead, { fd, offset, count });
      if (errno !== 0) throw new Error(`PRead: errno ${errno}`);
    },
  };
  const shared = `${root}/shared`;
  fs.mkdirSync(shared);
  fs.writeFileSync(`${shared}/large`, content);
  const peer = startDiod(ends, shared);
  const diod = typeof peer === "string" ? peer : readerOf(ends, peer.fd, shared, "large");
  const readers = typeof diod === "string" ? [ours] : [ours, diod];
  const [hot, other] = hotInTurns(readers, content.length, 5, isQuick ? 500 : READS);
  const figures = ({ mibPerSecond, us }: Hot) => ({
    hotMibPerSecond: Math.round(mibPerSecond),
    ...percentiles(us),
  });
  emit({ case: "a large file, hot", ...figures(hot!) });
  if (typeof diod === "string") emit({ case: "diod", skipped: diod });
  else {
    const [mine, theirs] = [figures(hot!), figures(other!)];
    emit({
      case: "diod",
      ...theirs,
      readMaxBytes: diod.readMax,
      ratioP50: Number((mine.smallP50Us / theirs.smallP50Us).toFixed(2)),
      ratioP99: Number((mine.smallP99Us / theirs.smallP99Us).toFixed(2)),
      ratioHot: Number((mine.hotMibPerSecond / theirs.hotMibPerSecond).toFixed(2)),
    });
  }
}

export const bench: Bench = async (emit, { isQuick }) => {
  const ends = new Ends();
  const node = new TestNode();
  ends.teardown(() => node.close());
  try {
    const fileMib = isQuick ? 16 : 64;
    const files = { large: noise(fileMib * MIB, 3) };
    const published = await publish(node.store, files);
    await node.start({ background: true });
    const { client } = await serveMount(ends, node, node.mount(node.store, published.digest));
    const { fd } = open(client, walkTo(client, "large"));
    for (let offset = 0; offset < files.large.length; offset += MIB) {
      const { errno } = await client.callBeside(Mid.PRead, { fd, offset, count: MIB });
      if (errno !== 0) throw new Error(`PRead: errno ${errno}`);
    }
    await hotBesidePeer(emit, ends, { client, fd, root: node.root, content: files.large, isQuick });
    const blobs = isQuick ? 500 : 20_000;
    const small = Object.fromEntries(
      Array.from({ length: blobs }, (_, i) => [`${i}`, noise(64, i + 1)]),
    );
    const { digest, refs } = await publish(node.store, small);
    const locator = fs.readFileSync(`${node.store}/${objectPath("locators", digest)}`);
    const places = [...refs.values()].map((ref) => [ref.digest, ref.size] as const);
    const rates = lookups(locator, places, isQuick ? 10_000 : 500_000);
    emit({
      case: "where a block lies",
      blobs,
      leastPerCpuSecond: rates[0]!,
      perCpuSecond: rates[rates.length >> 1]!,
    });
  } finally {
    await ends.run();
  }
};
