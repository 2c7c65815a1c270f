// DirectNotes: what lies in the state directory of direct mounts: a mount for each, by which its server asks the daemon, this one or the
// next, and whose it is, so that it can be removed when that server has ended. docs/format/mount.md. Control plane.

import { createHash } from "node:crypto";
import fs from "node:fs";
import { join } from "node:path";
import { DIRECT_PREFIX, MOUNT_FORMAT, mountDirectory, readMountLater } from "../gofer/mount.ts";
import { ownerOf, pidOf } from "../sys/owner.ts";
import type { DescribedView } from "./sources.ts";

const OWNER_FILE = "server";
/** What directId() gives: who names a mount of their own "direct-numpy" keeps it. */
const OWN_ID = new RegExp(`^${DIRECT_PREFIX}[0-9a-f]{32}$`);

/** The id of the mount for what a key tells from other views of a cache. */
export function directId(cache: string, key: string): string {
  const hash = createHash("sha256").update(`${cache}\0${key}`).digest("hex");
  return `${DIRECT_PREFIX}${hash.slice(0, 32)}`;
}

export class DirectNotes {
  readonly #cache: string;
  readonly #state: string;
  #sweeping = Promise.resolve();

  constructor({ cache, state }: { readonly cache: string; readonly state: string }) {
    this.#cache = cache;
    this.#state = state;
  }

  /**
   * Writes the mount, which appears whole. Its asks are no start's. Whose it is must be known to isKnown() of each sweep by now: one that
   * is under way, which may have found what an earlier server left of it, ends first. Rejects with the system's errors.
   */
  async describe(id: string, { tenant, snapshots, places }: DescribedView): Promise<void> {
    await this.#sweeping;
    const folder = mountDirectory(this.#state, id);
    const [base, ...grafts] = snapshots.map(({ snapshot, origin }, i) => ({
      at: places[i],
      snapshot: `sha256:${snapshot}`,
      origin,
    }));
    const whose = tenant === "" ? {} : { tenant };
    const cache = this.#cache;
    const view = { format: MOUNT_FORMAT, kind: "view", cache, ...whose, profile: "off" };
    await fs.promises.mkdir(folder, { recursive: true, mode: 0o755 });
    const aside = join(folder, "mount.json.new");
    await fs.promises.writeFile(aside, `${JSON.stringify({ ...view, base, grafts }, null, 2)}\n`);
    await fs.promises.rename(aside, join(folder, "mount.json"));
  }

  /**
   * Says whose it is, too: a process's, whose end is its server's. Of one view that of an earlier daemon may serve on beside this one's.
   * Without that it is removed sooner than it need be.
   */
  claim(id: string, pid: number): void {
    const path = join(mountDirectory(this.#state, id), OWNER_FILE);
    fs.promises.appendFile(path, `${ownerOf(pid)}\n`).catch(() => undefined);
  }

  /** Removes those of this cache that nobody knows and whose servers have all ended. Never rejects. */
  sweep(isKnown: (id: string) => boolean): Promise<void> {
    this.#sweeping = this.#sweeping.then(() => this.#sweepNow(isKnown));
    return this.#sweeping;
  }

  async #sweepNow(isKnown: (id: string) => boolean): Promise<void> {
    const folder = join(this.#state, "mounts");
    const names = await fs.promises.readdir(folder).catch(() => []);
    for (const id of names.filter((name) => OWN_ID.test(name))) {
      const mount = await readMountLater(this.#state, id).catch(() => undefined);
      if (mount?.kind !== "view" || mount.cache !== this.#cache) continue;
      const path = join(folder, id, OWNER_FILE);
      const owners = await fs.promises.readFile(path, "latin1").catch(() => "");
      const isServed = owners.split("\n").some((owner) => pidOf(owner) !== undefined);
      if (isServed || isKnown(id)) continue;
      await fs.promises.rm(join(folder, id), { recursive: true, force: true }).catch(() => {});
    }
  }
}
