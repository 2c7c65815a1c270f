// The power goes while a daemon works on its cache (pitfalls B2, C7), on ext4 in a user-mode Linux. By dm-flakey: from some moment on all
// writes are lost, or fail. By dm-log-writes: of what the disk was not told to flush, some is lost. After the next boot the cache opens,
// nothing in blobs/ is sealed and wrong, nothing is served that wasn't hashed since, pins are there or not, and what is there is
// counted. $BURROW_SEED repeats a run's moments.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { type Test, test } from "tap";
import { NOTES } from "../suite/crash-program.ts";
import { TestNode } from "../suite/daemon-node.ts";
import { Dice } from "../suite/dice.ts";
import type { PowerFacts } from "../suite/power-check.ts";
import { findUml, POWER_FILES, PowerMachine } from "../suite/power-machine.ts";
import { readWriteLog, replay } from "../suite/write-log.ts";

const CUTS = 30;
/** Of each of two logs. */
const REPLAYS = 60;
/** The power goes at most so long after a note of the program; it needs some 100 ms from one to the next. */
const AFTER_MS = 200;
const OPTIONS = ["defaults", "data=writeback"];

const seed = Number(process.env["BURROW_SEED"] ?? Date.now() % 1_000_000);
const uml = findUml();
const options = { skip: uml.skip, timeout: 3_600_000 };

/** What was seen over all cuts. */
class Tally {
  cuts = 0;
  stayed = 0;
  damaged = 0;
  dropped = 0;
  slowestMs = 0;

  /** Holds what one cut left against the rules. */
  hold(t: Test, name: string, facts: PowerFacts, snapshot: string): void {
    this.cuts++;
    this.stayed += facts.suspects;
    this.damaged += Number(facts.isDamaged);
    this.dropped += facts.dropped;
    this.slowestMs = Math.max(this.slowestMs, facts.startMs);
    t.same(facts.wrong, [], `${name}: sealed, so right`);
    t.equal(facts.wasSuspect, true, `${name}: what stayed is suspect`);
    t.equal(facts.suspects, facts.found, `${name}: all of it`);
    t.same(facts.leftovers, [], `${name}: what was half is gone`);
    t.ok(
      facts.pins.every((pin) => pin === snapshot),
      `${name}: a pin is there or not`,
    );
    t.ok(facts.countedBytes >= facts.thereBytes, `${name}: what is there is counted`);
    t.same(facts.failed, [], `${name}: every ask is answered`);
    t.equal(facts.right, Object.keys(POWER_FILES).length, `${name}: by right bytes`);
    // What was there at an ask came along with another since, or was hashed: nothing of before the cut is taken on trust.
    t.ok(facts.hits - facts.revived <= facts.neighbours, `${name}: suspects are hashed`);
  }

  end(t: Test): void {
    // Others are fetched along with a neighbour before they are asked for.
    t.ok(this.dropped > 0, `${this.dropped} of ${this.damaged} damaged ones were found by a hash`);
    t.comment(
      `BURROW_SEED=${seed}: ${this.cuts} cuts, ${this.stayed} blobs stayed, the next start took ${this.slowestMs.toFixed(0)} ms at most`,
    );
  }
}

test("all writes are lost, or fail, from some moment on", options, async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const machine = await PowerMachine.create(uml.root, node);
  const { digest } = machine.published;
  const dice = new Dice(seed);
  const tally = new Tally();
  let before: { readonly name: string; readonly notes: readonly string[] } | undefined;
  let midway = 0;
  for (let cut = 1; cut <= CUTS + 1; cut++) {
    const anchor = dice.of(NOTES.slice(0, -1));
    const given = {
      isChecked: before !== undefined,
      isFresh: before === undefined || dice.pick(2) === 0,
      anchor,
      cutMs: dice.pick(AFTER_MS),
      mode: cut > CUTS ? "" : dice.pick(3) === 0 ? "error_writes" : "drop_writes",
      options: dice.of(OPTIONS),
    };
    const { facts, notes, output } = await machine.boot(given, dice.pick(1e6));
    if (before !== undefined) {
      const { name } = before;
      if (facts === undefined) throw new Error(`${name}: ${output}`);
      tally.hold(t, name, facts, digest);
      const isPinned = facts.pins.length === 1;
      if (before.notes.at(-1) === "pinned") t.ok(isPinned, `${name}: it was pinned`);
      if (before.notes.includes("unpinned")) t.notOk(isPinned, `${name}: it was unpinned`);
    }
    if (cut <= CUTS && !notes.includes("begun")) throw new Error(output);
    midway += Number(!notes.includes("done"));
    before = { name: `cut ${cut}, ${given.mode} ${notes.at(-1)}`, notes };
  }
  t.ok(midway > CUTS / 2, `${midway} came while the program was at work`);
  tally.end(t);
});

test("a disk loses some of what it was not told to flush", options, async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const machine = await PowerMachine.create(uml.root, node);
  const { digest } = machine.published;
  const dice = new Dice(seed);
  const tally = new Tally();
  const base = `${node.root}/base`;
  const mounted = `${node.root}/mounted`;
  fs.mkdirSync(mounted);
  t.teardown(() => spawnSync("umount", ["-l", mounted]));
  let lost = 0;
  run("mkfs.ext4", ["-q", "-F", machine.disk]);
  for (const each of OPTIONS) {
    copy(machine.disk, base);
    const given = { isChecked: false, isFresh: false, anchor: "", cutMs: 0, mode: "log" };
    const { notes, output } = await machine.boot({ ...given, options: each }, 0);
    if (!notes.includes("done")) throw new Error(output);
    const writes = readWriteLog(machine.log);
    const flushes = writes.filter(({ isFlush }) => isFlush).length;
    t.ok(writes.length > 100 && flushes > 10, `${writes.length} writes, ${flushes} flushes`);
    for (let i = 0; i < REPLAYS; i++) {
      const count = dice.pick(writes.length + 1);
      // Another file each time: a loop device that goes late would show what it holds of the one before.
      const trial = `${node.root}/trial-${each}-${i}`;
      copy(base, trial);
      const share = dice.pick(4);
      lost += replay(machine.log, writes, trial, count, () => dice.pick(4) < share);
      run("mount", ["-o", `loop,${each}`, trial, mounted]);
      const facts = machine.check(`${mounted}/cache`, dice.pick(1e6));
      const name = `${each}, ${count} writes`;
      tally.hold(t, name, facts, digest);
      // A user-mode Linux counts what its host does meanwhile as its own, so it is here that CPU time is CPU time.
      t.ok(facts.startCpuMs < 1_000, `${name}: started after ${facts.startCpuMs} ms of a CPU`);
      // The next log begins with a cache that is whole, and of another boot.
      fs.rmSync(`${mounted}/cache/boot`);
      run("umount", [mounted]);
      if (i === REPLAYS - 1) copy(trial, machine.disk);
      fs.rmSync(trial);
    }
  }
  t.ok(lost > 0);
  t.comment(`${lost} writes were lost`);
  tally.end(t);
});

function run(program: string, words: readonly string[]): void {
  const { status, stderr } = spawnSync(program, words, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${program}: ${stderr}`);
}

/** Holes stay holes. */
function copy(source: string, target: string): void {
  run("cp", ["--sparse=always", source, target]);
}
