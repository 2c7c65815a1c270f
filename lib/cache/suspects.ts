// Suspects: blobs of an earlier boot, which are hashed before they are used. They are moved there by whole shards, so that a start takes
// no longer with millions of them; a shard that meets older suspects waits beside them, and joins them in the background. Control plane.

import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { errnoOf } from "../store/node-error.ts";
import { Calls } from "../sys/calls.ts";
import type { Disk } from "./disk.ts";
import { BATCH_FILES, namesIn } from "./names.ts";

/** suspect/ab.<nonce>: a shard that waits. */
const WAITING = /^([0-9a-f]{2})\.[0-9a-f]+$/;

/** Makes a shard of blobs/ suspect, by one rename. */
export function suspectShard(root: string, shard: string): void {
  const source = `${root}/blobs/${shard}`;
  const target = `${root}/suspect/${shard}`;
  try {
    fs.renameSync(source, target);
  } catch (error) {
    const { code } = errnoOf(error);
    // Whatever it is that stands there and is no folder, it is no suspect.
    if (code === "ENOTDIR") fs.unlinkSync(target);
    else if (code !== "ENOTEMPTY" && code !== "EEXIST") throw error;
    fs.renameSync(
      source,
      code === "ENOTDIR" ? target : `${target}.${randomBytes(8).toString("hex")}`,
    );
  }
}

/** Has shards that wait join the others. What of them is asked for before is fetched. Never rejects; ends early when `isStopped`. */
export async function joinSuspects(
  { root, disk }: { readonly root: string; readonly disk: Disk },
  isStopped: () => boolean,
): Promise<void> {
  for (const name of await allIn(disk, `${root}/suspect`).catch(() => [])) {
    const shard = WAITING.exec(name)?.[1];
    if (shard === undefined) continue;
    const folder = `${root}/suspect/${name}`;
    const target = `${root}/suspect/${shard}`;
    try {
      const files = await allIn(disk, folder);
      await disk.run("walk", () => fs.promises.mkdir(target, { recursive: true, mode: 0o755 }));
      for (let at = 0; at < files.length; at += BATCH_FILES) {
        if (isStopped()) return;
        const calls = new Calls();
        for (const file of files.slice(at, at + BATCH_FILES))
          calls.rename(`${folder}/${file}`, `${target}/${file}`);
        await disk.calls("walk", calls, "can't move suspects", folder);
      }
      await disk.run("walk", () => fs.promises.rmdir(folder));
    } catch {
      // It waits for the next start.
    }
  }
}

async function allIn(disk: Disk, folder: string): Promise<string[]> {
  const all: string[] = [];
  for await (const names of namesIn(disk, folder)) all.push(...names);
  return all;
}
