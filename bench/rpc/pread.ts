// What reading a large file that isn't donated takes, end to end over a channel: 4 KiB at random and 1 MiB in order, from the node and
// over a link; and how fast the core finds a block.
//
// Expected: a futex round trip of 4 to 8 us, a pread(2) of 0.7 us and a copy for 4 KiB; the copy alone for 1 MiB. Cold: what the link gives,
// less the gaps between requests; sha256 and LZ4 run beside it. A lookup is a bit of arithmetic and one byte.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import { fileURLToPath } from "node:url";
import type { Digest } from "../../lib/base/digest.ts";
import { pieceAt } from "../../lib/cache/pieces.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { Locator } from "../../lib/store/locator.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { noise, publish, TestNode } from "../../test/suite/daemon-node.ts";
import { open, walkTo } from "../../test/suite/lisafs-calls.ts";
import type { LisafsClient } from "../../test/suite/lisafs-client.ts";
import { serveMount, type Teardown } from "../../test/suite/served.ts";
import type { Bench } from "../run.ts";

const ORIGIN = fileURLToPath(new URL("./pread-origin.js", import.meta.url));
const MIB = 1024 * 1024;
const LINK_MBIT = 1000;
const READS = 20_000;

/** What is torn down when the bench ends, in reverse order. */
class Ends implements Teardown {
  readonly #actions: (() => void | Promise<void>)[] = [];

  teardown(action: () => void | Promise<void>): void {
    this.#actions.push(action);
  }

  async run(): Promise<void> {
    for (const action of this.#actions.reverse()) await action();
  }
}

async function startOrigin(ends: Ends, folder: string): Promise<string> {
  const child: ChildProcess = spawn(process.execPath, [ORIGIN, folder, String(LINK_MBIT)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  ends.teardown(() => void child.kill("SIGKILL"));
  const [port] = (await once(child.stdout!, "data")) as [Buffer];
  return `http://127.0.0.1:${String(port).trim()}`;
}

/** MiB/s of a plain GET: what there is to have. */
async function plainGet(url: string): Promise<number> {
  const startedMs = performance.now();
  const [response] = (await once(http.get(url), "response")) as [http.IncomingMessage];
  let bytes = 0;
  for await (const part of response) bytes += (part as Buffer).length;
  return bytes / MIB / ((performance.now() - startedMs) / 1000);
}

function firstPack(store: string): string {
  const [shard] = fs.readdirSync(`${store}/packs`);
  return `packs/${shard}/${fs.readdirSync(`${store}/packs/${shard}`)[0]}`;
}

function pread(client: LisafsClient, fd: number, offset: number, count: number): Promise<number> {
  return client.callBeside(Mid.PRead, { fd, offset, count }).then(({ errno, payload }) => {
    if (errno !== 0) throw new Error(`PRead: errno ${errno}`);
    return payload.length - 8;
  });
}

/** MiB/s of a file read in order. */
async function sequential(client: LisafsClient, fd: number, bytes: number): Promise<number> {
  const startedMs = performance.now();
  for (let at = 0; at < bytes; at += MIB) await pread(client, fd, at, Math.min(MIB, bytes - at));
  return bytes / MIB / ((performance.now() - startedMs) / 1000);
}

/** Microseconds of 4 KiB reads at random, sorted. */
function random(client: LisafsClient, fd: number, bytes: number, count: number): number[] {
  const took: number[] = [];
  for (let i = 0; i < count; i++) {
    const offset = Math.floor(Math.random() * (bytes / 4096 - 1)) * 4096;
    const startedMs = performance.now();
    const { errno } = client.call(Mid.PRead, { fd, offset, count: 4096 });
    took.push((performance.now() - startedMs) * 1000);
    if (errno !== 0) throw new Error(`PRead: errno ${errno}`);
  }
  return took.sort((a, b) => a - b);
}

/** How often a second the place of a block is found in a locator. */
function lookups(
  bytes: Uint8Array,
  digests: readonly (readonly [Digest, number])[],
  count: number,
): number {
  const locator = new Locator(bytes);
  const startedMs = performance.now();
  let found = 0;
  for (let i = 0; i < count; i++) {
    const [digest, size] = digests[(i * 7919) % digests.length]!;
    found += pieceAt(locator, digest, size, 0).length;
  }
  if (found === 0) throw new Error("nothing was found");
  return count / ((performance.now() - startedMs) / 1000);
}

export const bench: Bench = async (emit, { isQuick }) => {
  const ends = new Ends();
  const node = new TestNode();
  ends.teardown(() => node.close());
  try {
    const fileMib = isQuick ? 16 : 64;
    const files = { large: noise(fileMib * MIB, 3) };
    const published = await publish(node.store, files);
    const url = await startOrigin(ends, node.store);
    await node.start({ background: true });
    const { client } = await serveMount(ends, node, node.mount(url, published.digest));
    const { fd } = open(client, walkTo(client, "large"));
    const link = await plainGet(`${url}/${firstPack(node.store)}`);
    const cold = await sequential(client, fd, files.large.length);
    let hot = 0;
    for (let i = 0; i < 3; i++) {
      hot = Math.max(hot, await sequential(client, fd, files.large.length));
    }
    const us = random(client, fd, files.large.length, isQuick ? 500 : READS);
    emit({
      case: "a large file",
      fileMib,
      linkMbit: LINK_MBIT,
      plainGetMibPerSecond: Math.round(link),
      coldMibPerSecond: Math.round(cold),
      coldOfLink: Number((cold / link).toFixed(2)),
      hotMibPerSecond: Math.round(hot),
      smallP50Us: Number(us[us.length >> 1]!.toFixed(1)),
      smallP99Us: Number(us[Math.floor(us.length * 0.99)]!.toFixed(1)),
    });
    const blobs = isQuick ? 500 : 20_000;
    const small = Object.fromEntries(
      Array.from({ length: blobs }, (_, i) => [`${i}`, noise(64, i + 1)]),
    );
    const { digest, refs } = await publish(node.store, small);
    const locator = fs.readFileSync(`${node.store}/${objectPath("locators", digest)}`);
    const places = [...refs.values()].map((ref) => [ref.digest, ref.size] as const);
    const perSecond = lookups(locator, places, isQuick ? 10_000 : 5_000_000);
    emit({ case: "where a block lies", blobs, perSecond: Math.round(perSecond) });
  } finally {
    await ends.run();
  }
};
