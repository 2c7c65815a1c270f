// Owns: proof that no bytes from /dev/fuse make the decoder read what isn't theirs, and that what a request says is read where the
// kernel puts it. BURROW_FUZZ_SEED repeats a run. Plane: data.
import fc from "fast-check";
import { test } from "tap";
import { Attr } from "../../lib/base/attr.ts";
import { Cursor } from "../../lib/wire/cursor.ts";
import { Opcode, REQUEST_HEAD_BYTES } from "../../lib/wire/fuse/message.ts";
import { direntBytes, ENTRY_BYTES, putDirent, putEntry } from "../../lib/wire/fuse/reply.ts";
import { decodeBody, decodeHead, FuseRequest } from "../../lib/wire/fuse/request.ts";

const seed = Number(process.env["BURROW_FUZZ_SEED"] ?? Date.now() & 0x7fffffff);

/** A request as the kernel writes it, with the bytes of the next behind it. */
function requestOf(opcode: number, body: Uint8Array): { bytes: Buffer; length: number } {
  const length = REQUEST_HEAD_BYTES + body.length;
  const bytes = Buffer.alloc(length + 500, 0x41);
  bytes.fill(0, 0, length).set(body, REQUEST_HEAD_BYTES);
  bytes.writeUInt32LE(length, 0);
  bytes.writeUInt32LE(opcode, 4);
  bytes.writeBigUInt64LE(0x1_0000_0002n, 8);
  bytes.writeBigUInt64LE(7n, 16);
  bytes.writeUInt32LE(1000, 24);
  bytes.writeUInt32LE(1001, 28);
  return { bytes, length };
}

test("any bytes decode or are refused, within their bounds", (t) => {
  t.comment(`seed ${seed}`);
  const opcodes = fc.oneof(
    fc.constantFrom(...Object.values(Opcode)),
    fc.integer({ min: 0, max: 70 }),
  );
  fc.assert(
    fc.property(opcodes, fc.uint8Array({ maxLength: 120 }), (opcode, body) => {
      const { bytes, length } = requestOf(opcode, body);
      const cursor = new Cursor(bytes);
      const request = new FuseRequest();
      if (!decodeHead(cursor, length, request)) return false;
      const isWhole = decodeBody(cursor, request);
      const isWithin = request.dataStart + request.dataLength <= length;
      const names = request.name.length + request.otherName.length;
      return cursor.offset <= length && (!isWhole || (isWithin && names <= body.length));
    }),
    { seed, numRuns: 5_000 },
  );
  t.end();
});

test("a head that says another length is none", (t) => {
  const { bytes, length } = requestOf(Opcode.lookup, Buffer.from("name\0"));
  const cursor = new Cursor(bytes);
  const request = new FuseRequest();
  for (const said of [0, 1, 39, length - 1, length + 1])
    t.equal(decodeHead(cursor, said, request), false, `${said}`);
  t.ok(decodeHead(cursor, length, request) && decodeBody(cursor, request));
  t.strictSame([request.name, request.node, request.uid, request.gid], ["name", 7, 1000, 1001]);
  t.strictSame(request.unique, [2, 1]);
  t.end();
});

test("a name without its end is refused", (t) => {
  for (const opcode of [
    Opcode.lookup,
    Opcode.mkdir,
    Opcode.rename2,
    Opcode.setxattr,
    Opcode.create,
  ]) {
    const { bytes, length } = requestOf(opcode, Buffer.alloc(40, 0x42));
    const cursor = new Cursor(bytes);
    const request = new FuseRequest();
    t.ok(decodeHead(cursor, length, request));
    t.notOk(decodeBody(cursor, request), `opcode ${opcode}`);
  }
  t.end();
});

test("a dentry is padded to eight bytes, an entry is as long as the kernel takes it to be", (t) => {
  for (const name of ["a", "12345678", "x".repeat(255)]) {
    const cursor = new Cursor(Buffer.alloc(600, 0xff));
    putDirent(cursor, 5, 6, 8, name);
    t.equal(cursor.offset, direntBytes(name.length));
    t.equal(cursor.offset % 8, 0);
    t.equal(cursor.view.getUint32(16, true), name.length);
  }
  const cursor = new Cursor(Buffer.alloc(ENTRY_BYTES));
  const attr = new Attr();
  attr.mtimeSec = -1;
  putEntry(cursor, 9, 10, attr, 60);
  t.equal(cursor.offset, ENTRY_BYTES);
  t.notOk(cursor.hasOverrun);
  t.equal(cursor.view.getBigInt64(40 + 32, true), -1n, "before 1970");
  t.end();
});
