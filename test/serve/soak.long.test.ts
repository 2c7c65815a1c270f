// What a sandbox opens, makes, renames and removes in random order for as long as it lives leaves nothing behind (pitfall E2), in its server,
// in the stub, or in the servers that follow one that was killed with files open. BURROW_SEED repeats a run's order, BURROW_MINUTES=N makes it
// as long as that.

import fs from "node:fs";
import { test } from "tap";
import { native } from "../../lib/sys/native.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { HotStub, hotDirectory, noHot } from "../conformance/hot.ts";
import { writeMount } from "../suite/gofer-process.ts";
import { close, inodeAt, list, must, open, read, walk, write } from "../suite/lisafs-calls.ts";
import { soakMs } from "../suite/long.ts";

const seed = Number(process.env["BURROW_SEED"] ?? Date.now() % 0x7fff_ffff);
/** Of its own length, where none is given. */
const LENGTH_MS = soakMs > 0 ? soakMs : 20_000;
const OPERATIONS = 400;
const NAMES = 12;
const OPEN_MAX = 40;
/** A stub takes ten deaths a minute for a server that can't live. */
const BETWEEN_KILLS_MS = 9_000;
const own = { uid: 0xffff_ffff, gid: 0xffff_ffff };

test(`nothing is left of what was open, seed ${seed}`, {
  skip: noHot,
  timeout: 120_000 + LENGTH_MS,
}, async (t) => {
  const directory = hotDirectory(t);
  const upper = { kind: "upper", sizeBytes: 16 << 20, inodes: 256, mode: 0o755 };
  const source = writeMount(directory, "upper", upper);
  const stub = new HotStub(t, directory, [{ source, isReadOnly: false }]);
  stub.start();
  const client = stub.mount(t);
  const { rootFd: fd } = client;
  let state = seed;
  const pick = (count: number) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((state / 2 ** 32) * count);
  };

  /**
   * What is open: its control FD and the other, what was donated, and what it must hold. A file without a name lives on over its server's
   * death in what was donated.
   */
  const held: { control: number; opened: number; hostFd: number; bytes: Buffer }[] = [];
  /** Content by name; a file keeps its Buffer over renames. */
  const files = new Map<string, { bytes: Buffer }>();
  const nameOf = () => `f${pick(NAMES)}`;
  const end = ({ control, opened, hostFd }: (typeof held)[0]) => {
    close(client, opened, control);
    native.closeFd(hostFd);
  };
  const operations: readonly (() => void)[] = [
    () => {
      const name = nameOf();
      if (files.has(name)) return;
      const { payload, fds } = must(client, Mid.OpenCreateAt, {
        ...{ fd, name, flags: 2, mode: 0o644 },
        ...own,
      });
      const bytes = Buffer.alloc(1 + pick(5_000), pick(256));
      const opened = Number(payload.readBigUInt64LE(152));
      if (write(client, opened, 0, bytes) !== bytes.length) t.fail(`${name}: a short write`);
      files.set(name, { bytes });
      held.push({ control: inodeAt(payload, 0).fd, opened, hostFd: fds[0]!, bytes });
    },
    () => {
      const name = nameOf();
      const file = files.get(name);
      if (file === undefined) return;
      const control = walk(client, fd, name).inodes[0]!.fd;
      const { fd: opened, hostFd } = open(client, control);
      held.push({ control, opened, hostFd, bytes: file.bytes });
    },
    () => {
      const [one] = held.splice(pick(held.length), 1);
      if (one !== undefined) end(one);
    },
    () => {
      const one = held[pick(held.length)];
      if (one === undefined) return;
      const got = read(client, one.opened, 0, one.bytes.length + 1);
      if (!got.equals(one.bytes)) t.fail(`${got.length} wrong bytes of ${one.bytes.length}`);
    },
    () => {
      const [from, to] = [nameOf(), nameOf()];
      const file = files.get(from);
      if (file === undefined || from === to) return;
      must(client, Mid.RenameAt, { fd, otherFd: fd, name: from, otherName: to });
      files.delete(from);
      files.set(to, file);
    },
    () => {
      const name = nameOf();
      if (files.delete(name)) must(client, Mid.UnlinkAt, { fd, name });
    },
  ];
  const closeAll = () => {
    for (const one of held.splice(0)) end(one);
  };
  const count = (pid: number) => fs.readdirSync(`/proc/${pid}/fd`).length;

  const counts = { operations: 0, rounds: 0, kills: 0, most: 0 };
  const stubCount = { first: 0 };
  /** Of the server that serves, when nothing was open for the first time. */
  let first = { pid: 0, count: 0 };
  let killedMs = performance.now();
  for (const endMs = performance.now() + LENGTH_MS; performance.now() < endMs; counts.rounds++) {
    const isKilled = performance.now() - killedMs > BETWEEN_KILLS_MS;
    const at = isKilled ? pick(OPERATIONS) : -1;
    for (let i = 0; i < OPERATIONS; i++, counts.operations++) {
      if (i === at) {
        await stub.kill();
        killedMs = performance.now();
        counts.kills++;
      }
      if (held.length >= OPEN_MAX) operations[2]!();
      operations[pick(operations.length)]!();
    }
    counts.most = Math.max(counts.most, held.length);
    closeAll();
    for (const name of files.keys()) must(client, Mid.UnlinkAt, { fd, name });
    files.clear();
    const directoryFd = open(client, fd);
    if (list(client, directoryFd.fd).some(({ name }) => !name.startsWith(".")))
      t.fail("names left");
    close(client, directoryFd.fd);
    const pid = stub.servers()[0]!;
    if (first.pid !== pid) first = { pid, count: count(pid) };
    else if (count(pid) !== first.count)
      t.fail(`round ${counts.rounds}: ${count(pid)} FDs of the server, ${first.count} before`);
    stubCount.first ||= count(stub.stub.pid!);
    if (count(stub.stub.pid!) !== stubCount.first)
      t.fail(`round ${counts.rounds}: ${count(stub.stub.pid!)} FDs of the stub`);
  }
  t.ok(counts.operations > OPERATIONS && counts.most > 0);
  t.comment(
    `${counts.operations} operations in ${counts.rounds} rounds, ${counts.kills} kills, ${counts.most} files open at most`,
  );
});
