// The same operations through LISAFS, 9P, FUSE and a plain local copy give the same. BURROW_SEED repeats a run.

import { test } from "tap";
import { openDoors } from "../suite/door-scene.ts";
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

// doors.long, seed 67094518: 9P read the file below, which it had kept when it was opened.
test("what is held to be read shows what is written later, by any name", { skip: noUpper }, (t) => {
  const { doors } = openDoors(
    t,
    [
      { type: "directory", path: "d" },
      { type: "file", path: "d/f", content: Buffer.from("old") },
    ],
    true,
  );
  const path = ["d", "f"] as const;
  for (const door of doors) {
    const held = door.open(path, 0);
    const written = door.open(path, 1);
    t.equal(door.write(written, 0, Buffer.from("new")), 3, door.name);
    t.equal(String(door.read(held, 0, 10)), "new", door.name);
    for (const handle of [held, written]) door.close(handle);
  }
  t.end();
});

// doors.long, seed 72911962: neither had the bit over 9P and FUSE, whose clients' kernels see to it.
test("a program in a set-group-id directory has the bit where it is asked for", {
  skip: noUpper,
}, (t) => {
  const { doors } = openDoors(t, [{ type: "directory", path: "d", mode: 0o2775 }], true);
  const modes = doors.map((door) => {
    const handle = door.create(["d", "program"], 1, 0o2755);
    const facts = door.fstat(handle);
    door.close(handle);
    return `${door.name} ${typeof facts === "number" ? facts : facts.mode.toString(8)}`;
  });
  t.same(modes, ["local 2755", "LISAFS 755", "9P 2755"], "but where nobody says whose it is");
  t.end();
});
