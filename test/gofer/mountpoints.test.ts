// Mountpoints of files that aren't there: what is made of them in a directory of the host, in a tmpfs and in a view, and for which
// revisions of runsc. docs/protocol/launch.md.

import * as fs from "node:fs";
import { join } from "node:path";
import { test } from "tap";
import { type GoferMount, GoferProcess, writeMount } from "../suite/gofer-process.ts";
import { list, open, read, stat, walkTo } from "../suite/lisafs-calls.ts";
import { LisafsClient } from "../suite/lisafs-client.ts";
import { noUpper, type Teardown, temporary } from "../suite/served.ts";
import { makeView } from "../suite/view-cache.ts";

const NEWER = ["gofer", "--rpc-fd=7", "--bundle", "/"];
const DT_REG = 8;

/** A gofer of a newer revision whose mounts are these; `env` for mounts of Burrow's. */
function start(t: Teardown, mounts: readonly GoferMount[], state = "", argv = NEWER): GoferProcess {
  const gofer = GoferProcess.start({ mounts, argv, env: { BURROW_STATE: state } });
  t.teardown(async () => {
    const code = await gofer.stop();
    if (code !== 0 || gofer.log.includes("bug in")) throw new Error(`${code}: ${gofer.log}`);
  });
  return gofer;
}

/** A directory with a file, for the bind mounts. */
function sources(t: Teardown): { folder: string; file: string } {
  const folder = temporary(t);
  const file = join(folder, "file");
  fs.writeFileSync(file, "bound\n");
  return { folder, file };
}

function treeOf(directory: string): string[] {
  const names = fs.readdirSync(directory, { recursive: true, encoding: "utf8" }).sort();
  return names.map((name) => `${name} ${fs.lstatSync(join(directory, name)).mode.toString(8)}`);
}

test("what a file is mounted on is made in the host's directory, as runsc makes it", async (t) => {
  const [root, outside, data] = [temporary(t), temporary(t), temporary(t)];
  const { folder, file } = sources(t);
  fs.mkdirSync(join(root, "real"));
  fs.writeFileSync(join(root, "here"), "stays\n");
  fs.writeFileSync(join(root, "blocked"), "");
  fs.symlinkSync("/real", join(root, "inside"));
  fs.symlinkSync(outside, join(root, "escape"));
  fs.symlinkSync(`../../../../../..${outside}/up`, join(root, "up"));
  const mounts = [
    { destination: "/", source: root, isReadOnly: true },
    ...["/one", "/a/b/c", "/here", "/inside/x", "/blocked/below", "/data/ro", "/run/in"].map(
      (destination) => ({ destination, source: file }),
    ),
    { destination: "/escape/x", source: file },
    { destination: "/up", source: file },
    { destination: "/directory", source: folder },
    { destination: "/data", source: data, isReadOnly: true },
  ];
  const gofer = GoferProcess.start({
    mounts,
    argv: NEWER,
    spec: (spec) => (spec["mounts"] as unknown[]).push({ destination: "/run", type: "tmpfs" }),
  });
  t.same(treeOf(data), ["ro 100755"], "in the mount that is over it, which is read-only, too");
  t.same(fs.readdirSync(outside), [], "nothing outside of the root");
  t.equal(fs.readFileSync(join(root, "here"), "utf8"), "stays\n");
  const inside = outside.slice(1);
  const made = [
    `${inside}/up 100755`,
    `${inside}/x 100755`,
    "a/b 40755",
    "a/b/c 100755",
    "one 100755",
  ];
  for (const line of [...made, "real/x 100755"]) t.ok(treeOf(root).includes(line), line);
  for (const name of ["directory", "run", "data"])
    t.notOk(fs.existsSync(join(root, name)), `${name} is the sandbox's own`);
  t.match(gofer.log, /can't make the mountpoint \/blocked\/below in .*: ENOTDIR/);
  t.equal(await gofer.stop(), 0);
});

test("nothing is made for revisions that make up directories", async (t) => {
  const root = temporary(t);
  const mounts = [
    { destination: "/", source: root },
    { destination: "/one", source: sources(t).file },
  ];
  const confs = "--gofer-mount-confs=lisafs:none,lisafs:none";
  start(t, mounts, "", ["--directfs=false", "gofer", confs, "--bundle", "/"]);
  t.same(fs.readdirSync(root), []);
});

test("in a tmpfs it is made, too", { skip: noUpper }, (t) => {
  const state = temporary(t);
  const limits = { sizeBytes: 1024 * 1024, inodes: 100, mode: 0o1777 };
  const upper = writeMount(state, "upper", { kind: "upper", ...limits });
  const mounts = [
    { destination: "/", source: temporary(t) },
    { destination: "/tmp", source: upper },
    { destination: "/tmp/a/b", source: sources(t).file },
  ];
  const client = LisafsClient.mount(start(t, mounts, state).takeSocket(1));
  t.equal(stat(client, walkTo(client, "/a/b")).mode, 0o100755);
  client.close();
  t.end();
});

for (const upper of [undefined, { sizeBytes: 1024 * 1024, inodes: 100 }]) {
  const kind = upper === undefined ? "a view" : "a writable view";
  test(`${kind} makes it up`, {
    skip: upper !== undefined && noUpper,
  }, (t) => {
    const state = temporary(t);
    const files = { "": "/", etc: "/", "etc/here": "stays", file: "x", link: "-> /etc/linked" };
    const source = makeView(state, files);
    const path = join(source, "mount.json");
    const mount = JSON.parse(fs.readFileSync(path, "utf8")) as object;
    fs.writeFileSync(path, JSON.stringify({ ...mount, upper }));
    const { file } = sources(t);
    const mounts = [
      { destination: "/", source, isReadOnly: upper === undefined },
      ...["/etc/hosts", "/etc/here", "/link", "/new/deep", "/file/x"].map((destination) => {
        return { destination, source: file };
      }),
    ];
    const numbers = Array.from({ length: upper === undefined ? 2 : 1 }, () => {
      const client = LisafsClient.mount(start(t, mounts, state).takeSocket(0));
      const at = (name: string) => walkTo(client, name);
      const etc = list(client, open(client, at("/etc")).fd);
      const types = etc
        .filter(({ name }) => !name.startsWith("."))
        .map(({ name, type }) => [name, type]);
      t.same(types.sort(), [
        ["here", DT_REG],
        ["hosts", DT_REG],
        ["linked", DT_REG],
      ]);
      t.equal(stat(client, at("/etc/here")).size, 5, "what is there stays");
      t.match(stat(client, at("/etc/hosts")), { mode: 0o100644, size: 0, blocks: 0, nlink: 1 });
      const { fd } = open(client, at("/etc/hosts"));
      t.equal(read(client, fd, 0, 100).length, 0);
      t.equal(
        list(client, open(client, at("/new")).fd).find(({ name }) => name === "deep")?.type,
        DT_REG,
      );
      t.equal(stat(client, at("/new")).mode & 0o170000, 0o040000);
      const seen = ["/etc/hosts", "/etc/linked", "/new", "/new/deep"].map((path) =>
        stat(client, at(path)),
      );
      client.close();
      return seen.map(({ ino, devMinor }) => `${devMinor}:${ino}`);
    });
    t.equal(new Set(numbers[0]).size, 4, "each is a file of its own");
    t.same(numbers.at(-1), numbers[0], "a successor's are the same");
    t.end();
  });
}
