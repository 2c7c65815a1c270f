// Mounts that explain themselves (--explain): explain.json beside a view's mount.json, from which its server knows whose files are, and
// what to show in /.burrow. docs/design/0021-explained-views.md. Control plane.

import { join } from "node:path";
import { showDigest } from "../base/digest.ts";
import {
  EXPLAIN_FILE,
  EXPLAIN_FORMAT,
  type StoredExplanation,
  type StoredOwners,
} from "../gofer/explained.ts";
import { mountDirectory } from "../gofer/mount.ts";
import { plainUrl } from "../ingest/conda/record.ts";
import { Inode } from "../layer/format.ts";
import type { Index } from "../layer/index.ts";
import type { Context } from "./context.ts";
import { type ExplainedPlace, openExplained } from "./explain-view.ts";
import { type ProgressLine, replaceText } from "./output.ts";
import type { Owners } from "./owners.ts";

export const EXPLAIN_OPTION = "--explain";
export const EXPLAIN_HELP =
  "show in the view where it comes from: /.burrow, and attributes user.burrow.* of its files";

/** Has the server of a mount explain its view. What a store can't say of it is told, and left out. */
export async function explainMount(
  context: Context,
  id: string,
  progress: ProgressLine,
): Promise<void> {
  using view = await openExplained(context, id);
  const snapshots: (StoredOwners | null)[] = [];
  const places: unknown[] = [];
  for (const place of view.places) {
    const owners = await view.owners(place);
    snapshots.push(owners === undefined ? null : storedOwners(place.index, owners));
    places.push(placeOf(place, owners));
  }
  for (const note of view.notes) progress.line(note);
  const manifest = { mount: id, cache: context.cache, places };
  const stored: StoredExplanation = { format: EXPLAIN_FORMAT, manifest, snapshots };
  const path = join(mountDirectory(context.state, id), EXPLAIN_FILE);
  replaceText(path, `${JSON.stringify(stored)}\n`);
}

/** A snapshot in manifest.json. */
function placeOf({ at, snapshot, origin, index }: ExplainedPlace, owners: Owners | undefined) {
  const { prefix, python, clobbers } = owners?.environment ?? {};
  const packages = owners?.all.map((owner) => ({ ...owner, layer: showDigest(owner.layer) }));
  const environment = owners === undefined ? null : { prefix, python, packages, clobbers };
  const inodes = index.inodeCount;
  return { at, snapshot: showDigest(snapshot), origin: plainUrl(origin), inodes, environment };
}

/** Whose each inode is: of several names, as the last in the order of the tree says. */
function storedOwners(index: Index, { all, claimsOf }: Owners): StoredOwners {
  const numbers = new Map(all.map((owner, i) => [owner, 1 + i]));
  const byIno = new Uint16Array(1 + index.inodeCount);
  for (const { path, ino } of namesIn(index)) byIno[ino] = numbers.get(claimsOf(path).at(-1)!) ?? 0;
  const runs: number[] = [];
  for (let ino = 1; ino <= index.inodeCount; ) {
    const first = ino;
    while (ino <= index.inodeCount && byIno[ino] === byIno[first]) ino++;
    runs.push(ino - first, byIno[first]!);
  }
  const owners = all.map(({ title, layer }) => ({ title, layer: showDigest(layer) }));
  return { owners, runs };
}

/** Every name with its inode; paths are latin1, below the root. An index that lies makes it end early. */
export function* namesIn(index: Index): Iterable<{ path: string; ino: number }> {
  const left: { path: string; ino: number }[] = [{ path: "", ino: 1 }];
  const entered = new Uint8Array(1 + index.inodeCount);
  while (left.length > 0) {
    const { path, ino } = left.pop()!;
    const row = index.row(ino);
    const first = row < 0 ? row : index.firstDirent(row);
    if (first < 0 || entered[ino] !== 0) continue;
    entered[ino] = 1;
    const end = first + index.field(row, Inode.b);
    for (let dirent = first; dirent < end; dirent++) {
      const child = index.direntIno(dirent);
      const name = index.direntName(dirent);
      if (child < 0 || name === "") return;
      const named = { path: path === "" ? name : `${path}/${name}`, ino: child };
      yield named;
      left.push(named);
    }
  }
}
