// Doors compared over many seeds, and each exception needed: one that isn't is no longer true. BURROW_SEED is the first seed,
// BURROW_SEEDS how many.

import { test } from "tap";
import { noUpper } from "../suite/served.ts";
import { compareDoors, EXCEPTIONS, neededExceptions } from "./doors.ts";

const FIRST = Number(process.env["BURROW_SEED"] ?? (Date.now() % 0xffff_0000) + 1);
const SEEDS = Number(process.env["BURROW_SEEDS"] ?? 10);
const SEQUENCES = 100;

for (let seed = FIRST; seed < FIRST + SEEDS; seed++) {
  test(`read-only, seed ${seed}`, async (t) => {
    await compareDoors(t, { seed, sequences: SEQUENCES, length: 100, isWritable: false });
  });
  test(`writable, seed ${seed}`, { skip: noUpper }, async (t) => {
    await compareDoors(t, { seed, sequences: SEQUENCES, length: 200, isWritable: true });
  });
}

test("every exception is needed", (t) => {
  for (const { name, why } of EXCEPTIONS) t.ok(neededExceptions.has(name), `${name}: ${why}`);
  t.end();
});
