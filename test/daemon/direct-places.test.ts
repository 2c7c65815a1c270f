// Owns: proof that a tenant's direct mounts leave places for the others, whatever comes and goes. Plane: control.

import fc from "fast-check";
import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { type DirectPlace, givesWay, refusalOf } from "../../lib/daemon/direct-places.ts";

const MOST = 32;
const ofTenants = (used: Readonly<Record<string, number>>): DirectPlace[] =>
  Object.entries(used).flatMap(([tenant, count]) => Array(count).fill({ tenant, users: 1 }));

/** How many mounts each of `tenants` tenants comes to, when all want as many as they can have and each in its turn. */
function sharesOf(tenants: number): number[] {
  const used = Object.fromEntries(Array.from({ length: tenants }, (_, i) => [`t${i}`, 0]));
  for (let isMore = true; isMore; ) {
    isMore = false;
    for (const tenant of Object.keys(used)) {
      if (refusalOf(ofTenants(used), tenant, MOST) !== 0) continue;
      used[tenant]!++;
      isMore = true;
    }
  }
  return Object.values(used);
}

test("one tenant comes to half of all, two in turns to a third each, and so on", async (t) => {
  t.same(sharesOf(1), [16]);
  t.same(sharesOf(2), [11, 11]);
  t.same(sharesOf(3), [8, 8, 8]);
  t.same(sharesOf(40), [...Array(32).fill(1), ...Array(8).fill(0)]);
  t.equal(refusalOf(ofTenants({ a: 16 }), "a", MOST), Errno.EDQUOT);
  t.equal(refusalOf(ofTenants({ a: 16, b: 7 }), "b", MOST), 0);
  t.equal(refusalOf(ofTenants({ a: 16, b: 8 }), "b", MOST), Errno.EDQUOT);
  t.equal(refusalOf(ofTenants({ a: 16, b: 15 }), "c", MOST), 0);
  t.equal(refusalOf(ofTenants({ a: 16, b: 16 }), "c", MOST), Errno.ENFILE);
});

test("mounts that no sandbox has count for nothing, and those of who has most go first", async (t) => {
  const idle = (tenant: string, name: string) => ({ tenant, users: 0, name });
  const used = (tenant: string) => ({ tenant, users: 2, name: "used" });
  t.equal(refusalOf([idle("a", "1"), idle("a", "2")], "a", 1), 0);
  const places = [idle("a", "1"), idle("b", "2"), used("b"), idle("b", "3"), used("c"), used("c")];
  t.equal(givesWay(places)?.name, "2");
  t.equal(givesWay([...places, used("a"), used("a")])?.name, "1", "the longest unused of equals");
  t.equal(givesWay([used("a")]), undefined);
  t.equal(givesWay([]), undefined);
});

test("whoever has one already leaves a place for a tenant that has none", async (t) => {
  const step = fc.record({ tenant: fc.constantFrom("a", "b", "c", "d"), isTaken: fc.boolean() });
  const seed = Date.now() % 2 ** 31;
  t.comment(`seed ${seed}`);
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 8 }),
      fc.array(step, { maxLength: 60 }),
      (most, steps) => {
        const used: Record<string, number> = { a: 0, b: 0, c: 0, d: 0 };
        for (const { tenant, isTaken } of steps) {
          if (!isTaken) used[tenant] = Math.max(0, used[tenant]! - 1);
          else if (refusalOf(ofTenants(used), tenant, most) === 0) {
            const isFirst = used[tenant]!++ === 0;
            const all = ofTenants(used).length;
            if (all > most || (!isFirst && most - all < 1)) return false;
          } else if (used[tenant] === 0 && ofTenants(used).length < most) return false;
        }
        return true;
      },
    ),
    { seed, numRuns: 200 },
  );
});
