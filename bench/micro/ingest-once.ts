// One round of the ingest bench: `node ingest-once.js KIND STORE SOURCE…` makes a layer of each source (KIND: tar, conda,
// directory) in a new store, in one process as a worker of the preloader does it, and prints what that took.

import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { distOf } from "../../lib/ingest/conda/dist.ts";
import { isPython, linkPackage } from "../../lib/ingest/conda/environment.ts";
import { pythonTarget } from "../../lib/ingest/conda/noarch.ts";
import { importDirectory } from "../../lib/ingest/dir.ts";
import { importTar } from "../../lib/ingest/tar.ts";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { finishLayer } from "../../lib/preload/start-order.ts";
import { KnownBlobs } from "../../lib/store/known.ts";
import { openStore } from "../../lib/store/open.ts";
import { openPackWriter, type PackWriter } from "../../lib/store/pack-writer.ts";
import type { IngestRound } from "./ingest.ts";

const PREFIX = "/opt/env";
/** man proc(5), /proc/PID/stat: cutime and cstime in clock ticks, counted from behind the name. */
const CUTIME = 13;
const TICK_MS = 10;

/** CPU time of children that have ended and were waited for. */
function childrenMs(): number {
  const stat = readFileSync("/proc/self/stat", "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[CUTIME]) + Number(fields[CUTIME + 1])) * TICK_MS;
}

async function collected(entries: AsyncIterable<LayerEntry>): Promise<LayerEntry[]> {
  const all: LayerEntry[] = [];
  for await (const entry of entries) all.push(entry);
  return all;
}

async function entriesOf(kind: string, source: string, sink: PackWriter): Promise<LayerEntry[]> {
  if (kind === "directory") return await collected(importDirectory(source, { sink }));
  const name = basename(source);
  if (kind === "tar") return await collected(importTar(source, { sink, name, devices: "skip" }));
  const dist = distOf(source);
  const item = { url: `file://${source}`, path: source, line: 1, ...(dist ? { dist } : {}) };
  const python = isPython(item) ? undefined : pythonTarget("3.11");
  return (await linkPackage(source, item, PREFIX, python, sink)).entries;
}

const [kind, origin, ...sources] = process.argv.slice(2);
const store = await openStore(origin!);
const known = await KnownBlobs.load(store);
const counts = { entries: 0, contentBytes: 0, storedBytes: 0 };
const startedMs = performance.now();
const startedUs = process.cpuUsage();
for (const source of sources) {
  const writer = await openPackWriter(store, { known });
  const entries = await entriesOf(kind!, source, writer);
  await finishLayer(writer, entries);
  counts.entries += entries.length;
  counts.contentBytes += writer.counts.contentBytes;
  counts.storedBytes += writer.counts.storedBytes;
}
const { user, system } = process.cpuUsage(startedUs);
const round: IngestRound = {
  ...counts,
  wallMs: performance.now() - startedMs,
  ownMs: (user + system) / 1000,
  childMs: childrenMs(),
  residentKib: process.resourceUsage().maxRSS,
};
process.stdout.write(JSON.stringify(round));
