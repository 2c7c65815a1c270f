// Who is put out past a bound of connections.

import { test } from "tap";
import { Crowd } from "../../lib/daemon/crowd.ts";

test("past its bound, one of the user who has the most goes", (t) => {
  const crowd = new Crowd<string>(4, "newest");
  for (const member of ["a1", "a2", "a3"]) t.equal(crowd.add(1, member), undefined);
  t.equal(crowd.add(2, "b1"), undefined, "the bound itself is allowed");
  t.equal(crowd.add(2, "b2"), "a3", "the newest of who has more");
  t.equal(crowd.add(1, "a4"), "a4", "of two who have as many, the new one itself");
  t.equal(crowd.add(3, "c1"), "a2", "of two who have as many, who was here first");
  t.equal(crowd.size, 4);
  crowd.delete(3, "c1");
  crowd.delete(3, "c1");
  crowd.delete(1, "a9");
  t.equal(crowd.size, 3, "deleted once, and only what is in it");
  t.equal(crowd.add(1, "a5"), undefined);
  t.end();
});

test("a user who is alone has all of it; the oldest goes", (t) => {
  const crowd = new Crowd<number>(3, "oldest");
  const gone = [1, 2, 3, 4, 5].map((member) => crowd.add(7, member));
  t.same(gone, [undefined, undefined, undefined, 1, 2]);
  t.equal(crowd.add(8, 9), 3, "another's first comes in for it");
  t.end();
});
