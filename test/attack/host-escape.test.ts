// Ways out of a host tree, tried from the client's side: symlinks, "..", and a directory that is swapped for a
// symlink between any two calls. A canary outside the root must never be seen, opened or changed. Control plane.

import { once } from "node:events";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import t from "tap";
import { Errno } from "../../lib/base/errno.ts";
import type { Name } from "../../lib/base/name.ts";
import { HostTree } from "../../lib/tree/host.ts";
import { type Ino, O_RDONLY, OpenResult } from "../../lib/tree/tree.ts";
import { refused } from "../suite/tree-behaviour.ts";
import { attrOf, createRequest, finish, list, must, openFds, walk } from "../suite/tree-fixture.ts";

const CANARY = "CANARY: bytes from outside the root";
const RACE_MS = 2_000;
/** Renames are quickest in memory: more swaps. */
const MEMORY = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();

interface Place {
  readonly outside: string;
  readonly root: string;
  readonly tree: HostTree;
  remove(): void;
}

/** outside/{secret,sub/secret} and root/, a tree over root alone. */
function place(isReadOnly: boolean): Place {
  const base = mkdtempSync(join(MEMORY, "burrow-escape-"));
  const outside = join(base, "outside");
  const root = join(base, "root");
  for (const path of [outside, join(outside, "sub"), root]) mkdirSync(path);
  for (const path of ["secret", "sub/secret"]) writeFileSync(join(outside, path), CANARY);
  const tree = HostTree.open(root, { isReadOnly });
  if (typeof tree === "number") throw new Error(`open: ${tree}`);
  return {
    outside,
    root,
    tree,
    remove() {
      tree.dispose();
      rmSync(base, { recursive: true });
    },
  };
}

/** The file's bytes when it opens, else -errno. */
function read(tree: HostTree, ino: Ino): string | number {
  const opened = new OpenResult();
  const failed = tree.open(ino, O_RDONLY, opened);
  if (failed < 0) return failed;
  const bytes = Buffer.alloc(256);
  const length = tree.read(ino, opened.handle, 0, bytes);
  finish(tree, ino, opened);
  return bytes.toString("latin1", 0, Math.max(0, length));
}

t.test("symlinks out of the root are text, whatever they name", (t) => {
  const { outside, root, tree, remove } = place(false);
  const targets = [outside, "../outside", "/", "..", "../outside/secret", join(outside, "secret")];
  targets.push("/proc/self/root", "/proc/self/cwd", "/proc/self/fd/0", "/proc/1/root");
  for (const [i, target] of targets.entries()) {
    symlinkSync(target, join(root, `s${i}`));
    const ino = must(walk(tree, `s${i}`), target);
    t.equal(attrOf(tree, ino).mode & 0o170000, 0o120000);
    const out = Buffer.alloc(4096);
    t.equal(out.toString("latin1", 0, tree.readlink(ino, out)), target);
    refused(t, tree.lookup(ino, "secret" as Name), Errno.ENOTDIR, `through ${target}`);
    t.equal(read(tree, ino), -Errno.EINVAL, "opened");
    refused(t, tree.opendir(ino), Errno.ENOTDIR, "listed");
    refused(t, tree.unlink(ino, "secret" as Name, false), Errno.ENOTDIR, "unlink through it");
    const made = tree.create(ino, "x" as Name, createRequest(0o600), 2, new OpenResult());
    refused(t, made, Errno.ENOTDIR, "create through it");
    refused(
      t,
      tree.rename(ino, "secret" as Name, tree.rootIno, "x" as Name, 0),
      Errno.ENOTDIR,
      "rename",
    );
    // A hard link to a symlink is one to the symlink.
    t.equal(tree.link(tree.rootIno, `h${i}` as Name, ino), ino);
    tree.release(ino);
    tree.release(ino);
  }
  t.equal(readFileSync(join(outside, "secret"), "utf8"), CANARY);
  remove();
  t.end();
});

t.test("names with a slash or dots do not walk", (t) => {
  const { root, tree, remove } = place(false);
  mkdirSync(join(root, "d"));
  symlinkSync("../outside", join(root, "s"));
  const dir = must(walk(tree, "d"), "d");
  const names = [
    "..",
    ".",
    "../outside",
    "../../outside/secret",
    "s/secret",
    "/etc/passwd",
    "d/..",
    "",
  ];
  for (const name of names as Name[]) {
    refused(t, tree.lookup(dir, name), Errno.EINVAL, `lookup of "${name}"`);
    refused(t, tree.unlink(tree.rootIno, name, false), Errno.EINVAL, "unlink");
    refused(t, tree.rename(tree.rootIno, name, dir, "x" as Name, 0), Errno.EINVAL, "rename");
    refused(t, tree.symlink(tree.rootIno, name, "x", createRequest(0)), Errno.EINVAL, "symlink");
  }
  tree.release(dir);
  remove();
  t.end();
});

interface Swapper {
  /** Stops it: how often it swapped. */
  stop(): Promise<number>;
}

/** A thread that exchanges two names of a directory as fast as it can. */
async function startSwapping(directory: string, left: string, right: string): Promise<Swapper> {
  const modules = new URL("../../lib/sys/", import.meta.url).href;
  const flag = new Int32Array(new SharedArrayBuffer(4));
  const script = `
    const { parentPort, workerData } = require("node:worker_threads");
    (async () => {
      const { modules, directory, left, right, flag } = workerData;
      const { hostFs } = await import(modules + "hostfs.js");
      const { native } = await import(modules + "native.js");
      const dir = native.openAt(-1, directory, 0o10000000, 0);
      let swaps = 0;
      parentPort.postMessage("up");
      while (Atomics.load(flag, 0) === 0) {
        if (hostFs.renameAt(dir, left, dir, right, 2) === 0) swaps++;
      }
      native.closeFd(dir);
      parentPort.postMessage(swaps);
    })();`;
  const worker = new Worker(script, {
    eval: true,
    workerData: { modules, directory, left, right, flag },
  });
  await once(worker, "message");
  return {
    async stop() {
      Atomics.store(flag, 0, 1);
      const [swaps] = (await once(worker, "message")) as [number];
      await worker.terminate();
      return swaps;
    },
  };
}

t.test("a directory swapped for a symlink between any two calls never leads outside", async (t) => {
  const { outside, root, tree, remove } = place(false);
  mkdirSync(join(root, "d"));
  writeFileSync(join(root, "d", "secret"), "inside");
  mkdirSync(join(root, "d", "sub"));
  writeFileSync(join(root, "d", "sub", "secret"), "inside");
  symlinkSync(outside, join(root, "s"));
  const before = openFds();
  const swapper = await startSwapping(root, "d", "s");
  const seen = new Map<string, number>();
  const count = (what: string | number) => {
    const key = String(what);
    seen.set(key, (seen.get(key) ?? 0) + 1);
  };
  const request = createRequest(0o600);
  const opened = new OpenResult();
  const end = Date.now() + RACE_MS;
  for (let i = 0; Date.now() < end; i++) {
    for (const path of ["d/secret", "d/sub/secret", "s/secret", "s/sub/secret"]) {
      const ino = walk(tree, path);
      if (ino < 0) {
        count(`walk ${ino}`);
        continue;
      }
      count(read(tree, ino as Ino));
      tree.release(ino as Ino);
    }
    const dir = tree.lookup(tree.rootIno, "d" as Name);
    if (dir < 0) continue;
    const made = tree.create(dir as Ino, `n${i}` as Name, request, 1, opened);
    if (made > 0) {
      count("created");
      finish(tree, made as Ino, opened);
      tree.release(made as Ino);
      tree.unlink(dir as Ino, `n${i}` as Name, false);
    } else count(`create ${made}`);
    tree.release(dir as Ino);
  }
  const swaps = await swapper.stop();
  t.comment(`${swaps} swaps; ${[...seen].map(([what, times]) => `${what}: ${times}`).join(", ")}`);
  t.ok(swaps > 1000, "the race was run");
  t.notOk(seen.has(CANARY), "the canary was never read");
  t.ok(
    (seen.get("inside") ?? 0) > 100 && seen.has(`walk ${-Errno.ENOTDIR}`),
    "both sides were met",
  );
  t.same(readdirSync(outside).sort(), ["secret", "sub"], "nothing was made outside");
  t.equal(readFileSync(join(outside, "secret"), "utf8"), CANARY);
  t.equal(tree.inodeCount, 1, "no inode is left");
  t.equal(openFds(), before, "nor an FD");
  remove();
});

/** Whether a symlink stands at `path`. */
function isLink(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() ?? false;
}

t.test("a name swapped between mkdir and its opening is not given away", async (t) => {
  const { outside, root, tree, remove } = place(false);
  symlinkSync(join(outside, "sub"), join(root, "s"));
  const { mode } = statSync(join(outside, "sub"));
  const swapper = await startSwapping(root, "x", "s");
  const x = "x" as Name;
  const s = "s" as Name;
  const request = createRequest(0o777, 0xffffffff, 0xffffffff);
  const end = Date.now() + RACE_MS / 2;
  let made = 0;
  while (Date.now() < end) {
    const ino = tree.mkdir(tree.rootIno, x, request);
    if (ino > 0) {
      made++;
      if ((attrOf(tree, ino).mode & 0o170000) !== 0o040000) t.fail("mkdir gave no directory");
      tree.release(ino as Ino);
    }
    if (tree.unlink(tree.rootIno, x, true) < 0) tree.unlink(tree.rootIno, s, true);
    // The directory went while the link stood at x: nothing swaps any more until the link is back.
    if (!existsSync(join(root, "s")) && isLink(join(root, "x"))) {
      renameSync(join(root, "x"), join(root, "s"));
    }
  }
  const swaps = await swapper.stop();
  t.comment(`${swaps} swaps, ${made} directories made`);
  t.ok(made > 10, "the race was run");
  t.equal(statSync(join(outside, "sub")).mode, mode, "the mode outside is as it was");
  remove();
});

t.test("listing a directory shows no way out", (t) => {
  const { tree, remove } = place(true);
  t.same([...list(tree, tree.rootIno).keys()], [], 'neither "." nor ".."');
  remove();
  t.end();
});
