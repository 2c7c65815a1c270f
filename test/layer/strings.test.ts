// Owns: proof that the strings of an index are each there once, in the order in which they came, however many they are. Plane: control.

import fc from "fast-check";
import { test } from "tap";
import { Strings } from "../../lib/layer/strings.ts";
import { RUNS, SEED } from "./trees.ts";

/** Offsets as a Map has them, and all that was added one after the other. */
class Model {
  readonly offsets = new Map<string, number>();
  all = "";

  add(text: string): number {
    const known = this.offsets.get(text);
    if (known !== undefined) return known;
    this.offsets.set(text, this.all.length);
    this.all += text;
    return this.all.length - text.length;
  }
}

/** Names first, then texts, as indexes are written; room is for one of each. */
function isAsModel(names: readonly string[], texts: readonly string[]): boolean {
  const strings = new Strings(1, 1);
  const model = new Model();
  const added = names.map((name) => {
    const bytes = Buffer.from(`<${name}>`, "latin1");
    return strings.addName(bytes, 1, name.length) === model.add(name);
  });
  added.push(...texts.map((text) => strings.addText(text) === model.add(text)));
  const bytes = Buffer.alloc(strings.length);
  strings.writeTo(bytes, 0);
  return !added.includes(false) && bytes.toString("latin1") === model.all;
}

const latin1 = (min: number, max: number) =>
  fc
    .uint8Array({ minLength: min, maxLength: max })
    .map((bytes) => Buffer.from(bytes).toString("latin1"));

test("strings are those of a model", (t) => {
  t.comment(`seed ${SEED}`);
  const name = latin1(1, 255).map((text) => `n${text.slice(1).replaceAll(/[/\0]/g, "_")}`);
  const text = fc.oneof(latin1(0, 8), latin1(250, 300), name);
  const property = fc.property(fc.array(name), fc.array(text), isAsModel);
  t.doesNotThrow(() => fc.assert(property, { numRuns: RUNS, seed: SEED }));
  t.end();
});

test("very many are taken, and names that differ in one byte are told apart", (t) => {
  const names = Array.from({ length: 20_000 }, (_, i) => `module-${i % 15_000}.py`);
  const bytes = Array.from({ length: 256 }, (_, i) => `value ${String.fromCharCode(i)}`);
  const zeros = Array.from({ length: 300 }, (_, i) => "\0".repeat(i));
  t.ok(isAsModel(names, [...bytes, ...zeros, ...bytes, ...zeros, ...names]));
  t.end();
});

test("what is no name is not added", (t) => {
  const strings = new Strings(1, 1);
  for (const name of ["", ".", "..", "a/b", "/", "a\0", "\0", "x".repeat(256)]) {
    t.ok(strings.addName(Buffer.from(name, "latin1"), 0, name.length) < 0, JSON.stringify(name));
  }
  t.equal(strings.length, 0);
  for (const name of ["...", ".a", "a.", "x".repeat(255)]) {
    t.ok(strings.addName(Buffer.from(name), 0, name.length) >= 0, name);
  }
  t.end();
});
