// What the dynamic linker reads of ELF files, and that no bytes of anybody make it fail.

import fs from "node:fs";
import fc from "fast-check";
import { test } from "tap";
import { elfHead, elfNeeds, elfText } from "../../lib/preload/elf-start.ts";
import { elf } from "../suite/elf-file.ts";

function read(file: Buffer) {
  const head = elfHead(file.subarray(0, 4_096));
  if (head?.dynamic === undefined) return undefined;
  const needs = elfNeeds(head, file.subarray(head.dynamic.offset, head.dynamic.end));
  const text = (range: { offset: number; end: number } | undefined) =>
    range && elfText(file.subarray(range.offset, range.end));
  return { ...needs, head, names: needs.needed.map(text), path: text(needs.paths) };
}

test("names, search path and what is read at once", async (t) => {
  const file = elf({
    needed: ["liba.so.1", "libb.so"],
    runpath: "$ORIGIN/../lib",
    bytes: 9_000_000,
  });
  const found = read(file)!;
  t.same(found.names, ["liba.so.1", "libb.so"]);
  t.equal(found.path, "$ORIGIN/../lib");
  t.equal(found.loaded[0]!.offset, 0);
  const written = found.loaded[1]!;
  const { dynamic } = found.head;
  t.ok(dynamic!.offset >= written.offset && dynamic!.end <= written.end, "and what it writes to");
});

test("of constants behind code their beginning", async (t) => {
  const segment = (offset: number, end: number, flags: number) => ({
    ...{ offset, end, address: offset },
    ...{ isWritten: (flags & 2) !== 0, isRun: (flags & 1) !== 0 },
  });
  const segments = [
    segment(0, 4_096, 4),
    segment(4_096, 9_000_000, 5),
    segment(9_000_000, 12_000_000, 4),
    segment(12_000_000, 12_001_000, 4),
    segment(13_000_000, 13_500_000, 6),
  ];
  const head = { interpreter: undefined, dynamic: undefined, segments };
  const [, ...loaded] = elfNeeds(head, Buffer.alloc(0)).loaded;
  const has = (offset: number) => loaded.some((each) => each.offset <= offset && offset < each.end);
  t.ok(has(9_000_000) && has(12_000_999) && has(13_499_999));
  t.notOk(has(4_096), "no code");
  t.notOk(has(11_999_999), "nor what lies behind them");
});

test("the program that runs this", async (t) => {
  const file = fs.readFileSync(process.execPath);
  const found = read(file)!;
  const { interpreter } = found.head;
  const linker = elfText(file.subarray(interpreter!.offset, interpreter!.end));
  t.match(linker, /^\/lib.*\/ld-linux-/);
  t.ok(
    found.names.some((name) => /^libc\.so\.6$/.test(name!)),
    found.names.join(),
  );
});

test("no bytes make it fail", async (t) => {
  t.equal(elfHead(Buffer.alloc(0)), undefined);
  t.equal(elfHead(Buffer.from("#!/bin/sh\n")), undefined);
  const whole = elf({ needed: ["liba.so"], runpath: "/x", bytes: 10_000 });
  const changes = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 12 });
  fc.assert(
    fc.property(changes, (each) => {
      const bytes = Buffer.from(whole);
      for (const [at, value] of each) bytes[at % bytes.length] = value;
      read(bytes);
    }),
    { numRuns: 500 },
  );
});
