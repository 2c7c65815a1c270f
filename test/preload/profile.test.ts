// Profiles: what is learned is kept, in its order and within its bounds; bytes that are no profile are refused.

import * as fc from "fast-check";
import { test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { showDigest } from "../../lib/base/digest.ts";
import {
  PROFILE_ALL_ASKS_MAX,
  PROFILE_ASKS_MAX,
  PROFILE_COMMANDS_MAX,
  PROFILE_FILE_MAX_BYTES,
} from "../../lib/base/limits.ts";
import { Profile } from "../../lib/preload/profile.ts";

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
    of([], { format: 2 }),
    of([], { snapshot: showDigest("6".repeat(64) as Digest) }),
    of([null]),
    of([{ asks: [1, 2] }]),
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
