// Indexes that lie, with right digests: who made them made their names, too. A gofer or daemon that opens one answers errnos, in time
// and in bounded memory; nothing else of the view or node suffers.

import fs from "node:fs";
import { t as all, test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import {
  BLOB_BYTES,
  Blob,
  DIRENT_BYTES,
  Dirent,
  Header,
  INODE_BYTES,
  IndexKind,
  Inode,
  Table,
} from "../../lib/layer/format.ts";
import { Index } from "../../lib/layer/index.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { KnownBlobs } from "../../lib/store/known.ts";
import { openStore } from "../../lib/store/open.ts";
import { openPackWriter } from "../../lib/store/pack-writer.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { entriesOf, noise, publishedOf, TestNode } from "../suite/daemon-node.ts";
import { contentOf, open, walkTo } from "../suite/lisafs-calls.ts";
import { isSanitized, serveMount } from "../suite/served.ts";

const MIB = 1024 * 1024;
const SMALL = noise(3000, 1);
const LARGE = noise(5 * MIB, 2);

/** Where a row of a table of an index is. */
function rowAt(index: Buffer, table: number, row: number, rowBytes: number): number {
  return index.readUInt32LE(Header.tables + 8 * table + 4) + row * rowBytes;
}

/** What a liar may do to the index of { large, small, other, d/f }. */
type Lie = (index: Buffer, rows: { large: number; small: number }) => void;

function setSize(index: Buffer, blobRow: number, size: bigint): void {
  index.writeBigUInt64LE(size, rowAt(index, Table.blobs, blobRow, BLOB_BYTES) + Blob.size);
  const inodes = index.readUInt32LE(Header.tables);
  for (let i = 0; i < inodes; i++) {
    const at = rowAt(index, Table.inodes, i, INODE_BYTES);
    const isFile = (index.readUInt32LE(at + Inode.mode) & 0o170000) === 0o100000;
    if (isFile && index.readUInt32LE(at + Inode.a) === blobRow) {
      index.writeBigUInt64LE(size, at + Inode.size);
    }
  }
}

const eachInode = (index: Buffer, offset: number, value: number) => {
  for (let i = 1; i < index.readUInt32LE(Header.tables); i++)
    index.writeUInt32LE(value, rowAt(index, Table.inodes, i, INODE_BYTES) + offset);
};
const eachDirent = (index: Buffer, change: (at: number) => void) => {
  for (let i = 0; i < index.readUInt32LE(Header.tables + 8 * Table.dirents); i++)
    change(rowAt(index, Table.dirents, i, DIRENT_BYTES));
};

const LIES: Readonly<Record<string, Lie>> = {
  "a size of 2^45": (index, { large }) => setSize(index, large, 2n ** 45n),
  "a size of 2^50": (index, { large }) => setSize(index, large, 2n ** 50n),
  "a size of 2^53 - 1": (index, { large }) => setSize(index, large, 2n ** 53n - 1n),
  "a size of 2^64 - 1": (index, { large }) => setSize(index, large, 2n ** 64n - 1n),
  "a small file of 2^40": (index, { small }) => setSize(index, small, 2n ** 40n),
  "a small file of 2^22": (index, { small }) => setSize(index, small, 2n ** 22n),
  "a large file of 100 bytes": (index, { large }) => setSize(index, large, 100n),
  "block digests outside": (index, { large }) =>
    index.writeUInt32LE(
      0xffff_fff0,
      rowAt(index, Table.blobs, large, BLOB_BYTES) + Blob.firstBlock,
    ),
  "too many block digests": (index, { large }) =>
    index.writeUInt32LE(
      0xffff_ffff,
      rowAt(index, Table.blobs, large, BLOB_BYTES) + Blob.blockCount,
    ),
  "no block digests": (index, { large }) =>
    index.writeUInt32LE(0, rowAt(index, Table.blobs, large, BLOB_BYTES) + Blob.blockCount),
  "blobs outside": (index) => eachInode(index, Inode.a, 0xffff_ffff),
  "dirents outside": (index) => eachInode(index, Inode.b, 0xffff_ffff),
  "xattrs outside": (index) => eachInode(index, Inode.xattr, 0xffff_ffff),
  "all directories": (index) => eachInode(index, Inode.mode, 0o040777),
  "all symlinks": (index) => eachInode(index, Inode.mode, 0o120777),
  "all devices": (index) => eachInode(index, Inode.mode, 0o020666),
  "modes of all bits": (index) => eachInode(index, Inode.mode, 0xffff_ffff),
  "no links": (index) => eachInode(index, Inode.nlink, 0),
  "all dirents the root": (index) => eachDirent(index, (at) => index.writeUInt32LE(1, at)),
  "inodes outside": (index) => eachDirent(index, (at) => index.writeUInt32LE(0xffff_ffff, at)),
  "names outside": (index) =>
    eachDirent(index, (at) => index.writeUInt32LE(0xffff_ff00, at + Dirent.name)),
  "names of no bytes": (index) =>
    eachDirent(index, (at) => index.writeUInt16LE(0, at + Dirent.nameBytes)),
  "times of all bits": (index) => {
    eachInode(index, Inode.mtimeSec, 0xffff_ffff);
    eachInode(index, Inode.mtimeSec + 4, 0xffff_ffff);
    eachInode(index, Inode.mtimeNs, 0xffff_ffff);
  },
};

/** A node whose daemon runs until the tests are through: what one lie costs must not show in the next. */
const node = new TestNode();
all.teardown(() => node.close());
const daemon = await node.start({ deadlineMs: 2000 });

async function publishLie(lie: Lie) {
  const store = await openStore(node.store);
  const known = await KnownBlobs.load(store);
  const writer = await openPackWriter(store, { known });
  const refs = new Map([
    ["large", await writer.addBytes(LARGE)],
    ["small", await writer.addBytes(SMALL)],
    ["other", await writer.addBytes(noise(2000, 3))],
    ["d/f", await writer.addBytes(noise(1000, 4))],
  ]);
  const bytes = Buffer.from(writeIndex(IndexKind.snapshot, entriesOf(refs)));
  const { row } = publishedOf("" as never, bytes, refs);
  lie(bytes, { large: row("large"), small: row("small") });
  const { digest } = await writer.finish(bytes);
  // A second, honest snapshot in the same view.
  const honest = await openPackWriter(store, { known });
  const ref = await honest.addBytes(noise(4000, 9));
  const index = writeIndex(IndexKind.snapshot, entriesOf(new Map([["honest", ref]])));
  const second = await honest.finish(index);
  const mountId = node.mount(node.store, digest, second.digest);
  return { mountId, index: new Index(bytes) };
}

/** Peak of a process's memory, MiB. */
function peakMib(pid: number): number {
  const status = fs.readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/VmHWM:\s+(\d+)/.exec(status)![1]) / 1024;
}

const OFFSETS = [0, 1, 4095, 2 ** 31, 2 ** 32 + 7, 2 ** 44, 2 ** 52, 2 ** 53 - 1];

for (const [name, lie] of Object.entries(LIES)) {
  test(`an index with ${name}`, { timeout: 240_000 }, async (t) => {
    const { mountId, index } = await publishLie(lie);
    const { gofer, client } = await serveMount(t, node, mountId, {
      env: { BURROW_MISS_DEADLINE_MS: "3000" },
    });
    const before = { gofer: peakMib(gofer.pid), daemon: peakMib(daemon.pid!) };
    const answered: Record<string, number> = {};
    let last = 0;
    let refused = 0;
    const call = (mid: number, fields: object) => {
      const { errno, fds, payload } = client.call(mid, fields);
      client.takeBack(fds);
      if (errno === Errno.EREMOTEIO || errno === Errno.ETIMEDOUT) {
        t.fail(`message ${mid} of ${JSON.stringify(fields)}: errno ${errno}`);
      }
      last = errno;
      answered[errno] = (answered[errno] ?? 0) + 1;
      return errno === 0 ? payload : undefined;
    };
    for (let ino = 1; ino <= index.inodeCount; ino++) {
      call(Mid.FStat, { fd: ino });
      call(Mid.FStatFS, { fd: ino });
      call(Mid.ReadLinkAt, { fd: ino });
      call(Mid.FListXattr, { fd: ino, count: 0 });
      call(Mid.FGetXattr, { fd: ino, count: 0, name: "user.x" });
      for (const names of [["d", "f"], ["large"], Array(1000).fill("d"), ["d", "d", "d", "x"]]) {
        call(Mid.Walk, { fd: ino, names });
        call(Mid.WalkStat, { fd: ino, names });
      }
      const opened = call(Mid.OpenAt, { fd: ino });
      if (opened === undefined && last === Errno.EIO) refused++;
      if (opened === undefined) continue;
      const fd = Number(opened.readBigUInt64LE(0));
      for (const count of [-1, 1, 100, 0x7fff_ffff]) call(Mid.Getdents64, { fd, count });
      for (const offset of OFFSETS) {
        const read = call(Mid.PRead, { fd, offset, count: 100_000 });
        if (read === undefined && last === Errno.EIO) refused++;
      }
      call(Mid.Close, { fds: [fd] });
    }
    if (/^a (size|small file) of/.test(name)) t.ok(refused > 0, "a size without digests is EIO");
    const { hostFd } = open(client, walkTo(client, "honest", 2 ** 32 + 1));
    t.ok(contentOf(hostFd).equals(noise(4000, 9)), "what is honest is served");
    client.takeBack([hostFd]);
    const box = await node.connect(mountId);
    for (let row = 0; row < 5; row++) {
      await box.askBlob(0, row);
      for (const first of [0, 19, 2 ** 31, 2 ** 32 - 2]) {
        const { errno } = await box.askBlocks(0, row, first, 1);
        answered[`daemon ${errno}`] = (answered[`daemon ${errno}`] ?? 0) + 1;
      }
    }
    t.equal((await box.askBlob(1, 0)).errno, 0, "by the daemon, too");
    const grown = {
      gofer: Math.round(peakMib(gofer.pid) - before.gofer),
      daemon: Math.round(peakMib(daemon.pid!) - before.daemon),
    };
    t.comment(JSON.stringify({ answered, grown }));
    if (!isSanitized) t.ok(grown.gofer < 64, `the gofer grew by ${grown.gofer} MiB`);
    t.ok(grown.daemon < 128, `the daemon grew by ${grown.daemon} MiB`);
    const partial = fs
      .readdirSync(`${node.cache}/partial`)
      .map((each) => fs.statSync(`${node.cache}/partial/${each}`).size);
    t.ok(
      partial.every((size) => size <= LARGE.length),
      `partial files of ${partial}`,
    );
  });
}
