// Rehearsal: a whole launch, from the stub's first message to the end of every connection, with files and a caller of our own who
// asks what an import asks, until V8 has optimized the code that answers: a standby has the time for it, a sandbox has not
// (docs/design/0006-standby.md). Leaves nothing behind but warm code. Control plane.

import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { assert } from "../base/assert.ts";
import type { BlobRef } from "../base/blob.ts";
import type { Digest } from "../base/digest.ts";
import { BLOCK_BYTES, DONATE_MAX_BYTES } from "../base/limits.ts";
import { CACHE_FOLDERS } from "../cache/layout.ts";
import { putSealed } from "../cache/seal.ts";
import type { LayerEntry } from "../layer/entry.ts";
import { IndexKind } from "../layer/format.ts";
import { writeIndex } from "../layer/writer.ts";
import { counters } from "../serve/counters.ts";
import { native } from "../sys/native.ts";
import { type AdoptedFd, Role, sendAdopt } from "./adopt.ts";
import { MOUNT_FORMAT, mountDirectory } from "./mount.ts";
import { serve } from "./serve.ts";

const SOCK_STREAM = 1;
const SOCK_SEQPACKET = 5;
const CALLER = new URL("../../rehearsal-caller.cjs", import.meta.url);

/** What is played. */
export interface Part {
  /** The caller's ends: of a view, and of a directory that can be written. */
  readonly sockets: readonly number[];
  /** Requests in all, about. */
  readonly requests: number;
  /** Names down to the environment's packages; the first two are its prefix. */
  readonly prefix: readonly string[];
  /** Packages of the environment, and modules of each. */
  readonly packages: number;
  readonly modules: number;
}

const PREFIX = ["opt", "env", "lib", "python3.11", "site-packages"];
const common = { uid: 0, gid: 0, mtimeSec: 1_700_000_000, mtimeNs: 0 };

/**
 * A file that is donated, and fetched, in another way than small ones: a library. Its last block isn't whole, as most aren't: a division
 * that V8 has only seen come out even would be the end of its code for OpenAt at a sandbox's first library.
 */
function putLibrary(cache: string): BlobRef {
  const bytes = Buffer.alloc(DONATE_MAX_BYTES + BLOCK_BYTES / 2);
  const blocks: Digest[] = [];
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    const block = bytes.subarray(at, at + BLOCK_BYTES);
    blocks.push(createHash("sha256").update(block).digest("hex") as Digest);
  }
  return { digest: putSealed(cache, "blobs", bytes), size: bytes.length, blocks };
}

/** A snapshot of packages with modules, as an environment has them; its blobs are all there, so no daemon is asked. */
function putSnapshot(cache: string, prefix: readonly string[], part: Part): Digest {
  const blob = putLibrary(cache);
  const path = [...prefix, "library.so"].join("/");
  const entries: LayerEntry[] = [{ ...common, type: "file", path, mode: 0o755, blob }];
  const empty = { digest: putSealed(cache, "blobs", Buffer.alloc(0)), size: 0, blocks: [] };
  for (let p = 0; p < part.packages; p++) {
    const folder = [...prefix, `package${p}`].join("/");
    const text = Buffer.from(`package ${p} of ${prefix.join("/")}`);
    const blob = { digest: putSealed(cache, "blobs", text), size: text.length, blocks: [] };
    for (let m = 0; m < part.modules; m++) {
      entries.push({ ...common, type: "file", path: `${folder}/module${m}.py`, mode: 0o644, blob });
    }
    entries.push({ ...common, type: "file", path: `${folder}/empty`, mode: 0o755, blob: empty });
    const target = "module0.py";
    entries.push({ ...common, type: "symlink", path: `${folder}/link`, mode: 0o777, target });
  }
  return putSealed(cache, "indexes", writeIndex(IndexKind.snapshot, entries));
}

/** Describes a mount: its source. */
function putMount(state: string, id: string, mount: Record<string, unknown>): string {
  const directory = mountDirectory(state, id);
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, "mount.json"), JSON.stringify({ format: MOUNT_FORMAT, ...mount }));
  return directory;
}

/** Writes the files of a sandbox below `scratch`: a base with an environment grafted into it, and an upper. */
function makeBundle(scratch: string, part: Part): void {
  const cache = join(scratch, "cache");
  for (const folder of CACHE_FOLDERS) mkdirSync(join(cache, folder), { recursive: true });
  const snapshot = (prefix: readonly string[]) => ({
    snapshot: putSnapshot(cache, prefix, part),
    origin: scratch,
  });
  const graft = { ...snapshot(part.prefix.slice(2)), at: `/${part.prefix.slice(0, 2).join("/")}` };
  const base = snapshot(["usr", "lib", "python3"]);
  const view = putMount(scratch, "view", { kind: "view", cache, base, grafts: [graft] });
  const limits = { sizeBytes: 1024 * 1024, inodes: 64, mode: 0o1777 };
  const upper = putMount(scratch, "upper", { kind: "upper", ...limits });
  const mounts = [{ destination: "/tmp", type: "bind", source: upper, options: ["rw"] }];
  const spec = { root: { path: view, readonly: true }, mounts };
  writeFileSync(join(scratch, "config.json"), JSON.stringify(spec));
}

/** A socket pair's two ends. */
function socketPair(type: number): [number, number] {
  const pair = new Int32Array(2);
  assert(native.socketPair(type, pair) === 0, "there are FDs for a socket pair");
  return [pair[0]!, pair[1]!];
}

/** What runsc gives a gofer of two mounts, sent as a stub sends it: the server's end, and what the others hold. */
function playStub(scratch: string): { stubFd: number; held: number[]; callers: number[] } {
  const [stubFd, stub] = socketPair(SOCK_SEQPACKET);
  const [mounts, sandbox] = socketPair(SOCK_STREAM);
  const [root, rootCaller] = socketPair(SOCK_STREAM);
  const [tmp, tmpCaller] = socketPair(SOCK_STREAM);
  const spec = native.openAt(-1, join(scratch, "config.json"), 0, 0);
  const given: AdoptedFd[] = [
    { role: Role.io, index: 0, sub: 0, fd: root },
    { role: Role.io, index: 1, sub: 0, fd: tmp },
    { role: Role.spec, index: 0, sub: 0, fd: spec },
    { role: Role.mounts, index: 0, sub: 0, fd: mounts },
  ];
  assert(sendAdopt(stub, given) >= 0, "the stub's message is sent");
  for (const { fd } of given) native.closeFd(fd);
  return { stubFd, held: [stub, sandbox], callers: [rootCaller, tmpCaller] };
}

/** Rehearses in `scratch`, a directory that nothing has yet: it is made, and gone at the end. Needs root: an upper is a mount. */
export async function rehearse(
  scratch: string,
  size: Pick<Part, "requests" | "packages" | "modules">,
): Promise<void> {
  mkdirSync(scratch, { mode: 0o700 });
  try {
    const part = { ...size, prefix: PREFIX };
    makeBundle(scratch, { ...part, sockets: [] });
    const { stubFd, held, callers } = playStub(scratch);
    const worker = new Worker(CALLER, { workerData: { ...part, sockets: callers } });
    const ended = once(worker, "exit");
    const words = ["gofer", "--bundle", scratch];
    // Nothing misses, but when somebody takes the files away.
    const settings = { BURROW_STATE: scratch, BURROW_MISS_DEADLINE_MS: "1" };
    serve({ stubFd, words, settings, isRehearsal: true }); // until the caller hangs up
    await ended;
    for (const fd of [stubFd, ...held]) native.closeFd(fd);
    counters.fill(0);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}
