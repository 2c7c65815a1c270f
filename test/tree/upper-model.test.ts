// The query's tmpfs against Linux's own: test/suite/linux-model.ts. Control plane.

import t from "tap";
import { type Modelled, modelSuite, noModel } from "../suite/linux-model.ts";
import { noTmpfs, PrivateTmpfs } from "../suite/private-tmpfs.ts";
import { type FixtureEntry, populateTree } from "../suite/tree-fixture.ts";

const UPPER = { sizeBytes: 16 * 1024 * 1024, inodes: 4096, mode: 0o755 };
/** Most operations meet something. */
const FIXTURE: readonly FixtureEntry[] = [
  { path: "a", type: "directory" },
  { path: "b", type: "directory", mode: 0o1777 },
  { path: "a/b", type: "directory", mode: 0o700 },
  { path: "a/a", type: "file", content: Buffer.alloc(5000, "a") },
  { path: "b/a", type: "file", content: "b", mode: 0o4755 },
];

function make(): Modelled {
  const tmpfs = new PrivateTmpfs(UPPER);
  populateTree(tmpfs.open(), FIXTURE);
  const open = () => tmpfs.open();
  return { open, fixture: FIXTURE, isOverlay: false, dispose: () => tmpfs.dispose() };
}

const skip = noModel() ?? noTmpfs() ?? false;

t.test("any sequence of operations does what Linux's tmpfs does", { skip }, (t) => {
  modelSuite(t, 1000, make);
  t.end();
});
