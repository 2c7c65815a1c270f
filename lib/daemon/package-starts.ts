// Package starts: which packages of a snapshot a start has come to, by what it asks for and isn't here: what others read of one is fetched as soon
// as the first of it is asked for (docs/design/0027-learned-starts.md). Control plane.

import type { PackageAsks } from "../preload/profile.ts";

export class PackageStarts {
  readonly #begin: (each: PackageAsks) => void;
  readonly #begun = new Set<PackageAsks>();
  /** What was asked for before anything was known: rows of the snapshot. */
  #asked: Set<number> | undefined = new Set();
  #byRow: ReadonlyMap<number, readonly PackageAsks[]> = new Map();

  /** `begin` is called once for each package that the start comes to. */
  constructor(begin: (each: PackageAsks) => void) {
    this.#begin = begin;
  }

  /** What others read of packages has come to be known. */
  know(packages: readonly PackageAsks[]): void {
    if (packages.length === 0) return;
    const byRow = new Map<number, PackageAsks[]>();
    for (const each of packages)
      for (const { row } of each.asks) {
        const some = byRow.get(row);
        if (some === undefined) byRow.set(row, [each]);
        else if (some.at(-1) !== each) some.push(each);
      }
    this.#byRow = byRow;
    const asked = this.#asked ?? [];
    this.#asked = undefined;
    for (const row of asked) this.ask(row);
  }

  /** The start needs a row that isn't here. */
  ask(row: number): void {
    this.#asked?.add(row);
    for (const each of this.#byRow.get(row) ?? []) {
      if (this.#begun.has(each)) continue;
      this.#begun.add(each);
      this.#begin(each);
    }
  }
}
