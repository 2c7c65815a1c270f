// What it costs a gofer to note what is read first (docs/design/0023-touches.md), beside the open of a file that is here: a bit of a row
// at each open, five words and the clock at the first of a file.
//
// Expected: an open by digest with its seal's check and the close are three system calls, some 5 us; a bit some nanoseconds, below a
// thousandth of that; a first touch some 50 ns, most of it the clock.

import { TouchedRows, TouchTable } from "../../lib/cache/touches.ts";
import { native } from "../../lib/sys/native.ts";
import type { Ino, OpenResult } from "../../lib/tree/tree.ts";
import { snapshotOf } from "../../test/suite/snapshot-fixture.ts";
import type { FixtureEntry } from "../../test/suite/tree-fixture.ts";
import type { Bench } from "../run.ts";
import { median } from "../samples.ts";

const FILES = 1_000;
const ROUNDS = 40;

/** CPU time of this process for one of `count`, in nanoseconds. */
function cpuNs(count: number, work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return ((user + system) * 1_000) / count;
}

export const bench: Bench = async (emit, { isQuick }) => {
  const rounds = isQuick ? 2 : ROUNDS;
  const files = Array.from({ length: FILES }, (_, i): FixtureEntry => {
    return { path: `f${i}`, type: "file", content: `content ${i}` };
  });
  const fixture = snapshotOf([{ path: "", type: "directory" }, ...files]);
  const { tree } = fixture;
  const inos = files.map(({ path }) => tree.lookup(tree.rootIno, path as never) as Ino);
  const out: OpenResult = { handle: 0, hostFd: -1, ownsFd: false };
  const opens: number[] = [];
  const seen: number[] = [];
  const firsts: number[] = [];
  const rows = new TouchedRows();
  for (let row = 0; row < FILES; row++) rows.isFirst(row);
  for (let round = 0; round < rounds; round++) {
    opens.push(
      cpuNs(10 * FILES, () => {
        for (let again = 0; again < 10; again++)
          for (const ino of inos) {
            tree.open(ino, 0, out);
            native.closeFd(out.hostFd);
          }
      }),
    );
    seen.push(
      cpuNs(1_000 * FILES, () => {
        let sum = 0;
        for (let again = 0; again < 1_000; again++)
          for (let row = 0; row < FILES; row++) sum += Number(rows.isFirst(row));
        if (sum > 0) throw new Error("all were touched");
      }),
    );
    firsts.push(
      cpuNs(100 * FILES, () => {
        for (let again = 0; again < 100; again++) {
          const fresh = new TouchedRows();
          const table = new TouchTable();
          for (let row = 0; row < FILES; row++) {
            if (fresh.isFirst(row)) table.add(0, row, 0, 0, true);
            if (table.isFull) table.clear();
          }
        }
      }),
    );
  }
  tree.dispose();
  fixture.dispose();
  const [openNs, seenNs, firstNs] = [opens, seen, firsts].map(median) as [number, number, number];
  const share = (ns: number) => Math.round((10_000 * ns) / openNs) / 100;
  emit({
    openNs: Math.round(openNs),
    seenNs: Math.round(10 * seenNs) / 10,
    firstNs: Math.round(10 * firstNs) / 10,
    seenPercent: share(seenNs),
    firstPercent: share(firstNs),
  });
};
