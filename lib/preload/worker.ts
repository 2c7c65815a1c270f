// A worker thread of the preloader: does one job after the other: compares an archive with what is expected, links the package,
// packs its files into the store. What other workers store it hears of, so that equal files are packed once. Control plane.

import { parentPort, workerData } from "node:worker_threads";
import { assert } from "../base/assert.ts";
import {
  isPython,
  keyWithoutPrefix,
  linkPackage,
  packageKey,
  pythonOfArchive,
} from "../ingest/conda/environment.ts";
import { checkArchive } from "../ingest/conda/verify.ts";
import { noteMade, openNear } from "../ingest/near-index.ts";
import type { DeltaStore } from "../store/deltas.ts";
import { KnownBlobs } from "../store/known.ts";
import { objectPath } from "../store/layout.ts";
import { Locator } from "../store/locator.ts";
import { joinedStore } from "../store/open.ts";
import { openPackWriter } from "../store/pack-writer.ts";
import { JoinedLease } from "./joined-lease.ts";
import { finishLayer } from "./start-order.ts";
import {
  type Ingested,
  type IngestJob,
  type Inspected,
  type InspectJob,
  type Job,
  type Learn,
  type Order,
  plainError,
  type Report,
  type WorkerData,
} from "./work.ts";

/** Progress is said this often at most. */
const PROGRESS_MS = 100;

assert(parentPort !== null, "this program is a worker's");
const port = parentPort;
const given = workerData as WorkerData;
/** What is to be written again (openStore). */
const damaged = new Set(given.damaged);
const lease = new JoinedLease(given.hidden, say);
let store: Promise<DeltaStore> | undefined;
let known: Promise<KnownBlobs> | undefined;

/** The store under the lease of who started this worker, which lasts for longer than the worker lives. */
function openedStore(): Promise<DeltaStore> {
  store ??= joinedStore(given.origin, lease, damaged);
  // Not remembered: it may be there the next time.
  store.catch(() => {
    store = undefined;
  });
  return store;
}

/** What is in the store, read when the first job needs it: by the lease it stays. */
function knownIn(from: DeltaStore): Promise<KnownBlobs> {
  known ??= KnownBlobs.load(from);
  known.catch(() => {
    known = undefined;
  });
  return known;
}

function say(report: Report): void {
  port.postMessage(report);
}

async function inspect({ path, item }: InspectJob): Promise<Inspected> {
  const { sha256 } = await checkArchive(path, item);
  return { sha256, python: isPython(item) ? await pythonOfArchive(path, item) : undefined };
}

async function ingest({ path, item, prefix, python }: IngestJob): Promise<Ingested> {
  const store = await openedStore();
  const sha256 = item.sha256 ?? (await checkArchive(path, item)).sha256;
  const nearKey = keyWithoutPrefix(packageKey(item, sha256, prefix, python));
  const near = await openNear(store, nearKey);
  const writer = await openPackWriter(store, { known: await knownIn(store), near });
  const { counts } = writer;
  let saidMs = 0;
  const onEntry = () => {
    if (Date.now() - saidMs < PROGRESS_MS) return;
    saidMs = Date.now();
    say({ kind: "progress", files: counts.blobs, bytes: counts.contentBytes });
  };
  const linked = await linkPackage(path, item, prefix, python, writer, onEntry);
  const { digest: layer } = await finishLayer(writer, linked.entries);
  await noteMade(store, nearKey, near, layer);
  const { blobs: files, contentBytes, storedBytes } = counts;
  const { facts, warnings } = linked;
  return { layer, facts, files, contentBytes, storedBytes, warnings };
}

async function obey(order: Order): Promise<void> {
  if (order.kind === "shown") lease.hear(order.path);
  else if (order.kind === "answer") lease.take(order);
  else if (order.kind === "learn") await learn(order);
  else await work(order.job);
}

async function learn({ layer }: Learn): Promise<void> {
  // Not opened yet: the store is read later, this layer with it. One that can't be read costs dedup alone.
  const read = async () => (await openedStore()).get(objectPath("locators", layer));
  await known?.then(async (blobs) => blobs.add(new Locator(await read()))).catch(() => undefined);
}

async function work(job: Job): Promise<void> {
  try {
    const result = job.kind === "inspect" ? await inspect(job) : await ingest(job);
    say({ kind: "done", result });
  } catch (error) {
    say({ kind: "failed", error: plainError(error) });
  }
}

port.on("message", (order: Order) => void obey(order));
