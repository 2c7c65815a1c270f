// A view that is explained, through every door: /.burrow and the attributes that are made up, of a read-only view and under an overlay;
// and none of it where it wasn't asked for.

import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Test, test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { EXPLAIN_FILE } from "../../lib/gofer/explained.ts";
import { type Door, O_RDONLY, O_WRONLY, type Path } from "../suite/door.ts";
import { type DoorEntry, openDoors } from "../suite/door-scene.ts";
import { noUpper } from "../suite/served.ts";

const CONTENT = Buffer.from("of a package");
/** In the order of their inodes: the root is 1. */
const TREE: readonly DoorEntry[] = [
  { type: "directory", path: "d" },
  { type: "file", path: "owned", content: CONTENT, xattrs: new Map([["user.own", "kept"]]) },
  { type: "file", path: "unowned", content: Buffer.from("of nobody") },
  { type: "symlink", path: "z", target: "owned" },
];
const LAYER = `sha256:${"1".repeat(64)}`;
const MANIFEST = { mount: "view", places: [] };
const EXPLANATION = {
  format: 1,
  manifest: MANIFEST,
  snapshots: [{ owners: [{ title: "demo-1.0-0", layer: LAYER }], runs: [2, 0, 1, 1, 2, 0] }],
};
const DIGEST = `sha256:${createHash("sha256").update(CONTENT).digest("hex")}`;
const MADE_UP = ["user.burrow.bytes", "user.burrow.digest"];

function explain(source: string): void {
  writeFileSync(join(source, EXPLAIN_FILE), JSON.stringify(EXPLANATION));
}

function contentOf(door: Door, path: Path): string {
  const handle = door.open(path, O_RDONLY);
  if (handle < 0) throw new Error(`${path.join("/")}: ${handle}`);
  const bytes = door.read(handle, 0, 1 << 20);
  door.close(handle);
  return bytes.toString();
}

function names(door: Door, path: Path): string[] | number {
  const found = door.list(path);
  return typeof found === "number" ? found : found.map(({ name }) => name).sort();
}

/** What a door shows of an explained view that nobody has changed. */
function shows(t: Test, door: Door): void {
  t.same(names(door, []), [".burrow", "d", "owned", "unowned", "z"], door.name);
  t.same(names(door, [".burrow"]), ["counters.json", "manifest.json"]);
  t.match(door.stat([".burrow"]), { type: "directory", mode: 0o555 });
  const manifest = contentOf(door, [".burrow", "manifest.json"]);
  t.same(JSON.parse(manifest), MANIFEST);
  t.match(door.stat([".burrow", "manifest.json"]), {
    type: "file",
    mode: 0o444,
    size: manifest.length,
  });
  const counters = contentOf(door, [".burrow", "counters.json"]);
  t.equal(counters.length, 4096, "as much as stat said");
  t.match(JSON.parse(counters), { others: { connections: Number } });
  const names4 = [...MADE_UP, "user.burrow.layer", "user.burrow.package", "user.own"];
  t.same([...(door.listXattrs(["owned"]) as string[])].sort(), names4);
  const get = (name: string, path = "owned") => door.getXattr([path], `user.${name}`);
  t.equal(get("own"), "kept");
  t.equal(get("burrow.package"), "demo-1.0-0");
  t.equal(get("burrow.layer"), LAYER);
  t.equal(get("burrow.digest"), DIGEST);
  t.equal(get("burrow.bytes"), "here");
  t.same([...(door.listXattrs(["unowned"]) as string[])].sort(), MADE_UP);
  t.equal(get("burrow.package", "unowned"), -Errno.ENODATA);
  t.equal(get("burrow.digest", "d"), -Errno.ENODATA, "a directory has none");
  t.same(door.listXattrs(["d"]), []);
  t.equal(door.stat([".burrow", "none"]), -Errno.ENOENT);
  t.equal(door.stat([".burrow", "manifest.json", "x"]), -Errno.ENOTDIR);
}

test("a read-only view shows where it comes from, when that was asked for", (t) => {
  const [, ...doors] = openDoors(t, TREE, false, explain).doors;
  for (const door of doors) {
    shows(t, door);
    t.equal(door.open([".burrow", "manifest.json"], O_WRONLY), -Errno.EROFS);
    t.equal(door.unlink([".burrow", "manifest.json"]), -Errno.EROFS);
  }
  t.end();
});

test("under an overlay it is the same, and what was changed is explained no more", {
  skip: noUpper,
}, (t) => {
  const [, ...doors] = openDoors(t, TREE, true, explain).doors;
  for (const door of doors) {
    shows(t, door);
    t.equal(door.change(["owned"], { mode: 0o600 }), 0);
    t.same(door.listXattrs(["owned"]), ["user.own"], "a copy takes along what the file has itself");
    t.equal(contentOf(door, ["owned"]), CONTENT.toString());
    t.equal(door.getXattr(["unowned"], "user.burrow.bytes"), "here");
  }
  t.end();
});

test("nothing of it is there else", (t) => {
  const [, ...doors] = openDoors(t, TREE, false).doors;
  for (const door of doors) {
    t.same(names(door, []), ["d", "owned", "unowned", "z"]);
    t.equal(door.stat([".burrow"]), -Errno.ENOENT);
    t.same(door.listXattrs(["owned"]), ["user.own"]);
    t.equal(door.getXattr(["owned"], "user.burrow.digest"), -Errno.ENODATA);
  }
  t.end();
});
