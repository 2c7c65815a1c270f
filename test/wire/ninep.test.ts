// Properties of the 9P codec: what is encoded decodes to itself, and no bytes make the decoder throw or read past them.

import fc from "fast-check";
import { test } from "tap";
import { Cursor } from "../../lib/wire/cursor.ts";
import { encodeMessage } from "../../lib/wire/ninep/encode.ts";
import { type Field, Kind, LAYOUTS } from "../../lib/wire/ninep/layout.ts";
import { Decoded, decodeRequest, Request } from "../../lib/wire/ninep/message.ts";
import { HEADER_BYTES, Type, typeName } from "../../lib/wire/ninep/type.ts";
import { isLong } from "../suite/long.ts";

const RUNS = isLong ? 100_000 : 1_000;
const TYPES = Object.values(Type);

const number = (max: number) => fc.oneof(fc.integer({ min: 0, max }), fc.constantFrom(0, max));
/** What a u64 decodes to: -1 stands for every value past 2^53-1. */
const u64 = fc.oneof(fc.maxSafeNat(), fc.constantFrom(-1, 0, 2 ** 32, Number.MAX_SAFE_INTEGER));
const latin1 = fc
  .uint8Array({ maxLength: 300 })
  .map((bytes) => Buffer.from(bytes).toString("latin1"));

function arbitraryOf(field: Field): fc.Arbitrary<unknown> {
  if (field.kind === Kind.u8) return number(0xff);
  if (field.kind === Kind.u16) return number(0xffff);
  if (field.kind === Kind.u32) return number(0xffff_ffff);
  if (field.kind === Kind.u64) return u64;
  if (field.kind === Kind.i64) return fc.maxSafeInteger();
  return field.kind === Kind.names ? fc.array(latin1, { maxLength: 16 }) : latin1;
}

function nameOf(field: Field): string {
  if (field.kind === Kind.names) return "names";
  if (field.kind === Kind.data) return "data";
  return field.at;
}

test("every request decodes to what was encoded", (t) => {
  const buffer = Buffer.alloc(16_384);
  for (const type of TYPES) {
    const layout = LAYOUTS[type]!;
    const fields = fc.record(
      Object.fromEntries(layout.map((field) => [nameOf(field), arbitraryOf(field)])),
    );
    fc.assert(
      fc.property(fields, number(0xffff), (given, tag) => {
        const { names, data, ...rest } = given as Record<string, unknown> & {
          names?: string[];
          data?: string;
        };
        const sent = Object.assign(new Request(), rest);
        if (names !== undefined) {
          sent.nameCount = names.length;
          for (const [i, name] of names.entries()) sent.names[i] = name;
        }
        const bytes = Buffer.from(data ?? "", "latin1");
        const length = encodeMessage(type, tag, sent, new Cursor(buffer), bytes);
        if (length < HEADER_BYTES || buffer.readUInt32LE(0) !== length) return false;
        if (buffer[4] !== type || buffer.readUInt16LE(5) !== tag) return false;
        const got = new Request();
        const cursor = new Cursor(buffer).seek(HEADER_BYTES, length);
        if (decodeRequest(type, cursor, got) !== Decoded.request) return false;
        const { dataStart, dataLength } = got;
        const isSame = layout.every((field) => {
          if (field.kind === Kind.data) {
            return buffer.subarray(dataStart, dataStart + dataLength).equals(bytes);
          }
          if (field.kind === Kind.names) {
            return JSON.stringify(got.names.slice(0, got.nameCount)) === JSON.stringify(names);
          }
          return got[field.at] === sent[field.at];
        });
        // One byte less or more is no such message.
        const short = new Cursor(buffer).seek(HEADER_BYTES, length - 1);
        const long = new Cursor(buffer).seek(HEADER_BYTES, length + 1);
        const isWhole = layout.length === 0;
        return (
          isSame &&
          (isWhole || decodeRequest(type, short, got) === Decoded.malformed) &&
          decodeRequest(type, long, got) === Decoded.malformed
        );
      }),
      { numRuns: Math.ceil(RUNS / 10) },
    );
    t.pass(typeName(type));
  }
  t.end();
});

test("any bytes decode or are refused, within their bounds", (t) => {
  const any = fc.uint8Array({ maxLength: 200 });
  fc.assert(
    fc.property(any, fc.integer({ min: 0, max: 255 }), (bytes, type) => {
      // What lies behind is another message's.
      const buffer = Buffer.concat([bytes, Buffer.alloc(400, 0x41)]);
      const got = new Request();
      const cursor = new Cursor(buffer).seek(0, bytes.length);
      const decoded = decodeRequest(type, cursor, got);
      if (LAYOUTS[type] === undefined) return decoded === Decoded.unknown;
      const isWithin = got.dataStart + got.dataLength <= bytes.length;
      return cursor.offset <= bytes.length && (decoded !== Decoded.request || isWithin);
    }),
    { numRuns: 10 * RUNS },
  );
  t.end();
});

test("a type that is no request is unknown, and none is encoded", (t) => {
  const request = new Request();
  const known = new Set<number>(TYPES);
  for (let type = 0; type < 256; type++) {
    if (known.has(type)) continue;
    const cursor = new Cursor(Buffer.alloc(64));
    t.equal(decodeRequest(type, cursor, request), Decoded.unknown, `type ${type}`);
    t.equal(encodeMessage(type, 1, request, cursor), -1);
  }
  t.end();
});
