// Every recorded request of gVisor's own marshallers: decodes to the values in its name, and re-encodes byte for byte.

import { test } from "tap";
import { Cursor } from "../../lib/wire/cursor.ts";
import { encodeRequest } from "../../lib/wire/lisafs/encode.ts";
import { decodeRequest, Request } from "../../lib/wire/lisafs/message.ts";
import { readVectors } from "../suite/golden.ts";

const S_IFIFO = 0o010000;

/** By vector name: what must come out; `data` of PWrite as text. */
const WANTED: Record<string, Partial<Request> & { data?: string }> = {
  MountReq: {},
  "StatReq{7}": { fd: 7 },
  SetStatReq: {
    fd: 1,
    mask: 2,
    mode: 3,
    uid: 4,
    gid: 5,
    length: 6,
    atimeSec: 7,
    atimeNs: 8,
    mtimeSec: 9,
    mtimeNs: 10,
  },
  "WalkReq{7,[ab,c]}": { fd: 7, nameCount: 2, names: ["ab", "c"] },
  "WalkStatReq{7,['',c]}": { fd: 7, nameCount: 2, names: ["", "c"] },
  "OpenAtReq{7,O_RDWR}": { fd: 7, flags: 2 },
  "OpenCreateAtReq{dir7,uid1000,gid1001,mode0644,O_RDWR,new}": {
    fd: 7,
    uid: 1000,
    gid: 1001,
    mode: 0o644,
    flags: 2,
    name: "new",
  },
  "CloseReq{[1,2]}": { fdCount: 2, fds: [1, 2] },
  "FsyncReq{[1]}": { fdCount: 1, fds: [1] },
  "PWriteReq{off=0x100,fd=7,3 bytes}": { offset: 0x100, fd: 7, dataLength: 3, data: "xyz" },
  "PReadReq{off=0x100,fd=7,count=4096}": { offset: 0x100, fd: 7, count: 4096 },
  "MkdirAtReq{7,1000,1001,0755,d}": { fd: 7, uid: 1000, gid: 1001, mode: 0o755, name: "d" },
  "MknodAtReq{7,1000,1001,S_IFIFO|0644,minor=0x11,major=0x22,p}": {
    fd: 7,
    uid: 1000,
    gid: 1001,
    mode: S_IFIFO | 0o644,
    minor: 0x11,
    major: 0x22,
    name: "p",
  },
  "SymlinkAtReq{7,uid1000,gid1001,name=n,target=/t}": {
    fd: 7,
    uid: 1000,
    gid: 1001,
    name: "n",
    otherName: "/t",
  },
  "LinkAtReq{dir7,target8,n}": { fd: 7, otherFd: 8, name: "n" },
  "FStatFSReq{7}": { fd: 7 },
  "FAllocateReq{7,mode1,off2,len3}": { fd: 7, mode: 1, offset: 2, length: 3 },
  "ReadLinkAtReq{7}": { fd: 7 },
  "FlushReq{7}": { fd: 7 },
  "ConnectReq{7,SOCK_STREAM}": { fd: 7, sockType: 1 },
  "UnlinkAtReq{7,AT_REMOVEDIR,n}": { fd: 7, flags: 0x200, name: "n" },
  "RenameAtReq{old7,new8,a,bc}": { fd: 7, otherFd: 8, name: "a", otherName: "bc" },
  "Getdents64Req{7,-65536}": { fd: 7, count: -65_536 },
  "FGetXattrReq{7,buf=100,user.a}": { fd: 7, count: 100, name: "user.a" },
  "FSetXattrReq{7,flags=1,user.a,v}": { fd: 7, flags: 1, name: "user.a", otherName: "v" },
  "FListXattrReq{7,size=100}": { fd: 7, count: 100 },
  "FRemoveXattrReq{7,user.a}": { fd: 7, name: "user.a" },
  "BindAtReq{7,1000,1001,0755,SOCK_STREAM,s}": {
    fd: 7,
    uid: 1000,
    gid: 1001,
    mode: 0o755,
    sockType: 1,
    name: "s",
  },
  "ListenReq{7,backlog=5}": { fd: 7, count: 5 },
  "AcceptReq{7}": { fd: 7 },
};

test("every recorded request decodes to its values and re-encodes to its bytes", (t) => {
  const vectors = readVectors().filter(({ dir }) => dir === "req");
  t.strictSame(
    vectors.map(({ name }) => name),
    Object.keys(WANTED),
  );
  for (const { name, mid, bytes } of vectors) {
    const { data, ...fields } = WANTED[name]!;
    const request = new Request();
    const cursor = new Cursor(bytes);
    t.ok(decodeRequest(mid, cursor, request), `${name} is whole`);
    t.equal(cursor.offset, bytes.length, `${name} is read to its end`);
    const { dataStart, dataLength } = request;
    const got = { ...request, dataStart: 0 };
    t.strictSame(got, { ...new Request(), ...fields }, name);

    const written = bytes.subarray(dataStart, dataStart + dataLength);
    if (data !== undefined) t.equal(written.toString("latin1"), data, `${name}'s data`);
    const to = new Cursor(Buffer.alloc(bytes.length, 0xee));
    t.ok(encodeRequest(mid, request, to, written), `${name} fits`);
    t.equal(to.buffer.toString("hex"), bytes.toString("hex"), `${name}'s bytes`);
  }
  t.end();
});

test("each recorded request is too short without its last byte", (t) => {
  for (const { name, mid, bytes, dir } of readVectors()) {
    if (dir !== "req" || bytes.length === 0) continue;
    const cursor = new Cursor(bytes.subarray(0, bytes.length - 1));
    t.equal(decodeRequest(mid, cursor, new Request()), false, name);
  }
  t.end();
});
