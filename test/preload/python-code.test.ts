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
