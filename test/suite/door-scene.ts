// DoorScene: one tree behind several doors: a directory of this machine, which is what the others are compared with; a gofer; a 9P
// server; and whatever further kernel's mount a test adds by its path. Tests only.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, linkSync, lutimesSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Digest } from "../../lib/base/digest.ts";
import { BLOCK_DIGESTS_OVER_BYTES } from "../../lib/base/limits.ts";
import { CACHE_FOLDERS } from "../../lib/cache/layout.ts";
import { putSealed } from "../../lib/cache/seal.ts";
import { openTree } from "../../lib/gofer/trees.ts";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { blockDigests } from "../../lib/store/blocks.ts";
import { hostFs } from "../../lib/sys/hostfs.ts";
import { native } from "../../lib/sys/native.ts";
import { NO_SPECIAL_FILES } from "../../lib/tree/host-special.ts";
import type { Door } from "./door.ts";
import { LisafsDoor } from "./door-lisafs.ts";
import { NinepDoor } from "./door-ninep.ts";
import { PathDoor } from "./door-path.ts";
import { writeMount } from "./gofer-process.ts";
import { LisafsClient } from "./lisafs-client.ts";
import { NinepScene } from "./ninep-scene.ts";
import { startGofer, type Teardown, temporary } from "./served.ts";

/** What a scene's tree has, by latin1 path; directories before what is in them. */
export interface DoorEntry {
  readonly type: "file" | "directory" | "symlink" | "link" | "fifo";
  readonly path: string;
  readonly mode?: number;
  readonly content?: Buffer;
  /** Of a symlink its text, of a link the file's path. */
  readonly target?: string;
  readonly xattrs?: ReadonlyMap<string, string>;
}

const MTIME_SEC = 1_600_000_000;
const UPPER = { sizeBytes: 256 << 20, inodes: 60_000 };

export interface DoorScene {
  /** The first is what the others are compared with. */
  readonly doors: readonly Door[];
  /** BURROW_STATE of one more door, and its mount's source: for a mount of the same tree. */
  more(): { readonly state: string; readonly source: string };
}

/**
 * Has the tree behind each door, from which on each is its own. `isWritable` wants root. `finish` gets the folder of each mount before it is
 * served.
 */
export function openDoors(
  t: Teardown,
  entries: readonly DoorEntry[],
  isWritable: boolean,
  finish: (source: string) => void = () => {},
): DoorScene {
  const more = () => {
    const state = temporary(t);
    const source = makeMount(state, entries, isWritable);
    finish(source);
    return { state, source };
  };
  const local = temporary(t);
  populate(local, entries);
  const isReadOnly = !isWritable;
  const doors: readonly Door[] = [
    new PathDoor("local", local, { isReadOnly }),
    lisafsDoor(t, more(), isReadOnly),
    ninepDoor(t, more(), isReadOnly),
  ];
  t.teardown(() => {
    for (const door of doors) door.dispose();
  });
  return { doors, more };
}

function lisafsDoor(
  t: Teardown,
  { state, source }: { state: string; source: string },
  isReadOnly: boolean,
): Door {
  const gofer = startGofer(t, [{ destination: "/", source, isReadOnly }], { BURROW_STATE: state });
  const client = LisafsClient.mount(gofer.takeSocket(0), 1);
  t.teardown(() => client.close());
  return new LisafsDoor("LISAFS", client);
}

function ninepDoor(
  t: Teardown,
  { state, source }: { state: string; source: string },
  isReadOnly: boolean,
): Door {
  const scene = new NinepScene(t);
  const { tree } = openTree({ destination: "/", source, isReadOnly }, state, NO_SPECIAL_FILES);
  scene.add("doors", tree);
  const { client, root } = scene.client("doors", 65_536);
  return new NinepDoor("9P", client, root);
}

/** The tree as files of this machine. */
function populate(directory: string, entries: readonly DoorEntry[]): void {
  const at = (path: string) => Buffer.from(`${directory}/${path}`, "latin1");
  const fifos = entries
    .filter(({ type }) => type === "fifo")
    .map(({ path }) => join(directory, path));
  for (const { type, path, content, target } of entries) {
    if (type === "directory") mkdirSync(at(path));
    else if (type === "file") writeFileSync(at(path), content ?? "");
    else if (type === "symlink") symlinkSync(Buffer.from(target!, "latin1"), at(path));
    else if (type === "link") linkSync(at(target!), at(path));
  }
  if (fifos.length > 0) execFileSync("mkfifo", fifos);
  for (const entry of entries.toReversed()) {
    const { type, path, xattrs = new Map<string, string>() } = entry;
    if (type !== "symlink" && type !== "link") chmodSync(at(path), modeOf(entry));
    const fd = xattrs.size > 0 ? native.openAt(-1, join(directory, path), 0, 0) : -1;
    for (const [name, value] of xattrs) {
      const failed = hostFs.setXattr(fd, name, Buffer.from(value, "latin1"), 0);
      if (failed < 0) throw new Error(`xattr: ${failed}`);
    }
    if (fd >= 0) native.closeFd(fd);
    lutimesSync(at(path), MTIME_SEC, MTIME_SEC);
  }
  lutimesSync(directory, MTIME_SEC, MTIME_SEC);
  chmodSync(directory, 0o755);
}

/** The tree as a snapshot in a cache of its own, and a mount over it. */
function makeMount(state: string, entries: readonly DoorEntry[], isWritable: boolean): string {
  const cache = join(state, "cache");
  for (const folder of CACHE_FOLDERS) mkdirSync(join(cache, folder), { recursive: true });
  const blobs = new Set<string>();
  for (const { content } of entries) {
    const digest = content && sha256(content);
    if (digest === undefined || blobs.has(digest)) continue;
    blobs.add(digest);
    putSealed(cache, "blobs", content!);
  }
  const root: LayerEntry = { ...COMMON, path: "", mode: 0o755, type: "directory" };
  const made = [root, ...entries.map((entry) => entryOf(entry, entries))];
  const snapshot = putSealed(cache, "indexes", writeIndex(IndexKind.snapshot, made));
  const base = { snapshot, origin: join(state, "store") };
  const upper = isWritable ? { upper: UPPER } : {};
  return writeMount(state, "view", { kind: "view", cache, base, grafts: [], ...upper });
}

const COMMON = {
  uid: process.getuid!(),
  gid: process.getgid!(),
  mtimeSec: MTIME_SEC,
  mtimeNs: 0,
};

function modeOf({ type, mode }: DoorEntry): number {
  return mode ?? (type === "directory" ? 0o755 : 0o644);
}

function sha256(bytes: Buffer): Digest {
  return createHash("sha256").update(bytes).digest("hex") as Digest;
}

function entryOf(entry: DoorEntry, all: readonly DoorEntry[]): LayerEntry {
  const { path, xattrs } = entry;
  const common = { ...COMMON, path, ...(xattrs === undefined ? {} : { xattrs }) };
  if (entry.type === "symlink")
    return { ...common, mode: 0o777, type: "symlink", target: entry.target! };
  if (entry.type === "directory" || entry.type === "fifo")
    return { ...common, mode: modeOf(entry), type: entry.type };
  const file = entry.type === "link" ? all.find((one) => one.path === entry.target)! : entry;
  const bytes = file.content ?? Buffer.alloc(0);
  const blocks = bytes.length > BLOCK_DIGESTS_OVER_BYTES ? blockDigests(bytes) : [];
  const blob = { digest: sha256(bytes), size: bytes.length, blocks };
  const shared = file.xattrs === undefined ? {} : { xattrs: file.xattrs };
  return { ...common, ...shared, mode: modeOf(file), type: "file", blob, linkGroup: file.path };
}
