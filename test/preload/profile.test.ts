// Profiles: what is learned is kept, in its order and within its bounds; bytes that are no profile are refused.

import * as fc from "fast-check";
import { test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { showDigest } from "../../lib/base/digest.ts";
import {
  PROFILE_ALL_ASKS_MAX,
  PROFILE_ASKS_MAX,
  PROFILE_COMMANDS_MAX,
  PROFILE_COMPOSED_ASKS_MAX,
  PROFILE_FILE_MAX_BYTES,
  PROFILE_PACKAGES_MAX,
} from "../../lib/base/limits.ts";
import { IDLE_MAX, Profile } from "../../lib/preload/profile.ts";

const SNAPSHOT = "5".repeat(64) as Digest;
const keyOf = (i: number) => i.toString(16).padStart(32, "0");
const ask = (row: number, first = 0, count = 0) => ({ row, first, count });

test("who is unknown is given what all asked for, in the order it was learned", async (t) => {
  const profile = new Profile(SNAPSHOT);
  t.same(profile.asks(""), []);
  t.ok(profile.learn(keyOf(1), [ask(7), ask(3)]));
  t.ok(profile.learn(keyOf(2), [ask(3), ask(9, 4, 2)]));
  t.same(profile.asks(keyOf(1)), [ask(7), ask(3)]);
  t.same(profile.asks(keyOf(2)), [ask(3), ask(9, 4, 2)]);
  t.same(profile.asks(keyOf(3)), [ask(7), ask(3), ask(9, 4, 2)]);
  t.notOk(profile.learn(keyOf(2), [ask(3)]), "nothing new");
  t.ok(profile.learn(keyOf(2), [ask(9, 4, 8)]), "more blocks from the same one");
  t.same(profile.asks(keyOf(2)), [ask(3), ask(9, 4, 8)]);
});

test("what a start touched is learned in its order; what others need stays", async (t) => {
  const profile = new Profile(SNAPSHOT);
  const [own, other] = [keyOf(1), keyOf(2)];
  t.ok(profile.learnTouched(own, [ask(7), ask(3), ask(9)], true));
  t.notOk(
    profile.learnTouched(own, [ask(3), ask(9), ask(7)], true),
    "another order is nothing new",
  );
  t.ok(profile.learnTouched(own, [ask(4), ask(3), ask(9), ask(7)], true));
  t.same(profile.asks(own), [ask(4), ask(3), ask(9), ask(7)]);
  t.notOk(profile.learnTouched(own, [], true), "a start that read nothing teaches nothing");
  t.ok(profile.learnTouched(other, [ask(8)], true));
  t.same(profile.asks(other), [ask(8)]);
  t.same(profile.asks("")?.length, 5);
});

test("what a command no longer reads leaves its list after some starts, and no other list", async (t) => {
  let profile = new Profile(SNAPSHOT);
  const key = keyOf(1);
  profile.learn(key, [ask(1), ask(2), ask(3), ask(4)]);
  const start = (isAll = true) => {
    t.ok(profile.learnTouched(key, [ask(1), ask(2), ask(3)], isAll) === isAll);
    profile = Profile.decode(profile.encode(), SNAPSHOT);
  };
  for (let i = 0; i < IDLE_MAX; i++) start();
  start(false);
  t.same(profile.asks(key).length, 4, "one that goes on counts for nothing");
  t.ok(profile.learnTouched(key, [ask(4), ask(1), ask(2)], true), "it is read again");
  for (let i = 0; i < IDLE_MAX; i++) start();
  t.same(profile.asks(key).length, 4);
  start();
  t.same(profile.asks(key), [ask(1), ask(2), ask(3)]);
  t.same(profile.asks("").length, 4, "of all commands nothing leaves");
  for (let i = 0; i < 2 * IDLE_MAX; i++) profile.learnTouched(key, [ask(1)], true);
  t.same(profile.asks(key).length, 3, "a start of something else is no measure");
});

test("of large blobs that were mapped the blocks stay that are known", async (t) => {
  const profile = new Profile(SNAPSHOT);
  const key = keyOf(1);
  profile.learn(key, [ask(5, 0, 2), ask(5, 60, 1), ask(6)]);
  for (let i = 0; i <= IDLE_MAX; i++) profile.learnTouched(key, [ask(6), ask(5)], true);
  t.same(profile.asks(key), [ask(5, 0, 2), ask(5, 60, 1), ask(6)], "there was nothing new");
  profile.learnTouched(keyOf(2), [ask(5), ask(7)], true);
  t.same(profile.asks(keyOf(2)), [ask(5, 0, 2), ask(5, 60, 1), ask(7)], "also of another command");
});

test("what others read of packages is kept beside, and bounded", async (t) => {
  const layer = (i: number) => i.toString(16).padStart(64, "0") as Digest;
  const profile = new Profile(SNAPSHOT);
  profile.learn(keyOf(1), [ask(1)]);
  profile.compose([
    { layer: layer(1), asks: [ask(3), ask(4, 1, 2)] },
    { layer: layer(2), asks: [] },
  ]);
  const again = Profile.decode(profile.encode(), SNAPSHOT);
  t.match(again.packages, [{ layer: layer(1), asks: [ask(3), ask(4, 1, 2)] }]);
  t.equal(again.packages.length, 1);
  t.same(again.asks(""), [ask(1)], "it is no list of a command");
  const joined = new Profile(SNAPSHOT);
  joined.join(again);
  t.equal(joined.packages.length, 1);
  const most = 2 ** 32 - 1;
  const asks = Array.from({ length: 100 }, (_, i) => ask(most - i, most, most));
  const many = Array.from({ length: PROFILE_PACKAGES_MAX + 5 }, (_, i) => ({
    layer: layer(i),
    asks,
  }));
  profile.compose(many);
  for (let i = 0; i < PROFILE_ALL_ASKS_MAX / PROFILE_ASKS_MAX; i++)
    profile.learn(
      keyOf(i),
      Array.from({ length: PROFILE_ASKS_MAX }, (_, k) => ask(most - k, most, most)),
    );
  const count = profile.packages.reduce((sum, each) => sum + each.asks.length, 0);
  t.equal(count, PROFILE_COMPOSED_ASKS_MAX);
  t.ok(profile.encode().length <= PROFILE_FILE_MAX_BYTES);
});

test("a profile of the first format is read", async (t) => {
  const bytes = JSON.stringify({
    format: 1,
    snapshot: showDigest(SNAPSHOT),
    commands: [{ asks: [1, 2, 3, 4, 0, 0] }],
  });
  t.same(Profile.decode(Buffer.from(bytes), SNAPSHOT).asks(""), [ask(1, 2, 3), ask(4)]);
});

test("bounds: asks of a command, commands, and the file that they come to", async (t) => {
  const profile = new Profile(SNAPSHOT);
  const most = 2 ** 32 - 1;
  const asks = Array.from({ length: PROFILE_ASKS_MAX + 5 }, (_, i) => ask(most - i, most, most));
  for (let i = 0; i < PROFILE_COMMANDS_MAX + 3; i++) profile.learn(keyOf(i), asks);
  t.equal(profile.commandCount, PROFILE_ALL_ASKS_MAX / PROFILE_ASKS_MAX);
  t.equal(profile.asks("").length, PROFILE_ASKS_MAX);
  t.equal(profile.asks(keyOf(PROFILE_COMMANDS_MAX + 2)).length, PROFILE_ASKS_MAX);
  const bytes = profile.encode();
  t.equal(Profile.decode(bytes, SNAPSHOT).commandCount, profile.commandCount);
  const short = new Profile(SNAPSHOT);
  for (let i = 0; i < PROFILE_COMMANDS_MAX + 3; i++) short.learn(keyOf(i), [ask(i)]);
  t.equal(Profile.decode(short.encode(), SNAPSHOT).commandCount, PROFILE_COMMANDS_MAX);
  t.ok(profile.encode().length <= PROFILE_FILE_MAX_BYTES);
});

test("what was learned in any order comes back from its bytes", async (t) => {
  const asks = fc.array(fc.record({ row: fc.nat(), first: fc.nat(1000), count: fc.nat(1000) }), {
    maxLength: 20,
  });
  const steps = fc.array(fc.tuple(fc.nat(20), asks), { maxLength: 30 });
  fc.assert(
    fc.property(steps, (all) => {
      const profile = new Profile(SNAPSHOT);
      for (const [i, some] of all) profile.learn(i === 0 ? "" : keyOf(i), some);
      const again = Profile.decode(profile.encode(), SNAPSHOT);
      for (let i = 0; i <= 20; i++) {
        const key = i === 0 ? "" : keyOf(i);
        t.same(again.asks(key), profile.asks(key));
      }
    }),
    { numRuns: 50 },
  );
});

test("bytes that are no profile of the snapshot are refused", async (t) => {
  const of = (commands: unknown, more: object = {}) =>
    Buffer.from(JSON.stringify({ format: 1, snapshot: showDigest(SNAPSHOT), commands, ...more }));
  t.doesNotThrow(() => Profile.decode(of([{ asks: [1, 2, 3] }]), SNAPSHOT));
  for (const bytes of [
    Buffer.alloc(0),
    Buffer.from("null"),
    Buffer.from("{"),
    of(undefined),
    of([], { format: 3 }),
    of([], { snapshot: showDigest("6".repeat(64) as Digest) }),
    of([null]),
    of([{ asks: [1, 2] }]),
    of([], { packages: [{ asks: [1, 2, 3] }] }),
    of([], { packages: [{ layer: "no digest", asks: [1, 2, 3] }] }),
    of([], { packages: [{ layer: showDigest(SNAPSHOT), asks: [1] }] }),
    of([], { packages: Array.from({ length: PROFILE_PACKAGES_MAX + 1 }, () => ({})) }),
    of([{ asks: [1, 2, 3] }], { format: 2 }),
    of([{ asks: [1, 2, -3] }]),
    of([{ asks: [1, 2, 0.5] }]),
    of([{ asks: [1, 2, 2 ** 32] }]),
    of([{ asks: ["1", "2", "3"] }]),
    of([{ command: "../../x", asks: [] }]),
    of([{ command: 7, asks: [] }]),
    // What costs the daemon's loop seconds to look at.
    of(Array.from({ length: PROFILE_COMMANDS_MAX + 2 }, () => ({ asks: [] }))),
    of([{ asks: new Array(3 * (PROFILE_ASKS_MAX + 1)).fill(1) }]),
    Buffer.from(`[${"[".repeat(1000)}${"]".repeat(1000)}]`),
    Buffer.from(`${`{"a":`.repeat(1000)}1${"}".repeat(1000)}`),
    Buffer.concat([of([{ asks: [1, 2, 3] }]), Buffer.alloc(PROFILE_FILE_MAX_BYTES, " ")]),
  ])
    t.throws(
      () => Profile.decode(bytes, SNAPSHOT),
      { code: "BURROW_CORRUPT" },
      `${bytes.subarray(0, 200)}`,
    );
});
