// The same operations through LISAFS, 9P, FUSE and a plain local copy give the same. BURROW_SEED repeats a run.

import { test } from "tap";
import { noUpper } from "../suite/served.ts";
import { compareDoors } from "./doors.ts";

const SEQUENCES = Number(process.env["BURROW_SEQUENCES"] ?? 3);
const SEED = Number(process.env["BURROW_SEED"] ?? (Date.now() % 0xffff_fff0) + 1);

test(`a read-only view is the same through every door, seed ${SEED}`, async (t) => {
  await compareDoors(t, { seed: SEED, sequences: SEQUENCES, length: 80, isWritable: false });
});

test(`a writable view is the same through every door, seed ${SEED}`, {
  skip: noUpper,
}, async (t) => {
  await compareDoors(t, { seed: SEED, sequences: 2 * SEQUENCES, length: 80, isWritable: true });
});
