// Owns: proof that of a start what it read is learned, and of one that tells nothing what it asked for; within bounds. Plane: control.

import { test } from "tap";
import { PROFILE_ASKS_MAX } from "../../lib/base/limits.ts";
import { StartNotes } from "../../lib/preload/start-notes.ts";

const ask = (row: number, first = 0, count = 0) => ({ row, first, count });

test("what was read counts; without it, at the end, what was asked for", async (t) => {
  const start = new StartNotes();
  t.equal(start.ask(ask(3)), 1);
  t.equal(start.ask(ask(3)), 0);
  start.ask(ask(9, 4, 2));
  t.same(start.lesson(false), [], "it may tell yet");
  t.same(start.lesson(true), [ask(3), ask(9, 4, 2)]);
  t.equal(start.touch(ask(9)), 1);
  start.touch(ask(1));
  t.ok(start.isTold);
  t.same(start.lesson(false), [ask(9, 4, 2), ask(1)], "of a large file the blocks it asked for");
  t.equal(start.saved(), 4);
  t.equal(start.saved(), 0);
});

test("what is foreseen is no lesson, but says which blocks of a mapped file", async (t) => {
  const start = new StartNotes();
  start.foresee(ask(5));
  start.foresee(ask(9, 4, 2));
  t.same(start.lesson(true), []);
  start.touch(ask(9));
  t.same(start.lesson(true), [ask(9, 4, 2)]);
});

test("what was foreseen to be read whole is, though a part of it was looked at, and here first", async (t) => {
  const start = new StartNotes();
  start.foresee(ask(9, 0, 1));
  start.foresee(ask(9));
  start.touch(ask(9), true);
  t.same(start.lesson(false), [ask(9)]);
});

test("a file that was here whole says nothing of its parts", async (t) => {
  const start = new StartNotes();
  start.touch(ask(5), true);
  start.touch(ask(9), true);
  start.ask(ask(9, 4, 2));
  start.touch(ask(7, 3, 1), true);
  t.same(start.lesson(false), [{ ...ask(5), isUnseen: true }, ask(9, 4, 2), ask(7, 3, 1)]);
});

test("no more than a profile takes", async (t) => {
  const start = new StartNotes();
  let unsaved = 0;
  for (let i = 0; i < 2 * PROFILE_ASKS_MAX; i++) unsaved += start.touch(ask(i)) + start.ask(ask(i));
  t.equal(unsaved, 2 * PROFILE_ASKS_MAX);
  t.equal(start.lesson(true).length, PROFILE_ASKS_MAX);
});
