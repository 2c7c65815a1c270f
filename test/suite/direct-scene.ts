// A sandbox's end under directfs: a gofer as a runsc that has it on starts one, and what it donates with Mount. Tests only.

import fs from "node:fs";
import type { Test } from "tap";
import { ensureIndex, openCache } from "../../lib/cache/cache.ts";
import { native } from "../../lib/sys/native.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import type { Files, TestNode } from "./daemon-node.ts";
import { type Scene, scene } from "./daemon-scene.ts";
import { GoferProcess } from "./gofer-process.ts";
import { SocketPathway } from "./lisafs-client.ts";
import { pidsOf } from "./processes.ts";

/** Flags of a runsc of 2024 that say nothing of directfs, which is on by default. */
const CONFS = "--gofer-mount-confs=lisafs:none,lisafs:none";
/** The first answer may wait for a server's start. */
const PATIENCE_MS = 60_000;

export interface DirectSandbox {
  readonly gofer: GoferProcess;
  /** The donated roots: paths by which this process works on them as a sandbox would, and that of the tmpfs. */
  readonly root: string;
  readonly tmp: string;
  readonly rootFd: number;
  end(): void;
}

/** Pids of the servers of a state's direct mounts. */
export function directServers(state: string): number[] {
  const name = `${state}/mounts/direct-`;
  return pidsOf((words) => words[0] !== "unshare" && words.some((word) => word.includes(name)));
}

/** A node without a daemon, whose view is prepared as a command would. */
export async function prepared(t: Test, files: Files): Promise<Scene> {
  const made = await scene(t, files);
  await ensureIndex(openCache(made.node.cache), made.server.url, made.published.digest);
  return made;
}

/** The gofer of a sandbox that has a view, by its mount's id, and a tmpfs of 64 KiB, as it starts. Ended with the test. */
export function directGofer(t: Test, node: TestNode, mountId: string): GoferProcess {
  const id = `${mountId}-tmp`;
  fs.mkdirSync(`${node.state}/mounts/${id}`, { recursive: true });
  const upper = { format: 1, kind: "upper", sizeBytes: 65_536, inodes: 16, mode: 0o1777 };
  fs.writeFileSync(`${node.state}/mounts/${id}/mount.json`, JSON.stringify(upper));
  const mounts = [
    { destination: "/", source: `${node.state}/mounts/${mountId}`, isReadOnly: true },
    { destination: "/tmp", source: `${node.state}/mounts/${id}` },
  ];
  const argv = ["--root=/run/runsc", "gofer", CONFS, "--bundle", "/"];
  const env = { BURROW_STATE: node.state };
  const gofer = GoferProcess.start({ mounts, argv, env, isLate: true });
  t.teardown(() => gofer.stop());
  return gofer;
}

/** The same once it serves, and what it gives the sandbox. Its daemon must be another process than this one. */
export function directSandbox(t: Test, node: TestNode, mountId: string): DirectSandbox {
  const gofer = directGofer(t, node, mountId);
  gofer.readMounts();
  const fds: number[] = [];
  const sockets = [0, 1].map((i) => gofer.takeSocket(i));
  const end = () => {
    for (const fd of [...fds.splice(0), ...sockets.splice(0)]) native.closeFd(fd);
  };
  t.teardown(end);
  for (const socket of sockets) {
    const path = new SocketPathway(socket);
    path.timeoutMs = PATIENCE_MS;
    const reply = path.transact(Mid.Mount, 0);
    if (reply.errno !== 0 || reply.fds.length !== 1)
      throw new Error(`Mount: errno ${reply.errno}, ${reply.fds.length} FDs: ${gofer.log}`);
    fds.push(reply.fds[0]!);
  }
  const [root, tmp] = fds.map((fd) => `/proc/self/fd/${fd}`) as [string, string];
  return { gofer, root, tmp, rootFd: fds[0]!, end };
}
