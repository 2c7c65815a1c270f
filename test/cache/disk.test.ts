// When a disk counts as hung: not while this process doesn't listen, and one that is only read no longer than it hangs.

import { test } from "tap";
import { Disk, OVERTAKEN_MAX } from "../../lib/cache/disk.ts";
import { until } from "../suite/wait.ts";

test("what ended while the loop was busy was no hang", async (t) => {
  const disk = new Disk("/nowhere");
  disk.stallMs = 1_000;
  // Of several steps, as a look at a mount is: the second is begun when the first was heard of.
  const work = async () => {
    for (let step = 0; step < 4; step++) await new Promise((resolve) => setImmediate(resolve));
    return "done";
  };
  const outcome = disk.run("look", work);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1_500);
  t.equal(await outcome, "done");
  t.equal(disk.isHung, false);
});

test("work that ends after all is told of, when none is left that hangs", async (t) => {
  const disk = new Disk("/nowhere");
  disk.stallMs = 100;
  let ends = 0;
  disk.onEnded = () => {
    ends++;
    disk.recovered();
  };
  let release: () => void = () => undefined;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const two = [disk.run("look", () => held), disk.run("look", () => held)];
  await Promise.all(two.map((one) => t.rejects(one, { code: "BURROW_IO" })));
  t.equal(disk.hanging, 2);
  await t.rejects(
    disk.run("look", async () => 1),
    { message: /the disk hangs/ },
  );
  release();
  t.ok(await until(() => disk.hanging === 0));
  t.equal(ends, 1, "once, with the last");
  t.equal(await disk.run("look", async () => 1), 1);
});

test("what nobody waits for gives way on the disk, until somebody does", async (t) => {
  const disk = new Disk("/nowhere");
  const order: string[] = [];
  let release: () => void = () => undefined;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  // All places are taken, so what comes now stands in line.
  const busy = Array.from({ length: 16 }, () => disk.run("write", () => held));
  const work = (name: string) => async () => void order.push(name);
  const waiting = [
    disk.run("write", work("a, ahead"), { behind: "a" }),
    disk.run("write", work("b, ahead"), { behind: "b" }),
    disk.run("write", work("b, by another origin"), { behind: "b" }),
    disk.run("write", work("c, ahead"), { behind: "c" }),
    disk.run("write", work("d, demanded")),
  ];
  disk.hurry("c");
  disk.hurry("nobody's");
  release();
  await Promise.all([...busy, ...waiting]);
  t.same(order, ["b, by another origin", "d, demanded", "c, ahead", "a, ahead", "b, ahead"]);
  await t.resolves(disk.run("write", work("e"), { behind: "e" }), "and at once where nobody waits");
});

test("what gives way has its turn in the end, however much is demanded", async (t) => {
  const disk = new Disk("/nowhere");
  let begun = 0;
  const places = Array.from({ length: 3 }, () => true);
  let isDone = false;
  const end = async () => {
    isDone = true;
  };
  const ahead = () => disk.run("write", end, { behind: "ahead" });
  // Each that ends has another in line already: without a bound nothing else would ever have its turn.
  const demand = async (): Promise<void> => {
    if (isDone || begun > 10 * OVERTAKEN_MAX) return;
    const next = disk.run("write", async () => void begun++);
    await Promise.all([next, disk.run("write", async () => void begun++)]);
    await demand();
  };
  const demands = places.flatMap(() => [demand(), demand()]);
  await Promise.all([ahead(), ...demands]);
  t.ok(begun <= 2 * OVERTAKEN_MAX, `after ${begun} that came later`);
});

test("what gives way on a disk that hangs is given up like the rest", async (t) => {
  const disk = new Disk("/nowhere");
  disk.stallMs = 100;
  let release: () => void = () => undefined;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const busy = Array.from({ length: 16 }, () =>
    disk.run("write", () => held).catch(() => undefined),
  );
  const done: string[] = [];
  const ahead = disk.run("write", async () => void done.push("a"), { behind: "a" });
  await t.rejects(ahead, { code: "BURROW_IO" });
  release();
  await Promise.all(busy);
  t.ok(await until(() => disk.hanging === 0));
  t.same(done, []);
});
