// Owns: proof of what the kernel and its users see of a view by FUSE: bytes, facts, names, listings, what misses its bytes, and a server
// that dies. Needs root and /dev/fuse. Plane: control.
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import { test } from "tap";
import { noFuse } from "../suite/fuse.ts";
import { FuseDoor } from "../suite/fuse-door.ts";
import { temporary } from "../suite/served.ts";
import { makeView } from "../suite/view-cache.ts";
import { sleep, until } from "../suite/wait.ts";

const LARGE = Buffer.alloc(9_000_000, "some words, ");
const COUNT = 1000;
const skip = noFuse;

/** The errno's name that a call fails with, or "" when it doesn't. */
function fault(call: () => unknown): string {
  try {
    call();
    return "";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
}

const FILES = {
  dir: "/",
  "dir/small": "content",
  "dir/empty": "",
  "dir/large": LARGE,
  link: "-> dir/small",
  "odd\n\xff\xfe": "no UTF-8",
} as const;

test("a view is what was put into it", { skip }, async (t) => {
  const door = await FuseDoor.openView(t, FILES);
  t.equal(fs.readFileSync(door.path("link"), "utf8"), "content");
  t.equal(fs.readlinkSync(door.path("link")), "dir/small");
  t.ok(fs.readFileSync(door.path("dir/large")).equals(LARGE));
  t.equal(fs.readFileSync(door.path("dir/empty")).length, 0);
  const names = fs.readdirSync(door.folder, { encoding: "latin1" }).sort();
  t.strictSame(names, ["dir", "link", "odd\n\xff\xfe"], "any bytes are a name");
  const odd = Buffer.from(`${door.folder}/odd\n\xff\xfe`, "latin1");
  t.equal(fs.readFileSync(odd, "utf8"), "no UTF-8");
  const facts = fs.statSync(door.path("dir/small"), { bigint: true });
  t.equal(facts.mtimeNs % 1_000_000_000n, 5n, "times to the nanosecond");
  t.equal(facts.mode, 0o100644n);
  t.equal(facts.nlink, 1n);
  const space = fs.statfsSync(door.folder);
  t.equal(space.bfree, 0);
  t.ok(space.files >= 6, "it says how many files there are");
  t.equal(
    fault(() => fs.statSync(door.path("none"))),
    "ENOENT",
  );
  t.equal(
    fault(() => fs.statSync(door.path("dir/small/below"))),
    "ENOTDIR",
  );
  t.equal(
    fault(() => fs.statSync(door.path("x".repeat(256)))),
    "ENAMETOOLONG",
  );
  t.equal(
    fault(() => fs.writeFileSync(door.path("new"), "")),
    "EROFS",
  );
  t.equal(
    fault(() => fs.openSync(door.path("dir/small"), "r+")),
    "EROFS",
  );
});

test("a listing has each name once, with its number, from any place on", { skip }, async (t) => {
  const files: Record<string, string> = { wide: "/" };
  for (let i = 0; i < COUNT; i++) files[`wide/${i}-${"n".repeat(i % 200)}`] = "x";
  for (const door of [await FuseDoor.openView(t, files), await FuseDoor.openOverlay(t, files)]) {
    const program = `import os, sys, ctypes
d = sys.argv[1]
seen = {e.name: e.inode() for e in os.scandir(d)}
assert len(seen) == ${COUNT}, len(seen)
assert len(set(seen.values())) == ${COUNT}
for name, ino in seen.items(): assert os.stat(d + "/" + name).st_ino == ino, name
libc = ctypes.CDLL(None)
libc.opendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.c_void_p
libc.telldir.restype = ctypes.c_long
libc.readdir.argtypes = libc.telldir.argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
h = libc.opendir(d.encode())
name = lambda e: ctypes.string_at(e + 19)
for _ in range(777): libc.readdir(h)
place = libc.telldir(h)
wanted = name(libc.readdir(h))
while libc.readdir(h): pass
libc.seekdir(h, place)
assert name(libc.readdir(h)) == wanted
print("ok")`;
    const words = ["-c", program, door.path("wide")];
    const { stdout, stderr } = spawnSync("python3", words, { encoding: "utf8" });
    t.equal(stdout, "ok\n", stderr);
  }
});

test("what can't be written is synced, file and directory, opened or not", { skip }, async (t) => {
  const state = temporary(t);
  const source = makeView(state, FILES);
  for (const isDirect of [false, true]) {
    const door = await FuseDoor.open(t, { state, source, isDirect });
    for (const name of ["dir/small", "dir"]) {
      const fd = fs.openSync(door.path(name), "r");
      t.equal(
        fault(() => fs.fsyncSync(fd)),
        "",
        `${name}, ${isDirect}`,
      );
      fs.closeSync(fd);
    }
  }
});

test("what waits for bytes holds nobody up, and can be interrupted", { skip }, async (t) => {
  const door = await FuseDoor.openView(t, { ...FILES, gone: "nobody brings it" }, ["gone"]);
  const reader = spawn("cat", [door.path("gone")], { stdio: "ignore" });
  t.teardown(() => reader.kill("SIGKILL"));
  const isWaiting = () =>
    /^State:\t[DS]/m.test(fs.readFileSync(`/proc/${reader.pid}/status`, "utf8"));
  t.ok(await until(() => reader.exitCode === null && isWaiting()));
  await sleep(100);
  t.equal(reader.exitCode, null, "it waits");
  t.equal(fs.readFileSync(door.path("dir/small"), "utf8"), "content", "others don't");
  t.equal(fs.statSync(door.path("gone")).size, 16, "and what it is can be told");
  reader.kill("SIGINT");
  t.ok(await until(() => reader.signalCode !== null), "a signal ends it");
});

test("a writable view over files that are elsewhere", { skip }, async (t) => {
  const door = await FuseDoor.openOverlay(t, FILES);
  fs.linkSync(door.path("dir/small"), door.path("second"));
  const [one, two] = ["dir/small", "second"].map((name) => fs.statSync(door.path(name)));
  t.equal(one!.ino, two!.ino);
  t.equal(two!.nlink, 2);
  fs.appendFileSync(door.path("second"), ", more");
  t.equal(fs.readFileSync(door.path("link"), "utf8"), "content, more", "one file of two names");
  fs.rmSync(door.path("dir/large"));
  fs.renameSync(door.path("dir"), door.path("moved"));
  t.strictSame(fs.readdirSync(door.path("moved")).sort(), ["empty", "small"]);
  const file = fs.openSync(door.path("moved/small"), "r+");
  fs.rmSync(door.path("moved"), { recursive: true });
  fs.writeSync(file, Buffer.from("after its end"), 0, 13, 0);
  t.equal(fs.fstatSync(file).size, 13, "it lives while it is open");
  fs.closeSync(file);
  t.equal(
    fault(() => fs.writeFileSync(door.path("big"), Buffer.alloc(80 << 20))),
    "ENOSPC",
  );
});

// doors.long, seed 72911962: the file below was kept to be read when it was opened, of which a change makes a copy.
test("what is held to be read shows what became of it", { skip }, async (t) => {
  const door = await FuseDoor.openOverlay(t, { file: Buffer.alloc(300_000, "old") });
  const held = fs.openSync(door.path("file"), "r");
  const written = fs.openSync(door.path("file"), "r+");
  fs.ftruncateSync(written, 10);
  fs.ftruncateSync(written, 300_000);
  const part = Buffer.alloc(10, "?");
  t.equal(fs.readSync(held, part, 0, 10, 200_000), 10);
  t.same(part, Buffer.alloc(10));
  fs.closeSync(held);
  fs.closeSync(written);
});

test("a server that dies leaves no empty directory, and no zeros", { skip }, async (t) => {
  const door = await FuseDoor.openView(t, FILES);
  fs.readdirSync(door.path("dir"));
  const open = fs.openSync(door.path("dir/large"), "r");
  fs.readSync(open, Buffer.alloc(10), 0, 10, 0);
  await door.kill();
  t.equal(
    fault(() => fs.readdirSync(door.folder)),
    "ENOTCONN",
  );
  t.equal(
    fault(() => fs.readdirSync(door.path("dir"))),
    "ENOTCONN",
    "one that was listed before, too",
  );
  t.equal(
    fault(() => fs.openSync(door.path("dir/small"), "r")),
    "ENOTCONN",
  );
  const late = fault(() => fs.readSync(open, Buffer.alloc(10), 0, 10, 8_000_000));
  t.ok(["ENOTCONN", "ECONNABORTED", "EIO"].includes(late), late);
  fault(() => fs.closeSync(open)); // it would ask the server
});
