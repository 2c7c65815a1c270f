// Properties of the LISAFS codec: what is encoded decodes to itself, and no bytes make the decoder throw or read past them.

import fc from "fast-check";
import { test } from "tap";
import { Cursor } from "../../lib/wire/cursor.ts";
import { encodeRequest } from "../../lib/wire/lisafs/encode.ts";
import { decodeRequest, Request } from "../../lib/wire/lisafs/message.ts";
import { MID_COUNT, Mid, midName } from "../../lib/wire/lisafs/mid.ts";
import { isLong } from "../suite/long.ts";

const RUNS = isLong ? 100_000 : 1_000;

/** What a u64 decodes to: -1 stands for every value past 2^53-1. */
const u64 = fc.oneof(
  fc.integer({ min: 0, max: 100 }),
  fc.maxSafeNat(),
  fc.constantFrom(-1, 2 ** 32, 2 ** 32 - 1, Number.MAX_SAFE_INTEGER),
);
const i64 = fc.maxSafeInteger();
const u32 = fc.oneof(fc.integer({ min: 0, max: 0xffff_ffff }), fc.constantFrom(0, 0xffff_ffff));
const i32 = fc.integer({ min: -0x8000_0000, max: 0x7fff_ffff });
const u16 = fc.integer({ min: 0, max: 0xffff });
const latin1 = fc
  .uint8Array({ maxLength: 300 })
  .map((bytes) => Buffer.from(bytes).toString("latin1"));

const owner = { uid: u32, gid: u32 };
const create = { fd: u64, ...owner, mode: u16, name: latin1 };
const twoNames = { name: latin1, otherName: latin1 };

/** The fields that each message carries. */
const FIELDS: Record<number, Record<string, fc.Arbitrary<unknown>>> = {
  [Mid.Mount]: {},
  [Mid.Channel]: {},
  [Mid.FStat]: { fd: u64 },
  [Mid.SetStat]: {
    fd: u64,
    mask: u32,
    mode: u32,
    ...owner,
    length: u64,
    atimeSec: i64,
    atimeNs: i64,
    mtimeSec: i64,
    mtimeNs: i64,
  },
  [Mid.Walk]: { fd: u64, names: fc.array(latin1, { maxLength: 40 }) },
  [Mid.WalkStat]: { fd: u64, names: fc.array(latin1, { maxLength: 40 }) },
  [Mid.OpenAt]: { fd: u64, flags: u32 },
  [Mid.OpenCreateAt]: { ...create, flags: u32 },
  [Mid.Close]: { fds: fc.array(u64, { maxLength: 300 }) },
  [Mid.FSync]: { fds: fc.array(u64, { maxLength: 300 }) },
  [Mid.PWrite]: { offset: u64, fd: u64, data: fc.uint8Array({ maxLength: 5000 }) },
  [Mid.PRead]: { offset: u64, fd: u64, count: u32 },
  [Mid.MkdirAt]: create,
  [Mid.MknodAt]: { ...create, minor: u32, major: u32 },
  [Mid.SymlinkAt]: { fd: u64, ...owner, ...twoNames },
  [Mid.LinkAt]: { fd: u64, otherFd: u64, name: latin1 },
  [Mid.FStatFS]: { fd: u64 },
  [Mid.FAllocate]: { fd: u64, mode: u64, offset: u64, length: u64 },
  [Mid.ReadLinkAt]: { fd: u64 },
  [Mid.Flush]: { fd: u64 },
  [Mid.Connect]: { fd: u64, sockType: u32 },
  [Mid.UnlinkAt]: { fd: u64, flags: u32, name: latin1 },
  [Mid.RenameAt]: { fd: u64, otherFd: u64, ...twoNames },
  [Mid.Getdents64]: { fd: u64, count: i32 },
  [Mid.FGetXattr]: { fd: u64, count: u32, name: latin1 },
  [Mid.FSetXattr]: { fd: u64, flags: u32, ...twoNames },
  [Mid.FListXattr]: { fd: u64, count: u64 },
  [Mid.FRemoveXattr]: { fd: u64, name: latin1 },
  [Mid.BindAt]: { ...create, sockType: u32 },
  [Mid.Listen]: { fd: u64, count: i32 },
  [Mid.Accept]: { fd: u64 },
  [Mid.ConnectWithCreds]: { fd: u64, sockType: u32, ...owner },
  [Mid.RenameAt2]: { fd: u64, otherFd: u64, ...twoNames, flags: u32 },
};

interface Made extends Partial<Request> {
  data?: Uint8Array;
}

/** A request as it comes out of the decoder, less what earlier messages left in the arrays. */
function plain(request: Request): Record<string, unknown> {
  return {
    ...request,
    names: request.names.slice(0, request.nameCount),
    fds: request.fds.slice(0, request.fdCount),
  };
}

for (let mid = 1; mid < MID_COUNT; mid++) {
  test(`${midName(mid)} decodes to what was encoded`, (t) => {
    const bytes = Buffer.alloc(64 * 1024);
    const property = fc.property(fc.record(FIELDS[mid]!), (made: Made) => {
      const { data, ...fields } = made;
      const request = Object.assign(new Request(), fields);
      request.nameCount = request.names.length;
      request.fdCount = request.fds.length;
      const to = new Cursor(bytes);
      if (!encodeRequest(mid, request, to, data)) return false;
      const from = new Cursor(bytes.subarray(0, to.offset));
      const got = new Request();
      if (!decodeRequest(mid, from, got) || from.offset !== to.offset) return false;
      if (data !== undefined) {
        request.dataStart = to.offset - data.length;
        request.dataLength = data.length;
        const stands = bytes.subarray(got.dataStart, got.dataStart + got.dataLength);
        if (Buffer.compare(stands, data) !== 0) return false;
      }
      t.strictSame(plain(got), plain(request));
      return !from.hasOverrun;
    });
    fc.assert(property, { numRuns: Math.ceil(RUNS / 10) });
    t.end();
  });
}

test("no payload makes the decoder throw or read past its end", (t) => {
  const before = 64;
  const property = fc.property(
    fc.integer({ min: 0, max: MID_COUNT + 2 }),
    fc.uint8Array({ maxLength: 400 }),
    (mid, payload) => {
      const outcomes = [0x00, 0xff].map((around) => {
        const bytes = Buffer.alloc(before + payload.length + 512, around);
        bytes.set(payload, before);
        const cursor = new Cursor(bytes).seek(before, before + payload.length);
        const request = new Request();
        const isWhole = decodeRequest(mid, cursor, request);
        if (cursor.offset < before || cursor.offset > cursor.end) return undefined;
        const dataEnd = request.dataStart + request.dataLength;
        if (isWhole && dataEnd > cursor.end) return undefined;
        return { isWhole, at: cursor.offset, ...plain(request) };
      });
      return (
        outcomes[0] !== undefined && JSON.stringify(outcomes[0]) === JSON.stringify(outcomes[1])
      );
    },
  );
  fc.assert(property, { numRuns: RUNS * 10 });
  t.end();
});

test("a reply that does not fit leaves the bytes behind it alone", (t) => {
  const property = fc.property(
    fc.nat(64),
    fc.array(fc.nat(7), { maxLength: 20 }),
    (room, steps) => {
      const bytes = Buffer.alloc(room + 64, 0xee);
      const cursor = new Cursor(bytes).seek(0, room);
      for (const step of steps) {
        if (step === 0) cursor.putU8(1);
        if (step === 1) cursor.putU16(1);
        if (step === 2) cursor.putU32(1);
        if (step === 3) cursor.putU64(1);
        if (step === 4) cursor.putI64(-1);
        if (step === 5) cursor.putSizedText("some text");
        if (step === 6) cursor.putBytes(Buffer.alloc(11));
        if (step === 7) cursor.skip(5);
      }
      return bytes.subarray(room).every((byte) => byte === 0xee) && cursor.offset <= room;
    },
  );
  fc.assert(property, { numRuns: RUNS });
  t.end();
});
