// Owns: the long run of repair.test.ts: every object of a store. Plane: control.

import { t as file, test } from "tap";
import { damageEach } from "./repair-node.ts";

file.setTimeout(3_600_000); // of the file; each test has its own

test(
  "every object of a store, damaged in every way, is written again",
  {
    timeout: 600_000,
  },
  (t) => damageEach(t, true),
);
