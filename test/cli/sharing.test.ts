// Owns: what is said of a sandbox that asked to share a server, by its gofer's log; real ones are in shared.long. Plane: any.

import { test } from "tap";
import { directFlags, directRows, sharingOf, showSharing } from "../../lib/cli/sharing.ts";

test("a gofer's log says whether its sandbox shared a server, and why it didn't", async (t) => {
  const log = (line: string) => `2026-11-22T10:03:15.979Z burrow gofer: ${line}\n`;
  const alone = log("serving 2 mounts after 24 ms of CPU and 12 in the kernel");
  const shared = sharingOf(log("serving 2 mounts, shared with 0 more"));
  t.same(shared, { isShared: true });
  t.equal(showSharing(shared), "shared");
  const refused = sharingOf(log("shares no server: no standby") + alone);
  t.same(refused, { isShared: false, reason: "no standby" });
  t.equal(showSharing(refused), "its own: no standby");
  for (const text of [alone, ""])
    t.match(sharingOf(text), { isShared: false, reason: /none.*burrow daemon start --shared/ });
  t.same(sharingOf(log("serving 1 mount, shared with 3 more")), { isShared: true });
});

test("a daemon's direct mounts have a row where any was asked for", async (t) => {
  t.same(directRows(undefined), []);
  const direct = { views: 2, most: 32, users: 1, made: 3, shared: 4, refused: 5, restarts: 6 };
  t.same(directRows(direct), [
    ["directfs", "1 sandbox on 2 of 32 mounts; 3 made, 4 found there, 5 refused"],
  ]);
});

test("a sandbox that is to work on its view itself is refused what can't be given so", async (t) => {
  const query = { base: "base", tmpSize: "256M" };
  t.same(directFlags(false, { ...query, writable: true }, true), []);
  t.same(directFlags(true, query, false), ["--directfs=true"]);
  t.same(directFlags(true, { ...query, bind: [] }, false), ["--directfs=true"]);
  const refused = { writable: true, upper: "kept", explain: true, bind: ["/x=/y"] } as const;
  for (const [name, value] of Object.entries(refused))
    t.throws(() => directFlags(true, { ...query, [name]: value }, false), {
      code: "BURROW_USAGE",
      message: new RegExp(`^--directfs and --${name}: .*leave one of them out`),
    });
  t.throws(() => directFlags(true, query, true), { message: /--directfs and --shared/ });
});
