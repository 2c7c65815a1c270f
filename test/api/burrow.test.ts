// Owns: what the API promises beyond the command line, on a node with busybox for a base, and the example of docs/api.md. Plane: control.

import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { PassThrough, Readable, Writable } from "node:stream";
import { BurrowError, run, type View, view } from "burrow";
import tap, { type Test } from "tap";
import { busybox, type Node } from "../cli/cli.ts";
import { exitOf, findRevisions, ROOT } from "../conformance/runsc.ts";
import { until } from "../suite/wait.ts";

const { found, reasons } = findRevisions();
const skip = found.length === 0 ? reasons.join("; ") : false;

interface Scene {
  readonly node: Node;
  readonly base: string;
  readonly places: { readonly state: string; readonly cache: string; readonly store: string };
  readonly sees: View;
}

let made: Promise<Scene> | undefined;

/** One node for all tests. */
function scene(): Promise<Scene> {
  made ??= (async () => {
    const { node, base } = await busybox(tap as Test, found.at(-1)!.path);
    process.env["BURROW_RUNSC"] = found.at(-1)!.path;
    const places = { state: node.state, cache: node.cache, store: node.env["BURROW_STORE"]! };
    node.file("data/orders.csv", "id,price\n1,2\n");
    const stages = { data: node.path("data") };
    return { node, base, places, sees: await view({ ...places, base, stages }) };
  })();
  return made;
}

const codeOf = (error: unknown) => (error instanceof BurrowError ? error.code : error);

tap.test("what can't be a view or a run is refused with a code", { skip }, async (t) => {
  const { places, base, sees } = await scene();
  const codes = async (work: Promise<unknown>) => codeOf(await work.catch((error) => error));
  t.equal(await codes(view({ ...places, base: "/nonexistent" })), "BURROW_USAGE");
  t.equal(await codes(view({ ...places, base: "f".repeat(64) })), "BURROW_NOT_FOUND");
  t.equal(await codes(view({ ...places, base, stages: { "a=b": "/" } })), "BURROW_USAGE");
  t.equal(await codes(run({ snapshots: [] }, ["true"])), "BURROW_USAGE");
  t.equal(await codes(run(sees, ["true"], { env: { "": "x" } })), "BURROW_USAGE");
  t.equal(await codes(run(sees, ["true"], { tmpBytes: 1 })), "BURROW_USAGE");
  t.equal(await codes(run(sees, ["true"], { isShared: true })), "BURROW_USAGE", "no tenant");
  const direct = await run(sees, ["true"], { isDirect: true, writableBytes: 1e6 }).catch((e) => e);
  t.match(direct, { code: "BURROW_USAGE", message: /--directfs and --writable/ });
  for (const startTimeoutMs of [Number.POSITIVE_INFINITY, 2 ** 31, 0, Number.NaN])
    t.equal(await codes(run(sees, ["true"], { startTimeoutMs })), "BURROW_USAGE");
  const why = new Error("not now");
  t.equal(await codes(view({ ...places, base, signal: AbortSignal.abort(why) })), why);
  t.equal(await codes(run(sees, ["true"], { signal: AbortSignal.abort(why) })), why);
});

tap.test("a view is run with what it is given, and says what came of it", { skip }, async (t) => {
  const { sees, base } = await scene();
  t.same(sees.snapshots[0], { digest: base, at: "/" });
  t.equal(sees.snapshots[1]?.at, "/stage/data");
  const script = 'cat; echo "$A" $(id -u) $PWD >&2; cat /stage/data/orders.csv; exit 7';
  const ran = await run(sees, ["sh", "-c", script], {
    env: { A: "b c" },
    cwd: "/etc",
    user: { uid: 12 },
    stdin: Readable.from(["in\n"]),
  });
  t.equal(ran.exitCode, 7);
  t.equal(ran.stdout, "in\nid,price\n1,2\n");
  t.equal(ran.stderr, "b c 12 /etc\n");
  t.ok((ran.stats.counters.others["donated"] ?? 0) > 0, "it says what it took");
  const missing = await run(sees, ["nonesuch"]).catch((error) => error);
  t.match(missing, { code: "BURROW_START", context: { exitCode: 127 } });
});

tap.test("a signal, or more output than is kept, ends the sandbox", { skip }, async (t) => {
  const { sees, node } = await scene();
  const listeners = process.listenerCount("SIGTERM");
  const abort = new AbortController();
  const why = new Error("enough");
  let heard = "";
  const going = run(sees, ["sh", "-c", "echo up; sleep 1000"], {
    signal: abort.signal,
    stdout: new Writable({
      write: (chunk, _, done) => {
        heard += chunk;
        done();
      },
    }),
  });
  going.catch(() => {});
  await until(() => heard === "up\n");
  t.equal(process.listenerCount("SIGTERM"), listeners, "signals of this process are left alone");
  abort.abort(why);
  t.equal(await going.catch((error) => error), why);
  const early = new AbortController();
  const out = node.path("out");
  fs.mkdirSync(out);
  fs.chmodSync(out, 0o777);
  const begun = run(sees, ["touch", "/out/ran"], {
    binds: { "/out": { source: out, isWritable: true } },
    signal: early.signal,
    // Asked for when all has been looked at, and the sandbox is about to be started.
    get stdout() {
      early.abort(why);
      return new PassThrough().resume();
    },
  });
  t.equal(await begun.catch((error) => error), why);
  t.same(fs.readdirSync(out), [], "what was aborted before its start doesn't run");
  const flood = await run(sees, ["sh", "-c", "while :; do echo aaaaaaaa; done"], {
    outputMaxBytes: 10_000,
  }).catch((error) => error);
  t.equal(codeOf(flood), "BURROW_CAPTURE");
  await until(() => node.processes().length === 0);
});

tap.test("streams that go away, are one for both, or fail end no run late", { skip }, async (t) => {
  const { sees } = await scene();
  const signal = AbortSignal.timeout(200_000); // for who waits for ever
  const gone = new PassThrough();
  gone.once("data", () => gone.destroy()); // as a client's that hangs up
  const loud = await run(sees, ["sh", "-c", "while echo aaaaaaaa; do :; done; exit 9"], {
    stdout: gone,
    signal,
  });
  t.equal(loud.exitCode, 9, "it hears of it as of a closed pipe");
  const closed = new PassThrough();
  closed.destroy();
  const options = { stdout: closed, signal };
  const late = await run(sees, ["sh", "-c", "while echo a; do :; done; exit 8"], options);
  t.equal(late.exitCode, 8);
  const both = new PassThrough();
  const text = both.toArray();
  const ran = await run(sees, ["sh", "-c", "echo a; echo b >&2; exit 7"], {
    stdout: both,
    stderr: both,
    signal,
  });
  t.equal(ran.exitCode, 7);
  t.same(
    String(Buffer.concat(await text))
      .split("\n")
      .sort(),
    ["", "a", "b"],
  );
  const broken = new Readable({ read: () => {} });
  broken.on("error", () => {}); // it may come before there is a sandbox
  setImmediate(() => broken.destroy(new Error("no input")));
  const fed = await run(sees, ["cat"], { stdin: broken, signal }).catch((error) => error);
  t.match(fed, { exitCode: 0 });
});

tap.test("the example of docs/api.md", { skip }, async (t) => {
  const { node, base } = await scene();
  const text = fs.readFileSync(path.join(ROOT, "docs/api.md"), "utf8");
  const example = /```js\n([\s\S]*?)```/.exec(text)![1]!;
  // Within the project, so that "burrow" is found.
  const program = path.join(ROOT, `build/api-example-${process.pid}.mjs`);
  fs.writeFileSync(program, example);
  t.teardown(() => fs.rmSync(program));
  const child = spawn(process.execPath, [program], {
    env: { ...node.env, BASE: base, DATA: node.path("data") },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let out = "";
  child.stdout.on("data", (chunk) => {
    out += chunk;
  });
  t.equal(await exitOf(child), 0);
  t.match(JSON.parse(out), { exitCode: 0, stdout: "id,price\n1,2\n" });
  t.same(node.leftovers(), [], "nothing is left of all these runs");
});
