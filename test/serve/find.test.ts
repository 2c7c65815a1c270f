// Walk, WalkStat, Getdents64, ReadLinkAt over a host directory, on both pathways: statuses, symlinks, bytes of names, budgets.

import { closeSync, mkdirSync, openSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "tap";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import {
  close,
  type Dirent,
  getdents,
  list,
  must,
  openPath,
  stat,
  walk,
  walkStat,
  walkTo,
} from "../suite/lisafs-calls.ts";
import { isLong } from "../suite/long.ts";
import { isSanitized, onBothPathways, serveHost } from "../suite/served.ts";

const MANY = isLong ? 1_000_000 : 40_000;
const S_IFMT = 0o170000;
const S_IFLNK = 0o120000;
const S_IFREG = 0o100000;
const DT_DIR = 4;
const DT_REG = 8;
const DT_LNK = 10;

function build(directory: string): void {
  mkdirSync(join(directory, "d/e"), { recursive: true });
  writeFileSync(join(directory, "d/e/f"), "content");
  writeFileSync(join(directory, "f"), "");
  symlinkSync("d", join(directory, "l"));
  symlinkSync("none", join(directory, "dangling"));
}

test("walk gives a status and one inode a component", (t) => {
  const { client } = serveHost(t, build);
  const root = client.rootFd;
  onBothPathways(client, (pathway) => {
    const outcome = (...names: string[]) => {
      const { status, inodes } = walk(client, root, ...names);
      return [status, inodes.length];
    };
    t.strictSame(outcome(), [0, 0], `nothing (${pathway})`);
    t.strictSame(outcome("d", "e", "f"), [0, 3], "all there");
    t.strictSame(outcome("none"), [1, 0], "the first is missing");
    t.strictSame(outcome("d", "none", "more"), [1, 1], "one in the middle is missing");
    t.strictSame(outcome("d", "e", "none"), [1, 2], "the last is missing");
    t.strictSame(outcome("l"), [0, 1], "a symlink at the end is a success");
    t.strictSame(outcome("dangling"), [0, 1], "a dangling symlink too");
    t.strictSame(outcome("l", "e", "f"), [2, 1], "a symlink in the middle is the last inode");
    const { inodes } = walk(client, root, "l");
    t.equal(inodes[0]!.stat.mode & S_IFMT, S_IFLNK, "never followed");
  });
  t.end();
});

test("walk's inodes are those of FStat and of the directory's list", (t) => {
  const { client } = serveHost(t, build);
  const [d, e, f] = walk(client, client.rootFd, "d", "e", "f").inodes;
  for (const inode of [d!, e!, f!]) t.strictSame(inode.stat, stat(client, inode.fd));
  t.not(d!.fd, e!.fd);
  t.equal(f!.stat.mode & S_IFMT, S_IFREG);
  t.equal(f!.stat.size, 7);
  const again = walk(client, client.rootFd, "d").inodes[0]!;
  t.not(again.fd, d!.fd, "each walk gives control FDs of its own");
  close(client, again.fd);
  t.equal(stat(client, d!.fd).ino, d!.stat.ino, "which closing the other leaves alone");
  const dirent = list(client, openPath(client, "/")).find(({ name }) => name === "d")!;
  t.strictSame(
    [dirent.ino, dirent.devMinor, dirent.devMajor],
    [d!.stat.ino, d!.stat.devMinor, d!.stat.devMajor],
  );
  t.end();
});

test("walkStat stops silently and answers the start for an empty first name", (t) => {
  const { client } = serveHost(t, build);
  const root = client.rootFd;
  const link = walkTo(client, "l");
  const file = walkTo(client, "f");
  const modes = (fd: number, ...names: string[]) =>
    walkStat(client, fd, ...names).map(({ mode }) => mode & S_IFMT);
  const [dir, reg, lnk] = [0o040000, S_IFREG, S_IFLNK];
  onBothPathways(client, (pathway) => {
    t.strictSame(modes(root), [], `nothing (${pathway})`);
    t.strictSame(modes(root, ""), [dir]);
    t.strictSame(modes(root, "", "d", "e", "f"), [dir, dir, dir, reg]);
    t.strictSame(modes(root, "d", "none", "f"), [dir], "stops at a missing one");
    t.strictSame(modes(root, "l", "e"), [lnk], "stops after a symlink");
    t.strictSame(modes(link, ""), [lnk]);
    t.strictSame(modes(link, "", "e"), [lnk], "a symlink as the start gives itself");
    t.strictSame(modes(file, ""), [reg]);
    t.strictSame(modes(file), []);
  });
  t.end();
});

test("names are bytes: any but NUL and slash, up to 255", (t) => {
  const names = ["x".repeat(255), "\xff\xfe\x80", "\x01\n\\", "\xc3\x28", " ", "...", ".a", "é"];
  const { client } = serveHost(t, (directory) => {
    for (const name of names) {
      closeSync(openSync(Buffer.from(`${directory}/${name}`, "latin1"), "w"));
    }
  });
  onBothPathways(client, (pathway) => {
    for (const name of names) {
      t.equal(walk(client, client.rootFd, name).inodes.length, 1, `${escape(name)} (${pathway})`);
    }
    const listed = list(client, openPath(client, "/")).map(({ name }) => name);
    t.strictSame(listed.sort(), [...names].sort(), "listed byte for byte");
  });
  t.end();
});

test("a symlink's target is read byte for byte", (t) => {
  const long = "t/".repeat(2047);
  const { client } = serveHost(t, (directory) => {
    symlinkSync(Buffer.from("a\xff/..", "latin1"), join(directory, "bytes"));
    symlinkSync(long, join(directory, "long"));
  });
  onBothPathways(client, () => {
    const target = (name: string) => {
      const { payload } = must(client, Mid.ReadLinkAt, { fd: walkTo(client, name) });
      t.equal(payload.length, 2 + payload.readUInt16LE(0));
      return payload.toString("latin1", 2);
    };
    t.equal(target("bytes"), "a\xff/..");
    t.equal(target("long"), long);
  });
  t.end();
});

test("Getdents64 with a budget of 40 lists 10 files in at most 12 calls", (t) => {
  const wanted = Array.from({ length: 10 }, (_, i) => `file-${i}`);
  const { client } = serveHost(t, (directory) => {
    for (const name of wanted) writeFileSync(join(directory, name), "");
  });
  onBothPathways(client, (pathway) => {
    const fd = openPath(client, "/");
    const all: Dirent[] = [];
    let calls = 0;
    for (let count = -40; ; count = 40) {
      const part = getdents(client, fd, count);
      calls++;
      if (part.length === 0) break;
      all.push(...part);
    }
    t.ok(calls <= 12, `${calls} calls (${pathway})`);
    t.strictSame(all.map(({ name }) => name).sort(), wanted);
    t.ok(all.every(({ type }) => type === DT_REG));
    t.strictSame(getdents(client, fd, 40), [], "the end stays the end");
    t.equal(getdents(client, fd, -65_536).length, 10, "a negative count rewinds");
    t.equal(getdents(client, fd, -1).length, 1, "at least one, whatever the budget");
    t.equal(getdents(client, fd, 0).length, 1);
    t.equal(getdents(client, fd, 0x7fff_ffff).length, 8);
    t.equal(getdents(client, fd, -0x8000_0000).length, 10);
  });
  t.end();
});

test("two open directories have positions of their own, and types are right", (t) => {
  const { client } = serveHost(t, build);
  const [one, two] = [openPath(client, "/"), openPath(client, "/")];
  getdents(client, one, -1);
  t.equal(getdents(client, two, -65_536).length, 4);
  t.equal(getdents(client, one, 65_536).length, 3);
  const types = Object.fromEntries(list(client, two).map(({ name, type }) => [name, type]));
  t.strictSame(types, { d: DT_DIR, f: DT_REG, l: DT_LNK, dangling: DT_LNK });
  t.end();
});

test(`a directory of ${MANY} names is listed whole`, { timeout: 900_000 }, (t) => {
  const count = MANY;
  const { client, gofer } = serveHost(t, (directory) => {
    for (let i = 0; i < count; i++) closeSync(openSync(join(directory, `name-${i}`), "w"));
  });
  const fd = openPath(client, "/");
  const before = gofer.rssBytes;
  for (const budget of [65_536, 0x7fff_ffff]) {
    const names = new Set(list(client, fd, budget).map(({ name }) => name));
    t.equal(names.size, count, `each name once, with a budget of ${budget}`);
  }
  t.ok(gofer.rssBytes - before < 32 * 1024 * 1024 || isSanitized, "in a bounded space");
  t.end();
});
