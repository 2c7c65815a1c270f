// Who goes to an origin, and when: by a clock of the test's own. Test.

import { test } from "tap";
import { type Clock, Gate } from "../../lib/cache/gate.ts";

const MIB = 1024 * 1024;
const never = () => new AbortController().signal;

/** Time that passes when the test says so. */
class FakeClock implements Clock {
  #nowMs = 1_000_000;
  readonly #calls = new Map<() => void, number>();

  nowMs(): number {
    return this.#nowMs;
  }

  after(ms: number, call: () => void): () => void {
    this.#calls.set(call, this.#nowMs + ms);
    return () => void this.#calls.delete(call);
  }

  async pass(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    for (;;) {
      const due = [...this.#calls]
        .filter(([, at]) => at <= untilMs)
        .sort(([, a], [, b]) => a - b)[0];
      if (due === undefined) break;
      this.#nowMs = Math.max(this.#nowMs, due[1]);
      this.#calls.delete(due[0]);
      due[0]();
      await settled();
    }
    this.#nowMs = untilMs;
    await settled();
  }
}

/** What was resolved has had its effect. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** A gate, and work by name that ends when it is told to. */
class Scene {
  readonly clock = new FakeClock();
  readonly gate: Gate;
  readonly started: string[] = [];
  readonly #ends = new Map<string, () => void>();

  constructor(slots = 8) {
    this.gate = new Gate(slots, this.clock);
  }

  async ask(name: string, signal: AbortSignal = never()): Promise<void> {
    const work = () => {
      this.started.push(name);
      return new Promise<void>((resolve) => this.#ends.set(name, resolve));
    };
    this.gate.run(name.startsWith("d"), signal, work).catch(() => undefined);
    await settled();
  }

  async end(name: string): Promise<void> {
    this.#ends.get(name)?.();
    await settled();
  }
}

test("demand goes before background, in order, within the places there are", async (t) => {
  const scene = new Scene(2);
  const abort = new AbortController();
  for (const name of ["d1", "b1", "d2"]) await scene.ask(name);
  const aborted = scene.gate.run(true, abort.signal, () => Promise.resolve());
  await scene.ask("d4");
  abort.abort();
  await t.rejects(aborted, { code: "BURROW_TIMEOUT" });
  t.same(scene.started, ["d1", "d2"]);
  t.match(scene.gate.figures, { demand: 2, background: 0, demandQueued: 1, backgroundQueued: 1 });
  await scene.end("d1");
  t.same(scene.started, ["d1", "d2", "d4"]);
  await scene.end("d2");
  await scene.end("d4");
  await scene.clock.pass(1_000);
  t.same(scene.started, ["d1", "d2", "d4", "b1"]);
});

test("where nobody demands two background requests of full length go at once", async (t) => {
  const scene = new Scene();
  for (const name of ["b1", "b2", "b3"]) await scene.ask(name);
  t.same(scene.started, ["b1", "b2"]);
  t.equal(scene.gate.backgroundBytes, MIB);
  await scene.end("b1");
  t.same(scene.started, ["b1", "b2", "b3"], "the next at once");
});

test("background rests until demand has been quiet, goes on with little, and then with all", async (t) => {
  const scene = new Scene();
  await scene.ask("d1");
  await scene.ask("b1");
  await scene.ask("b2");
  await scene.clock.pass(90);
  await scene.end("d1");
  await scene.clock.pass(299);
  t.same(scene.started, ["d1"], "who asks again soon finds the link free");
  t.equal(scene.gate.backgroundBytes, MIB / 4);
  await scene.clock.pass(1);
  t.same(scene.started, ["d1", "b1"], "one");
  await scene.clock.pass(698);
  t.same(scene.started, ["d1", "b1"], "at a time");
  await scene.clock.pass(2);
  t.same(scene.started, ["d1", "b1", "b2"]);
  t.equal(scene.gate.backgroundBytes, MIB);
});

test("under steady demand background gets a short request in half a second, and no more", async (t) => {
  const scene = new Scene();
  for (let i = 0; i < 4; i++) await scene.ask(`b${i}`);
  t.same(scene.started, ["b0", "b1"]);
  await scene.ask("d0");
  await scene.end("b0");
  await scene.end("b1");
  // Four seconds with a demand of 10 ms each 50 ms: what starts ends 2 ms later.
  const short: number[] = [];
  for (let round = 0; round < 80; round++) {
    await scene.ask(`b${round + 4}`);
    const before = scene.started.length;
    await scene.clock.pass(10);
    await scene.end(`d${round}`);
    await scene.clock.pass(2);
    for (const name of scene.started.slice(before)) await scene.end(name);
    await scene.clock.pass(38);
    for (const name of scene.started.slice(before)) await scene.end(name);
    short.push(scene.gate.backgroundBytes);
    await scene.ask(`d${round + 1}`);
  }
  const background = scene.started.filter((name) => name.startsWith("b")).length - 2;
  t.ok(background >= 7 && background <= 8, `${background} in four seconds`);
  t.same([...new Set(short)], [MIB / 4]);
});

test("a place that ends doesn't let background in before its time", async (t) => {
  const scene = new Scene();
  await scene.ask("d1");
  await scene.ask("d2");
  await scene.ask("b1");
  await scene.clock.pass(400);
  await scene.end("d1");
  t.same(scene.started, ["d1", "d2"], "one demand is left");
  await scene.clock.pass(99);
  t.same(scene.started, ["d1", "d2"]);
  await scene.clock.pass(1);
  t.same(scene.started, ["d1", "d2", "b1"], "after half a second beside it");
});
