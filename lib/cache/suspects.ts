// Suspects: blobs of an earlier boot, which are hashed before they are used. They are moved there by whole shards, so that a start takes
// no longer with millions of them; a shard that meets older suspects waits beside them, and joins them in the background. Control plane.

import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { errnoOf } from "../store/node-error.ts";
import { Turns } from "./turns.ts";

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
export async function joinSuspects(root: string, isStopped: () => boolean): Promise<void> {
  for (const name of namesIn(`${root}/suspect`)) {
    const shard = WAITING.exec(name)?.[1];
    if (shard === undefined) continue;
    const folder = `${root}/suspect/${name}`;
    try {
      const files = await fs.promises.readdir(folder);
      const turns = new Turns();
      for (const file of files) {
        if (turns.isOver) await turns.next();
        if (isStopped()) return;
        fs.mkdirSync(`${root}/suspect/${shard}`, { recursive: true, mode: 0o755 });
        fs.renameSync(`${folder}/${file}`, `${root}/suspect/${shard}/${file}`);
      }
      fs.rmdirSync(folder);
    } catch {
      // It waits for the next start.
    }
  }
}

function namesIn(folder: string): string[] {
  try {
    return fs.readdirSync(folder);
  } catch {
    return [];
  }
}
