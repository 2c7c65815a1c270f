// What a connection holds comes back (pitfall E2): FDs stay flat over open and close, connect and hang-up, on host directories
// and uppers; the windows of a connection that ended are unmapped while others go on.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "tap";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { writeMount } from "../suite/gofer-process.ts";
import {
  close,
  errnoOf,
  inodeAt,
  list,
  must,
  openPath,
  stat,
  walkTo,
} from "../suite/lisafs-calls.ts";
import { LisafsClient } from "../suite/lisafs-client.ts";
import { isLong } from "../suite/long.ts";
import {
  isSanitized,
  noUpper,
  onBothPathways,
  serveHost,
  serveUpper,
  serveView,
  startGofer,
  temporary,
} from "../suite/served.ts";
import { blockUntil } from "../suite/wait.ts";

const CYCLES = isLong ? 100_000 : 2_000;
const CONNECTIONS = 50;
const own = { uid: 0xffff_ffff, gid: 0xffff_ffff };

test("2,000 opens and closes leave the FD count where it was", (t) => {
  const { client, gofer } = serveHost(t, (directory) => {
    writeFileSync(join(directory, "f"), "content");
    mkdirSync(join(directory, "d"));
  });
  onBothPathways(client, (pathway) => {
    const before = gofer.fdCount;
    for (let i = 0; i < CYCLES / 2; i++) {
      const control = walkTo(client, "f");
      const file = openPath(client, "f");
      const directory = openPath(client, "d");
      if (i % 100 === 0) list(client, directory);
      close(client, control, file, directory);
    }
    // openPath's own control FDs are still open: two inodes, one FD each.
    t.ok(gofer.fdCount <= before + 2, `${gofer.fdCount - before} FDs more (${pathway})`);
  });
  t.end();
});

test("2,000 files made, written, renamed and removed leave the FD count where it was", {
  skip: noUpper,
}, (t) => {
  const { client, gofer } = serveUpper(t);
  const fd = client.rootFd;
  const rss = gofer.rssBytes;
  onBothPathways(client, (pathway) => {
    const before = gofer.fdCount;
    for (let i = 0; i < CYCLES / 2; i++) {
      const made = { fd, name: `f${i}`, flags: 2, mode: 0o644, ...own };
      const { payload, fds } = must(client, Mid.OpenCreateAt, made);
      client.takeBack(fds);
      const opened = Number(payload.readBigUInt64LE(152));
      must(client, Mid.PWrite, { fd: opened }, Buffer.alloc(100));
      must(client, Mid.RenameAt, { fd, otherFd: fd, name: `f${i}`, otherName: "g" });
      must(client, Mid.UnlinkAt, { fd, name: "g" });
      close(client, opened, inodeAt(payload, 0).fd);
    }
    t.equal(gofer.fdCount, before, pathway);
  });
  t.ok(gofer.rssBytes - rss < 32 * 1024 * 1024 || isSanitized, "RSS is flat");
  t.end();
});

test("calls that fail hold no FD", { skip: noUpper }, (t) => {
  const { client, gofer } = serveUpper(t);
  const fd = client.rootFd;
  must(client, Mid.MknodAt, { fd, name: "f", mode: 0o100644, ...own });
  const before = gofer.fdCount;
  onBothPathways(client, (pathway) => {
    for (let i = 0; i < 500; i++) {
      errnoOf(client, Mid.Walk, { fd, names: ["f", "x"] });
      errnoOf(client, Mid.WalkStat, { fd, names: ["f", "x"] });
      errnoOf(client, Mid.OpenCreateAt, { fd, name: "f", flags: 2, ...own });
      errnoOf(client, Mid.MkdirAt, { fd, name: "f", ...own });
      errnoOf(client, Mid.LinkAt, { fd, otherFd: fd, name: "l" });
    }
    t.equal(gofer.fdCount, before, pathway);
  });
  t.end();
});

test("50 connections come and go, and all they held goes with them", {
  skip: noUpper,
}, async (t) => {
  const state = temporary(t);
  const directory = join(state, "host");
  mkdirSync(directory);
  writeFileSync(join(directory, "f"), "content");
  const upper = { kind: "upper", sizeBytes: 1 << 20, inodes: 64, mode: 0o755 };
  const mounts = Array.from({ length: CONNECTIONS + 1 }, (_, i) => ({
    destination: i === 0 ? "/" : `/mnt/${i}`,
    source: i % 2 === 0 ? directory : writeMount(state, `upper${i}`, upper),
    isReadOnly: i % 2 === 0,
  }));
  const gofer = startGofer(t, mounts, { BURROW_STATE: state });
  const stays = LisafsClient.mount(gofer.takeSocket(0), 1);
  t.teardown(() => stays.close());
  const atStart = gofer.fdCount;
  for (let i = 1; i <= CONNECTIONS; i++) {
    const before = gofer.fdCount;
    const client = LisafsClient.mount(gofer.takeSocket(i), 1);
    if (i % 2 === 1) {
      const made = { fd: client.rootFd, name: "f", flags: 2, mode: 0o644, ...own };
      client.takeBack(must(client, Mid.OpenCreateAt, made).fds);
    }
    for (let opened = 0; opened < 10; opened++) openPath(client, "f");
    openPath(client, "/");
    t.ok(gofer.fdCount >= before + 12);
    client.close();
    blockUntil(() => gofer.fdCount === before - 4);
    // Its socket and what watches it, its root and its tree's FD of /proc.
    t.equal(gofer.fdCount, before - 4, `connection ${i}`);
  }
  t.equal(gofer.fdCount, atStart - 4 * CONNECTIONS);
  t.equal(stat(stays, stays.rootFd).mode & 0o170000, 0o040000, "the first still serves");
  t.end();
});

test("a connection's windows are unmapped when it has ended", (t) => {
  const directory = temporary(t);
  const gofer = startGofer(
    t,
    ["/", "/a", "/b"].map((destination) => ({ destination, source: directory, isReadOnly: true })),
  );
  const stays = LisafsClient.mount(gofer.takeSocket(0), 1);
  t.teardown(() => stays.close());
  for (const i of [1, 2]) {
    const client = LisafsClient.mount(gofer.takeSocket(i), 4);
    t.equal(gofer.windowCount, 1 + 4);
    client.close();
    blockUntil(() => gofer.windowCount <= 1);
    t.equal(gofer.windowCount, 1, "but the one that is in use");
  }
  t.end();
});

test("2,000 opens and closes of a view leave the FD count where it was", (t) => {
  const { client, gofer } = serveView(t, { "d/f": "content", empty: "" });
  onBothPathways(client, (pathway) => {
    openPath(client, "empty");
    const before = gofer.fdCount;
    for (let i = 0; i < CYCLES / 2; i++)
      close(client, openPath(client, "d/f"), openPath(client, "empty"));
    t.equal(gofer.fdCount, before, pathway);
  });
  t.end();
});
