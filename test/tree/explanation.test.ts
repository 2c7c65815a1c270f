// Explained views: what a file has of its own under the names that an explanation makes up is neither told nor listed: whoever packed
// the file could say that it is another's.

import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { Errno } from "../../lib/base/errno.ts";
import type { Name } from "../../lib/base/name.ts";
import { BlobReader } from "../../lib/cache/blocks.ts";
import { CACHE_FOLDERS } from "../../lib/cache/layout.ts";
import { Mailbox } from "../../lib/cache/mailbox.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { Index } from "../../lib/layer/index.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { LocalObjects } from "../../lib/store/objects.ts";
import { Explanation } from "../../lib/tree/explanation.ts";
import { SnapshotTree } from "../../lib/tree/snapshot.ts";
import { Attr, type Ino } from "../../lib/tree/tree.ts";
import { View } from "../../lib/tree/view.ts";

const DIGEST = "ab".repeat(32) as Digest;
const OWN = new Map([
  ["user.burrow.digest", "sha256:another"],
  ["user.burrow.package", "openssl-3.0-0"],
  ["user.burrow.packages", "longer"],
  ["user.mine", "kept"],
]);

test("a file's own attributes never pass for an explanation", async (t) => {
  const cache = mkdtempSync(join(tmpdir(), "burrow-explained-"));
  for (const folder of CACHE_FOLDERS) mkdirSync(join(cache, folder), { recursive: true });
  const objects = LocalObjects.open(join(cache, "blobs"));
  if (typeof objects === "number") throw new Error(`blobs: errno ${-objects}`);
  const common = { mode: 0o644, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0, xattrs: OWN };
  const blob = { digest: DIGEST, size: 1, blocks: [] };
  const index = new Index(
    writeIndex(IndexKind.snapshot, [
      { ...common, path: "", mode: 0o755, type: "directory" },
      { ...common, path: "file", type: "file", blob },
    ]),
  );
  const mailbox = new Mailbox(join(cache, "none.sock"), "none");
  const reader = new BlobReader(0, objects, { partialFd: -1, lazyFd: -1 }, mailbox);
  const tree = new SnapshotTree(0, index, reader);
  t.teardown(() => {
    tree.dispose();
    rmSync(cache, { recursive: true, force: true });
  });
  const out = Buffer.alloc(65_536);
  const seen = (explanation?: Explanation) => {
    const view = View.build(tree, [], new Attr(), explanation) as View;
    const file = view.lookup(view.rootIno, "file" as Name) as Ino;
    const textOf = (ino: Ino, name: string) => {
      const length = view.getxattr(ino, name, out);
      return length < 0 ? length : out.toString("latin1", 0, length);
    };
    const all = (ino: Ino) => {
      const names = out.toString("latin1", 0, view.listxattr(ino, out)).split("\0").slice(0, -1);
      return names.map((name) => [name, textOf(ino, name)]).sort();
    };
    return { file: all(file), root: all(view.rootIno), by: textOf(file, "user.burrow.package") };
  };
  const own = [...OWN].sort();
  t.same(seen(), { file: own, root: own, by: "openssl-3.0-0" }, "not explained, it is data");
  const rest = [
    ["user.burrow.packages", "longer"],
    ["user.mine", "kept"],
  ];
  t.same(seen(new Explanation(new Map())), {
    file: [["user.burrow.bytes", "away"], ["user.burrow.digest", `sha256:${DIGEST}`], ...rest],
    root: rest,
    by: -Errno.ENODATA,
  });
});
