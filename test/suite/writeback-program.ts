// What a daemon and a gofer do about a large file whose blocks are here in part, on a disk that takes no more writes from some moment on:
// blocks are asked for on the good disk, others when it fails, and all that was given out is read when the kernel's memory has nothing
// of it any more. Arguments: cache, state, origin, snapshot, rows of two large blobs, a folder where the guest says what has become of
// the disk. Prints a line of WritebackFacts.

import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { Digest } from "../../lib/base/digest.ts";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { openCache } from "../../lib/cache/cache.ts";
import { type FetchAnswer, Fetcher } from "../../lib/cache/fetcher.ts";
import type { Source } from "../../lib/cache/pieces.ts";
import { Sources } from "../../lib/daemon/sources.ts";
import { digestOf } from "../../lib/store/hash.ts";

/** Of blocks that were given out, while the disk was good and after it: how many were read right, wrong, or gave an error. */
export interface WritebackFacts {
  readonly before: Tally;
  readonly after: Tally;
  /** Blocks of zeros among the wrong ones. */
  readonly zeros: number;
  /** Asks on the failing disk that were answered with an errno, and those that were answered from memory. */
  readonly refused: number;
  readonly inMemory: number;
  readonly isDemoted: boolean;
}

interface Tally {
  right: number;
  wrong: number;
  errors: number;
}

/** A run of blocks is asked for at every so many-th: each is an extent of its own. */
const STRIDE = 4;
const MEMORY_BYTES = 128 * 1024 * 1024;

/** A block that was given out, and the file that it is read from, as a gofer has it. */
interface Given {
  readonly row: number;
  readonly block: number;
  readonly fd: number;
}

/** FDs of partial files by their names: one each, as a gofer opens them. */
class Gofer {
  readonly #root: string;
  readonly #fds = new Map<string, number>();

  constructor(root: string) {
    this.#root = root;
  }

  open({ name, hostFd }: FetchAnswer): number {
    const known = this.#fds.get(name);
    if (known !== undefined) {
      if (hostFd >= 0) fs.closeSync(hostFd);
      return known;
    }
    const fd = hostFd >= 0 ? hostFd : fs.openSync(`${this.#root}/partial/${name}`, "r");
    this.#fds.set(name, fd);
    return fd;
  }
}

async function ask(
  fetcher: Fetcher,
  gofer: Gofer,
  source: Source,
  row: number,
  first: number,
): Promise<{ given: Given[]; refused: number; inMemory: number }> {
  const given: Given[] = [];
  let [refused, inMemory] = [0, 0];
  const count = Math.ceil(source.table.sizeOf(row) / BLOCK_BYTES);
  for (let block = first; block < count; block += STRIDE) {
    const answer = await fetcher.ask(source, row, block, 1);
    if (answer.errno !== 0) refused++;
    else {
      inMemory += Number(answer.hostFd >= 0);
      given.push({ row, block, fd: gofer.open(answer) });
    }
  }
  return { given, refused, inMemory };
}

/** Reads what was given out: of each whether it is right. */
function tally(source: Source, given: readonly Given[]): { tally: Tally; zeros: number } {
  const found: Tally = { right: 0, wrong: 0, errors: 0 };
  const bytes = Buffer.alloc(BLOCK_BYTES);
  let zeros = 0;
  for (const { row, block, fd } of given) {
    let got = -1;
    try {
      got = fs.readSync(fd, bytes, 0, BLOCK_BYTES, block * BLOCK_BYTES);
    } catch {
      found.errors++;
      continue;
    }
    const content = bytes.subarray(0, got);
    if (digestOf(content) === source.table.blockDigest(row, block)) found.right++;
    else found.wrong++;
    if (content.every((byte) => byte === 0)) zeros++;
  }
  return { tally: found, zeros };
}

async function seen(path: string): Promise<void> {
  while (!fs.existsSync(path)) await sleep(5);
}

async function factsOf(
  words: readonly [string, string, string, Digest, string, string],
): Promise<WritebackFacts> {
  const [root, state, origin, snapshot, rows, folder] = words;
  const cache = openCache(root);
  cache.startUp(false);
  const fetcher = new Fetcher(cache, { background: false, memoryBytes: MEMORY_BYTES });
  const sources = new Sources(cache, state, (name) => fetcher.origins.get(name).reader);
  const source = await sources.open({ snapshot, origin }, AbortSignal.timeout(60_000));
  const [one, other] = rows.split(",").map(Number) as [number, number];
  const gofer = new Gofer(root);
  const before = await ask(fetcher, gofer, source, one, 0);
  fs.writeFileSync(`${folder}/given`, "");
  await seen(`${folder}/failing`);
  // Of the same file, and of one that has none yet.
  const more = await ask(fetcher, gofer, source, one, STRIDE / 2);
  const others = await ask(fetcher, gofer, source, other, 0);
  fs.writeFileSync(`${folder}/asked`, "");
  await seen(`${folder}/dropped`);
  const first = tally(source, before.given);
  const rest = tally(source, [...more.given, ...others.given]);
  const { isDiskDemoted } = fetcher.shelf.facts;
  fetcher.close();
  return {
    before: first.tally,
    after: rest.tally,
    zeros: first.zeros + rest.zeros,
    refused: before.refused + more.refused + others.refused,
    inMemory: more.inMemory + others.inMemory,
    isDemoted: isDiskDemoted,
  };
}

const words = process.argv.slice(2);
if (words.length === 6) {
  const facts = await factsOf(words as unknown as Parameters<typeof factsOf>[0]);
  process.stdout.write(`@@ facts ${JSON.stringify(facts)}\n`);
}
