// Imports in Python's byte code: of each version that is known, and nothing but "unknown" of what is none.

import fs from "node:fs";
import fc from "fast-check";
import { test } from "tap";
import { importsOfCode } from "../../lib/preload/python-code.ts";

/** Of one module, by the six versions' own py_compile: base64. */
const GOLDEN = JSON.parse(
  fs.readFileSync(new URL("../../../test/golden/python-byte-code.json", import.meta.url), "utf8"),
) as Record<string, string>;
const codes = Object.values(GOLDEN).map((text) => Buffer.from(text, "base64"));

test("imports of byte code, as CPython 3.8 to 3.13 write it", async (t) => {
  t.equal(codes.length, 6);
  for (const [version, text] of Object.entries(GOLDEN)) {
    const found = importsOfCode(Buffer.from(text, "base64"));
    const wanted = [
      { level: 0, module: "os", names: [] },
      { level: 0, module: "sys", names: [] },
      { level: 0, module: "a.b.c", names: [] },
      { level: 1, module: "", names: ["x", "y"] },
      { level: 2, module: "p.q", names: ["r"] },
      { level: 0, module: "t", names: ["*"] },
      { level: 0, module: "u", names: [] },
    ];
    t.same(found, wanted, version);
  }
});

/** By 3.11's own: `if TYPE_CHECKING` with two imports and an `else` with c, `if typing.TYPE_CHECKING` with d, `if not TYPE_CHECKING` with e. */
const CHECKED =
  "pw0NCgAAAAAAAAAAAAAAAOMAAAAAAAAAAAAAAAACAAAAAAAAAPNqAAAAlwBkAGQBbABaAGQAZAJsAW0CWgIBAGQAZAFsAVoBZQJyC2QAZAFsA1oEZANkBGwFbQZaBgEAbgRkAGQBbAdaB2UBagIAAAAAAAAAAHIEZABkAWwIWghlAnMGZABkAWwJWglkAVMAZAFTACkF6QAAAABOKQHaDVRZUEVfQ0hFQ0tJTkfpAQAAACkB2gFiKQraAm9z2gZ0eXBpbmdyAwAAANoJYS5jaGVja2Vk2gFh2gdjaGVja2VkcgUAAADaAWPaAWTaAWWpAPMAAAAA+gRtLnB5+gg8bW9kdWxlPnIRAAAAAQAAAHMAAAAA8wAAAAA=";

test("what is imported for checkers of types alone is left out", async (t) => {
  const found = importsOfCode(Buffer.from(CHECKED, "base64")) ?? [];
  t.same(
    found.map(({ module }) => module),
    ["os", "typing", "typing", "c", "e"],
  );
});

/** Code objects of names: a level, and no list of names. */
function codeOf(magic: number, numbers: number, code: readonly number[]): Buffer {
  const short = (text: string) => Buffer.from([0x7a, text.length, ...Buffer.from(text)]);
  const u32 = (value: number) => Buffer.from(Uint32Array.of(value).buffer);
  const header = Buffer.concat([Buffer.from([magic & 255, magic >> 8, 13, 10]), Buffer.alloc(12)]);
  const consts = [Buffer.from(")\x02i"), u32(0), Buffer.from("N")];
  const names = [Buffer.from(")\x04"), ...["typing", "TYPE_CHECKING", "a", "b"].map(short)];
  const body = [Buffer.from("s"), u32(code.length), Buffer.from(code)];
  const start = [header, Buffer.from("c"), Buffer.alloc(4 * numbers)];
  return Buffer.concat([...start, ...body, ...consts, ...names]);
}

test("so it is by the jumps of each version, as dis documents them", async (t) => {
  const importing = (name: number) => [100, 0, 100, 1, 108, name];
  const importing313 = (name: number) => [83, 0, 83, 1, 75, name];
  const counts = (many: number) => Array.from({ length: 2 * many }, () => 0);
  // The jump leads over three instructions; what it says is a place in bytes, in instructions, or how many.
  const name = [101, 1];
  const attribute = (bits: number) => [101, 0, 106, 1 << bits];
  const cases: readonly (readonly [string, number, number, readonly number[]])[] = [
    ["3.8", 3413, 6, [...name, 114, 10, ...importing(2), ...importing(3)]],
    ["3.9", 3425, 6, [...attribute(0), 114, 12, ...importing(2), ...importing(3)]],
    ["3.10", 3439, 6, [...attribute(0), 114, 6, ...importing(2), ...importing(3)]],
    ["3.11", 3495, 5, [...attribute(0), ...counts(4), 114, 3, ...importing(2), ...importing(3)]],
    ["3.12", 3531, 5, [...attribute(1), ...counts(9), 114, 3, ...importing(2), ...importing(3)]],
    [
      "3.13",
      3571,
      5,
      [92, 1, 40, 0, ...counts(3), 97, 3, ...counts(1), ...importing313(2), ...importing313(3)],
    ],
  ];
  for (const [version, magic, numbers, code] of cases) {
    const found = importsOfCode(codeOf(magic, numbers, code));
    t.same(found, [{ level: 0, module: "b", names: [] }], version);
  }
  // Of another value nothing is left out.
  const other = [...name, 101, 2, 114, 12, ...importing(2), ...importing(3)];
  t.equal(importsOfCode(codeOf(3413, 6, other))?.length, 2);
  // Nor does a jump back go on for ever.
  t.equal(importsOfCode(codeOf(3413, 6, [...name, 114, 0, ...importing(2)]))?.length, 1);
});

test("of other versions, cut off or of no code nothing is known", async (t) => {
  const [code] = codes;
  const other = Buffer.from(code!);
  other.writeUInt16LE(3_600, 0);
  t.equal(importsOfCode(other), undefined);
  for (let length = 0; length < 200; length++)
    t.notOk(importsOfCode(code!.subarray(0, length))?.length, `${length} bytes`);
  t.equal(importsOfCode(Buffer.alloc(4_096)), undefined);
});

test("nesting without end is left", async (t) => {
  const header = codes[3]!.subarray(0, 16);
  t.equal(importsOfCode(Buffer.concat([header, Buffer.alloc(1 << 20, ")\x01")])), undefined);
  // Code in code: 100,000 deep.
  const code = Buffer.concat([Buffer.from("c"), Buffer.alloc(20)]);
  const deep = Buffer.concat([header, ...Array.from({ length: 100_000 }, () => code)]);
  t.equal(importsOfCode(deep), undefined);
  // Tuples that say they have four billion elements.
  const many = Buffer.from([0x28, 0xff, 0xff, 0xff, 0xff]);
  t.equal(importsOfCode(Buffer.concat([header, code, many, many])), undefined);
});

test("no bytes make it fail, nor go on for long", async () => {
  const changed = fc
    .tuple(fc.constantFrom(...codes), fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 8 }))
    .map(([code, changes]) => {
      const bytes = Buffer.from(code);
      for (const [at, value] of changes) bytes[16 + (at % (bytes.length - 16))] = value;
      return bytes;
    });
  fc.assert(
    fc.property(changed, (bytes) => {
      importsOfCode(bytes);
    }),
    { numRuns: 500 },
  );
});
