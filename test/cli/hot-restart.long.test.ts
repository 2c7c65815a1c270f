// Owns: proof that a sandbox at work notices nothing of a server that is killed again and again (pitfall A1): Python imports, lists,
// looks up and reads meanwhile, and every byte is compared. Needs root, runsc and this machine's Python. Plane: control.
import fs from "node:fs";
import tap, { type Test, test } from "tap";
import { findRevisions } from "../conformance/runsc.ts";
import { until } from "../suite/wait.ts";
import { shared, skip } from "./python-node.ts";
import { killServers, saidSuccessors } from "./server-of.ts";

const { found } = findRevisions();
const KILLS = 200;
const CHANGE_KILLS = 40;
/** Between two kills: a server starts and serves for most of it. */
const KILL_MS = [300, 1_500] as const;

/** Prints one line of JSON: operations, failures and pauses over 50 ms in seconds; ends when a line comes in. */
const WORK = `
import hashlib, importlib, json, os, random, sys, threading, time
root = next(p for p in sys.path if "/python3" in p and not p.endswith(".zip"))
dirs = {d: sorted(ds + fs) for d, ds, fs in os.walk(root)}
files = [os.path.join(d, f) for d, names in dirs.items() for f in names if os.path.isfile(os.path.join(d, f))]
sums, fails, pauses, counts = {}, [], [], [0, 0, 0]
running = True
def look(r):
    kind, f = r.randrange(5), r.choice(files)
    if kind == 0:
        d = r.choice(list(dirs))
        if sorted(os.listdir(d)) != dirs[d]: fails.append("listing " + d)
    elif kind == 1:
        os.stat(f)
    elif kind == 2:
        if os.path.exists(f + ".missing%d" % r.randrange(10**9)): fails.append("exists " + f)
    else:
        s = hashlib.sha256(open(f, "rb").read()).digest()
        if sums.setdefault(f, s) != s: fails.append("bytes " + f)
def work(i):
    r = random.Random(i)
    while running:
        t = time.monotonic()
        try: look(r)
        except OSError as e: fails.append(repr(e))
        counts[i] += 1
        if time.monotonic() - t > 0.05: pauses.append(time.monotonic() - t)
threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
for t in threads: t.start()
print("ready", flush=True)
threading.Thread(target=lambda: (sys.stdin.readline(), globals().update(running=False))).start()
while running:
    for m in ["json", "decimal", "csv", "email.message", "xml.dom", "asyncio"]:
        for k in [k for k in sys.modules if k.split(".")[0] == m.split(".")[0]]: del sys.modules[k]
        try: importlib.import_module(m)
        except Exception as e: fails.append(m + repr(e))
for t in threads: t.join()
print(json.dumps({"operations": sum(counts), "fails": fails, "pauses": sorted(pauses)}))
`;

/**
 * Changes what lies below and what it made, and compares with what it knows; ends as WORK does. A change whose server died in the middle
 * of it may be answered EIO, made or not made (docs/protocol/adopt.md, section 8, "Changes"): it is counted, and its names are judged and used
 * no more, since the sentry goes on with what it remembers of them, of which a listing may know better.
 */
const CHANGE = `
import json, os, random, sys, threading, time
top = "/stage/tree"
running, fails, counts, pauses, unsure = True, [], [0, 0], [], []
def contents(i): return {"%s/d%d/f%d" % (top, i, k): b"below %d\\n" % k for k in range(20)}
def change(i):
    r, here, n = random.Random(i), contents(i), 0
    d = "%s/d%d" % (top, i)
    held, doubt = {}, set()
    while running:
        t, kind, f = time.monotonic(), r.randrange(9), r.choice(sorted(here) or [d + "/f0"])
        counts[i] += 1
        to = "%s/moved%d" % (d, r.randrange(10)) if kind == 2 else d + "/held"
        if kind == 1:
            n += 1
            f = "%s/new%d" % (d, n % 30)
        if f in doubt or (kind in (2, 6) and to in doubt): continue
        try:
            if kind == 0 and f in here:
                with open(f, "ab") as o: o.write(b"more\\n")
                here[f] += b"more\\n"
            elif kind == 1:
                with open(f, "wb") as o: o.write(b"%d" % n)
                here[f] = b"%d" % n
            elif kind == 2 and f in here:
                os.rename(f, to)
                here[to] = here.pop(f)
            elif kind == 3 and f in here and len(here) > 5:
                os.unlink(f)
                del here[f]
            elif kind == 4 and f in here:
                os.chmod(f, 0o600 + r.randrange(64))
            elif kind == 5:
                names = {d + "/" + name for name in os.listdir(d)}
                if names - doubt != set(here): fails.append("listing of " + d)
            elif kind == 6 and len(held) < 8:
                o = open("%s/held" % d, "w+b")
                os.unlink("%s/held" % d)
                text = b"held %d" % n
                o.write(text); o.flush()
                held[o] = text
            elif kind == 7 and held:
                o, text = held.popitem()
                o.seek(0)
                if o.read() != text: fails.append("held")
                o.close()
            elif f in here:
                if open(f, "rb").read() != here[f]: fails.append("bytes of " + f)
                if os.stat(f).st_size != len(here[f]): fails.append("size of " + f)
        except OSError as e:
            if e.errno == 5 and kind in (0, 1, 2, 3, 4, 6):
                unsure.append("%d %s" % (kind, e))
                doubt |= {f, to} if kind == 2 else {to} if kind == 6 else {f}
                for p in doubt: here.pop(p, None)
            else: fails.append("%d %r" % (kind, e))
        if time.monotonic() - t > 0.05: pauses.append(time.monotonic() - t)
threads = [threading.Thread(target=change, args=(i,)) for i in range(2)]
for t in threads: t.start()
print("ready", flush=True)
sys.stdin.readline()
running = False
for t in threads: t.join()
print(json.dumps({"operations": sum(counts), "fails": fails, "pauses": sorted(pauses), "unsure": unsure}))
`;

interface Report {
  readonly operations: number;
  readonly fails: readonly string[];
  readonly pauses: readonly number[];
  /** Changes that were answered EIO since nobody could tell whether they were made. */
  readonly unsure?: readonly string[];
}

/** Runs a program of Python's while servers are killed, and judges what it says at its end. */
async function survive(
  t: Test,
  runsc: string,
  kills: number,
  words: readonly string[],
  program: string,
): Promise<void> {
  const { node, base } = await shared(t);
  node.env["BURROW_RUNSC"] = runsc;
  node.env["BURROW_RESTARTS"] = "1000";
  const stats = ["--stats-file", "stats.json"];
  const command = ["--", "/usr/bin/python3", "-c", program];
  const child = node.start(["run", "--base", base, ...stats, ...words, ...command], {
    keepsInput: true,
  });
  const texts = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name]!.setEncoding("utf8").on("data", (text: string) => {
      texts[name] += text;
    });
  }
  const exited = new Promise<number | null>((resolve) => child.on("close", resolve));
  t.ok(await until(() => texts.stdout.includes("ready")), "started");
  const killed = await killServers(node.state, child, kills, KILL_MS);
  child.stdin!.end("stop\n");
  t.equal(await exited, 0, texts.stderr);
  t.equal(killed, kills);
  const {
    operations,
    fails,
    pauses,
    unsure = [],
  } = JSON.parse(texts.stdout.split("\n")[1]!) as Report;
  t.same(fails.slice(0, 10), []);
  const p99 = pauses[Math.floor(pauses.length * 0.99)];
  t.comment(
    `${operations} operations, ${pauses.length} over 50 ms, p99 ${p99} s, longest ${pauses.at(-1)} s`,
  );
  t.ok(unsure.length <= kills / 4, `${unsure.length} changes may have been made: ${unsure}`);
  const { counters } = JSON.parse(fs.readFileSync(node.path("stats.json"), "utf8"));
  t.ok(counters.others.restarts >= kills / 2, `${counters.others.restarts} successors served`);
  t.equal(saidSuccessors(texts.stderr), counters.others.restarts, "and burrow run says so");
  t.same(node.leftovers(), []);
}

for (const revision of found) {
  test(
    `${revision.name}: ${KILLS} kills at random, and no failed call`,
    {
      skip,
      timeout: 580_000,
    },
    (t) => survive(t, revision.path, KILLS, ["--runsc-flag=--dcache=40"], WORK),
  );

  test(`${revision.name}: ${CHANGE_KILLS} kills under a writable view, and all changes hold`, {
    skip,
    timeout: 240_000,
  }, async (t) => {
    const { node } = await shared(t);
    for (const d of ["d0", "d1"])
      for (let k = 0; k < 20; k++) node.file(`tree/${d}/f${k}`, `below ${k}\n`);
    const words = ["--user", "0:0", "--writable", "64M", "--stage", "tree=tree"];
    const flags = ["--runsc-flag=--dcache=10"];
    await survive(t, revision.path, CHANGE_KILLS, [...words, ...flags], CHANGE);
  });
}
if (found.length === 0) tap.pass("skipped", { skip: skip || "no runsc" });
