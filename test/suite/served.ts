// Served: a gofer with trees of a kind, a client on it, and everything gone when the test ends. Tests only.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ensureIndex, openCache } from "../../lib/cache/cache.ts";
import { readMount } from "../../lib/gofer/mount.ts";
import type { TestNode } from "./daemon-node.ts";
import { type GoferMount, type GoferOptions, GoferProcess, writeMount } from "./gofer-process.ts";
import { LisafsClient } from "./lisafs-client.ts";
import { type Files, makeView } from "./view-cache.ts";

/** AddressSanitizer keeps freed memory aside: RSS says nothing then. */
export const isSanitized = process.env["BURROW_ADDON"] !== undefined;

/** Why a test with an upper can't run here, or false: its tmpfs is a mount (docs/design/0002-upper-on-tmpfs.md). */
export const noUpper: string | false =
  process.getuid?.() === 0 ? false : "an upper is a mount of its own: needs root";

/** The part of tap's Test that fixtures need. */
export interface Teardown {
  teardown(action: () => void | Promise<void>): void;
}

export interface Served {
  readonly gofer: GoferProcess;
  readonly client: LisafsClient;
  /** A directory of the test's own, which is served when the tree is a host directory. */
  readonly directory: string;
}

export interface ServeOptions {
  readonly channels?: number;
  readonly env?: Record<string, string>;
  readonly isReadOnly?: boolean;
  /** Of an upper. */
  readonly inodes?: number;
}

/** A temporary directory that goes with the test. */
export function temporary(t: Teardown): string {
  const directory = mkdtempSync(join(tmpdir(), "burrow-test-"));
  t.teardown(() => {
    rmSync(directory, { recursive: true, force: true });
  });
  return directory;
}

/** Starts a gofer over mounts; when the test ends it must exit 0 and have written to none of FDs 0 to 2. */
export function startGofer(
  t: Teardown,
  mounts: readonly GoferMount[],
  env: Record<string, string> = {},
  limits: Pick<GoferOptions, "openFiles"> = {},
): GoferProcess {
  const gofer = GoferProcess.start({ mounts, env, ...limits });
  t.teardown(async () => {
    const { log } = gofer;
    const code = await gofer.stop();
    if (code !== 0) throw new Error(`the gofer ended with ${code}: ${log}`);
    if (gofer.output !== "") throw new Error(`the gofer wrote to FDs 0 to 2: ${gofer.output}`);
    if (log.includes("bug in")) throw new Error(log);
  });
  return gofer;
}

function connect(t: Teardown, gofer: GoferProcess, channels: number): LisafsClient {
  const client = LisafsClient.mount(gofer.takeSocket(0), channels);
  t.teardown(() => {
    client.close();
  });
  return client;
}

/** A host directory, read-only; `build` fills it first. */
export function serveHost(
  t: Teardown,
  build: (directory: string) => void = () => {},
  options: ServeOptions = {},
): Served {
  const directory = temporary(t);
  build(directory);
  const mounts = [{ destination: "/", source: directory, isReadOnly: options.isReadOnly ?? true }];
  const gofer = startGofer(t, mounts, options.env);
  return { gofer, client: connect(t, gofer, options.channels ?? 1), directory };
}

/** An upper: an empty tmpfs of 64 MiB and, unless told otherwise, 4,096 inodes. */
export function serveUpper(t: Teardown, options: ServeOptions = {}): Served {
  const directory = temporary(t);
  const limits = { sizeBytes: 64 * 1024 * 1024, inodes: options.inodes ?? 4096, mode: 0o755 };
  const source = writeMount(directory, "upper", { kind: "upper", ...limits });
  const mounts = [{ destination: "/", source, isReadOnly: options.isReadOnly ?? false }];
  const gofer = startGofer(t, mounts, { BURROW_STATE: directory, ...options.env });
  return { gofer, client: connect(t, gofer, options.channels ?? 1), directory };
}

/** A view of one snapshot whose blobs, but for those of the paths in `missing`, are in the cache. No daemon. */
export function serveView(
  t: Teardown,
  files: Files,
  missing: readonly string[] = [],
  options: ServeOptions = {},
): Served {
  const directory = temporary(t);
  const source = makeView(directory, files, missing);
  const mounts = [{ destination: "/", source, isReadOnly: true }];
  const gofer = startGofer(t, mounts, { BURROW_STATE: directory, ...options.env });
  return { gofer, client: connect(t, gofer, options.channels ?? 1), directory };
}

/** A mount of a node as the CLI leaves it, its indexes in the cache. The daemon is the node's to start. */
export async function serveMount(
  t: Teardown,
  node: TestNode,
  mountId: string,
  options: ServeOptions = {},
): Promise<Pick<Served, "gofer" | "client">> {
  const mount = readMount(node.state, mountId);
  if (mount.kind !== "view") throw new Error("no view");
  const cache = openCache(node.cache);
  for (const { origin, snapshot } of [mount.base, ...mount.grafts]) {
    await ensureIndex(cache, origin, snapshot);
  }
  const source = join(node.state, "mounts", mountId);
  const mounts = [{ destination: "/", source, isReadOnly: true }];
  const gofer = startGofer(t, mounts, { BURROW_STATE: node.state, ...options.env });
  return { gofer, client: connect(t, gofer, options.channels ?? 1) };
}

/** Runs `each` with calls over the socket, then over the first channel. */
export function onBothPathways(client: LisafsClient, each: (pathway: string) => void): void {
  for (const pathway of [client.socket, client.channels[0]!]) {
    client.pathway = pathway;
    each(pathway.name);
  }
}
