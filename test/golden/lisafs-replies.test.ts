// Every recorded reply of gVisor's own marshallers: the server's handlers, run over a tree of the recorded values, answer the
// same bytes. Bytes that can't or must not agree are replaced by ours first, each with its reason.

import { test } from "tap";
import { errnoName } from "../../lib/base/errno.ts";
import type { Request } from "../../lib/wire/lisafs/message.ts";
import { Mid, midName } from "../../lib/wire/lisafs/mid.ts";
import { readVectors } from "../suite/golden.ts";
import { GoldenTree, LINK_NAME } from "../suite/golden-tree.ts";
import { MemoryClient } from "../suite/memory-client.ts";

const S_IFDIR = 0o040000;

const tree = new GoldenTree();
const client = new MemoryClient(tree);
const { root } = client;

function answer(mid: number, fields: Partial<Request> = {}, data?: Uint8Array): Buffer {
  const reply = client.call(mid, fields, data);
  if (typeof reply === "number") throw new Error(`${midName(mid)}: ${errnoName(reply)}`);
  return Buffer.from(reply);
}

/** As answer(), while the root is a directory. */
function answerOfDirectory(mid: number, fields: Partial<Request>): Buffer {
  const { mode } = tree;
  tree.mode = S_IFDIR;
  const reply = answer(mid, fields);
  tree.mode = mode;
  return reply;
}

/** u64 fields of Statx that we hold as numbers: the recorded ones exceed 2^53. */
const STATX_TOO_LARGE = [
  [32, 8], // Ino
  [40, 8], // Size
  [48, 8], // Blocks
] as const;
/** Fields of Statx that are ours alone to say. */
const STATX_OURS = [
  [0, 4], // Mask: STATX_BASIC_STATS always.
  [8, 8], // Attributes: none.
  [56, 8], // AttributesMask: none.
  [80, 12], // Btime: none.
] as const;

const statx = (at: number) =>
  [...STATX_TOO_LARGE, ...STATX_OURS].map(([offset, length]) => [at + offset, length] as const);
/** Inode: its FDID is minted, and the recorded one exceeds 2^53. */
const inode = (at: number) => [[at, 8] as const, ...statx(at + 8)];

interface Case {
  readonly make: () => Buffer;
  /** [offset, length] of the bytes that are replaced by ours in the recorded reply. */
  readonly ours?: readonly (readonly [number, number])[];
  /** Bytes of the recorded reply that are compared, from its start; all of them unless given. */
  readonly bytes?: number;
}

const openFd = () => Number(answer(Mid.OpenAt, { fd: root, flags: 2 }).readBigUInt64LE(0));
const create = { fd: root, name: "d" };

const CASES: Record<string, Case> = {
  "Statx (FStat resp)": { make: () => answer(Mid.FStat, { fd: root }), ours: statx(0) },
  Inode: { make: () => answer(Mid.Mount).subarray(0, 152), ours: inode(0) },
  // The list of messages is longer than the recorded one; its values are checked by test/serve.
  "MountResp{Root:Inode,Max:0x1ff000,[Mount,Channel,FStat]}": {
    make: () => answer(Mid.Mount),
    ours: [...inode(0), [156, 2]],
    bytes: 164,
  },
  "SetStatResp{mask=0x200,errno=22}": {
    make: () => answer(Mid.SetStat, { fd: root, mask: 0x200 }),
  },
  "WalkResp{symlink,[Inode]}": {
    make: () => answerOfDirectory(Mid.Walk, { fd: root, names: [LINK_NAME, "further"] }),
    // Mode: Walk tells a symlink by it, and the recorded one is no symlink.
    ours: [...inode(3), [3 + 8 + 28, 2]],
  },
  "WalkStatResp{[Statx]}": {
    make: () => answer(Mid.WalkStat, { fd: root, names: [""] }),
    ours: statx(2),
  },
  "OpenAtResp{9}": { make: () => answer(Mid.OpenAt, { fd: root }), ours: [[0, 1]] },
  "OpenCreateAtResp{Inode,9}": {
    make: () => answer(Mid.OpenCreateAt, create),
    ours: [...inode(0), [152, 1]],
  },
  "PWriteResp{3}": {
    make: () => answer(Mid.PWrite, { fd: openFd() }, Buffer.from("xyz")),
  },
  "PReadResp{xyz}": { make: () => answer(Mid.PRead, { fd: openFd(), count: 100 }) },
  "MkdirAtResp{Inode}": { make: () => answer(Mid.MkdirAt, create), ours: inode(0) },
  // Type: V9FS_MAGIC, as the sentry says itself.
  "StatFS{1..8}": { make: () => answer(Mid.FStatFS, { fd: root }), ours: [[0, 8]] },
  "ReadLinkAtResp{/t}": { make: () => answer(Mid.ReadLinkAt, { fd: root }) },
  // DevMajor is always 0 here.
  "Getdents64Resp{[{ino=1,minor=2,major=3,off=4,type=8,n}]}": {
    make: () => {
      const fd = Number(answerOfDirectory(Mid.OpenAt, { fd: root }).readBigUInt64LE(0));
      answer(Mid.Getdents64, { fd, count: 1 });
      return answer(Mid.Getdents64, { fd, count: 1 });
    },
    ours: [[2 + 12, 4]],
  },
  "FGetXattrResp{v}": { make: () => answer(Mid.FGetXattr, { fd: root, name: "user.a" }) },
  "FListXattrResp{[user.a,user.b]}": { make: () => answer(Mid.FListXattr, { fd: root }) },
};

/** Replies to messages that we always refuse: sockets. */
const NEVER_ANSWERED = ["BindAtResp{Inode,9}", "AcceptResp{''}"];

test("every recorded reply is answered byte for byte", (t) => {
  const vectors = readVectors().filter(({ dir }) => dir !== "req");
  t.strictSame(
    vectors.map(({ name }) => name).sort(),
    [...Object.keys(CASES), ...NEVER_ANSWERED].sort(),
  );
  for (const { name, bytes: recorded } of vectors) {
    const wanted = CASES[name];
    if (wanted === undefined) continue;
    const got = wanted.make();
    const expected = Buffer.from(recorded);
    for (const [offset, length] of wanted.ours ?? [])
      got.copy(expected, offset, offset, offset + length);
    const compared = wanted.bytes ?? Math.max(got.length, expected.length);
    t.equal(
      got.subarray(0, compared).toString("hex"),
      expected.subarray(0, compared).toString("hex"),
      name,
    );
  }
  t.end();
});
