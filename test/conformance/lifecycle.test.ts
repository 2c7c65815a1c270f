// Owns: the life cycle of sandboxes whose gofer was replaced, on every runsc revision, platform and
// gofer that is here. Judge: stock runsc. Plane: control.

import * as fs from "node:fs";
import * as path from "node:path";
import t from "tap";
import { isLong } from "../suite/long.ts";
import { until } from "../suite/wait.ts";
import {
  Bench,
  exitOf,
  findRevisions,
  type Gofer,
  gofers,
  hostGofer,
  LAUNCHER,
  type Revision,
  stockGofer,
} from "./runsc.ts";

t.setTimeout(isLong ? 1_200_000 : 600_000);
t.jobs = 4; // runsc waits most of the time
const { found, reasons } = findRevisions();
for (const reason of reasons) t.comment(`not tested: ${reason}`);
if (found.length === 0) t.pass("skipped: no runsc to test with", { skip: reasons.join("; ") });

/** Each runs in a bench of its own, which must be empty after it. */
const behaviours: Record<string, (t: Test, bench: Bench) => Promise<void>> = {
  ["run passes output and exit code on"]: async (t, bench) => {
    const result = await bench.run(
      "run",
      "-bundle",
      bench.bundle("echo out; echo err >&2; exit 7"),
      bench.id("a"),
    );
    t.equal(result.code, 7, result.stderr);
    t.equal(result.stdout, "out\n");
    t.match(result.stderr, /^err$/m);
  },

  ["run of a workload ended by a signal"]: async (t, bench) => {
    const result = await bench.run("run", "-bundle", bench.bundle("kill -9 $$"), bench.id("a"));
    t.equal(result.code, 137, result.stderr);
  },

  ["a workload that can't be started is runsc's error"]: async (t, bench) => {
    const bundle = bench.bundle("", (spec) => {
      spec.process.args = ["/nope"];
    });
    const result = await bench.run("run", "-bundle", bundle, bench.id("a"));
    t.equal(result.code, 128);
    t.match(result.stderr, /nope/);
  },

  ["a signal ends the launcher as it ends runsc"]: async (t, bench) => {
    const bundle = bench.bundle("echo up; sleep 1000");
    const codes: number[] = [];
    for (const stock of [true, false]) {
      const argv = bench.argv("run", "-bundle", bundle, bench.id(stock ? "stock" : "ours"));
      if (stock) argv[0] = bench.revision.path;
      if (stock && bench.gofer !== stockGofer) continue; // it couldn't serve this root
      const { child, out } = bench.start(argv);
      t.ok(await until(() => fs.readFileSync(out, "utf8").includes("up")), "it started");
      child.kill("SIGTERM");
      codes.push(await exitOf(child));
    }
    t.equal(codes[0], codes.at(-1));
    t.equal(codes[0], 143);
  },

  ["create, start, exec, kill, delete"]: async (t, bench) => {
    const id = bench.id("a");
    const bundle = bench.bundle("echo started; sleep 1000");
    const pidFile = path.join(bench.dir, "pid");
    const state = async () =>
      JSON.parse((await bench.run("state", id)).stdout) as { status: string; pid: number };
    const created = await bench.run("create", "-bundle", bundle, "-pid-file", pidFile, id);
    t.equal(created.code, 0, created.stderr);
    t.equal((await state()).status, "created");
    t.equal(String((await state()).pid), fs.readFileSync(pidFile, "utf8"), "the pid file is right");
    t.equal((await bench.run("start", id)).code, 0);
    t.equal((await state()).status, "running");

    const sandbox = (await state()).pid;
    const all = bench.processes();
    const names = all.map((p) => `${p.pid} ${p.name} < ${p.parent}, tracer ${p.tracer}`).join("\n");
    t.notOk(
      all.some((p) => p.tracer !== 0 && p.tracer !== sandbox),
      `nothing is traced but by the sandbox itself\n${names}`,
    );
    t.notOk(
      all.some((p) => p.name === "burrow-runsc"),
      "no helper is left",
    );
    const file = fs
      .readdirSync(path.join(bench.dir, "run"))
      .find((name) => name === `${id}_sandbox:${id}.state`);
    const saved = fs.readFileSync(path.join(bench.dir, "run", file!), "utf8");
    const goferPid = Number(/"goferPid":(\d+)/.exec(saved)?.[1]);
    const running = all.find((p) => p.pid === goferPid);
    t.equal(running?.innerPid, 1, "what runsc took note of is pid 1 of the gofer's namespace");
    if (bench.gofer !== stockGofer) t.match(running?.name, /^burrow-stub/, "and it is the stub");

    const exec = await bench.run("exec", id, "/bin/sh", "-c", "echo inside; exit 3");
    t.same([exec.code, exec.stdout], [3, "inside\n"], exec.stderr);
    t.equal((await bench.run("kill", id, "KILL")).code, 0);
    t.ok(await until(async () => (await state()).status === "stopped"), "it stops");
    const removed = await bench.run("delete", id);
    t.equal(removed.code, 0, removed.stderr);
    t.equal((await bench.run("state", id)).code, 128, "it is gone");
  },

  ["ten sandboxes at once"]: async (t, bench) => {
    const runs = Array.from({ length: 10 }, (_, i) =>
      bench.start(
        bench.argv("run", "-bundle", bench.bundle(`exit ${i + 10}`), bench.id(`many-${i}`)),
      ),
    );
    const codes = await Promise.all(runs.map(({ child }) => exitOf(child)));
    t.same(
      codes,
      codes.map((_, i) => i + 10),
      runs.map(({ out }) => fs.readFileSync(out, "utf8")).join(),
    );
  },

  ["bind mounts, in any order of length"]: async (t, bench) => {
    const bundle = bench.bundle("cat /mnt/deep/er/file /tmp/file", (spec) => {
      const sources = { "/mnt/deep/er": "one\n", "/tmp": "two\n" };
      for (const [destination, text] of Object.entries(sources)) {
        const source = bench.source(text.trim(), { file: text });
        spec.mounts.push({ destination, type: "bind", source, options: ["bind", "ro"] });
      }
    });
    const result = await bench.run("run", "-bundle", bundle, bench.id("a"));
    t.same([result.code, result.stdout], [0, "one\ntwo\n"], result.stderr);
  },

  ["a terminal"]: async (t, bench) => {
    const bundle = bench.bundle("test -t 0 && test -t 1 && echo yes tty", (spec) => {
      spec.process.terminal = true;
    });
    const words = bench.argv("run", "-bundle", bundle, bench.id("a")).map((word) => `'${word}'`);
    const result = await bench.outcomeOf(["script", "-qec", words.join(" "), "/dev/null"]);
    t.equal(result.code, 0, result.stdout + result.stderr);
    t.match(result.stdout, /yes tty\r\n/);
  },

  ["a pod: a second container in the sandbox of the first"]: async (t, bench) => {
    const cri = "io.kubernetes.cri";
    const [podId, memberId] = [bench.id("pod"), bench.id("member")];
    const pod = bench.bundle("sleep 1000", (spec) => {
      spec.annotations[`${cri}.container-type`] = "sandbox";
    });
    const member = bench.bundle("echo member; sleep 1000", (spec) => {
      spec.annotations[`${cri}.container-type`] = "container";
      spec.annotations[`${cri}.sandbox-id`] = podId;
    });
    for (const [id, bundle] of [
      [podId, pod],
      [memberId, member],
    ] as const) {
      for (const words of [
        ["create", "-bundle", bundle, id],
        ["start", id],
      ]) {
        const result = await bench.run(...words);
        t.equal(result.code, 0, `${words[0]} ${id}: ${result.stderr}`);
      }
    }
    const exec = await bench.run("exec", memberId, "/bin/sh", "-c", "echo inside; exit 4");
    t.same([exec.code, exec.stdout], [4, "inside\n"], exec.stderr);
    const sandbox = (JSON.parse((await bench.run("state", podId)).stdout) as { pid: number }).pid;
    t.notOk(
      bench.processes().some((p) => p.tracer !== 0 && p.tracer !== sandbox),
      "untraced",
    );
    for (const id of [memberId, podId]) {
      t.equal((await bench.run("kill", id, "KILL")).code, 0);
      t.ok(
        await until(async () => (await bench.run("state", id)).stdout.includes('"stopped"')),
        "it stops",
      );
      t.equal((await bench.run("delete", id)).code, 0);
    }
  },

  ["a user namespace in the spec"]: async (t, bench) => {
    const bundle = bench.bundle("id -u; exit 6", (spec) => {
      const all = [{ containerID: 0, hostID: 100_000, size: 65_536 }];
      spec.linux.namespaces.push({ type: "user" });
      spec.linux.uidMappings = all;
      spec.linux.gidMappings = all;
    });
    const result = await bench.run("run", "-bundle", bundle, bench.id("a"));
    t.same([result.code, result.stdout], [6, "0\n"], result.stderr);
  },

  ["`do`, as root and rootless"]: async (t, bench) => {
    const words = ["do", "/bin/busybox", "sh", "-c", "echo done; exit 9"];
    const result = await bench.run(...words);
    t.same([result.code, result.stdout], [9, "done\n"], result.stderr);
    // The gofer starts in a user namespace without ids; they come while it waits on sync-userns-fd.
    const mine = path.join(bench.dir, "nobody");
    fs.mkdirSync(mine);
    fs.chownSync(mine, 65_534, 65_534);
    const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    const flags = ["--rootless", "--platform=ptrace", "--network=host", "--ignore-cgroups"];
    const argv = [...nobody, LAUNCHER, ...flags, "--root", path.join(mine, "run"), ...words];
    const log = path.join(mine, "log");
    const rootless = await bench.outcomeOf(argv, {
      BURROW_STATE: mine,
      BURROW_LOG: log,
      HOME: mine,
    });
    t.same([rootless.code, rootless.stdout], [9, "done\n"], rootless.stderr);
  },

  ["checkpoint and restore"]: async (t, bench) => {
    const bundle = bench.bundle('i=0; while :; do echo "n$((i += 1))"; sleep 0.05; done');
    const image = path.join(bench.dir, "image");
    const [before, after] = [bench.id("before"), bench.id("after")];
    const { child, out } = bench.start(bench.argv("run", "-bundle", bundle, before));
    const numbers = (file: string) =>
      fs.readFileSync(file, "utf8").match(/\d+/g)?.map(Number) ?? [];
    t.ok(await until(() => numbers(out).length > 3), "it counts");
    const saved = await bench.run("checkpoint", "-image-path", image, before);
    t.equal(saved.code, 0, saved.stderr);
    await exitOf(child);
    const words = ["restore", "-bundle", bundle, "-image-path", image, after];
    const restored = bench.start(bench.argv(...words));
    t.ok(
      await until(() => numbers(restored.out).length > 3),
      fs.readFileSync(restored.out, "utf8"),
    );
    t.equal(numbers(restored.out)[0], numbers(out).at(-1)! + 1, "it counts on");
    t.equal((await bench.run("kill", after, "KILL")).code, 0);
    await exitOf(restored.child);
    for (const id of [before, after]) await bench.run("delete", "-force", id);
  },

  ["a gofer that dies ends its container, and delete still works"]: async (t, bench) => {
    const id = bench.id("a");
    const bundle = bench.bundle("sleep 1000");
    for (const words of [
      ["create", "-bundle", bundle, id],
      ["start", id],
    ]) {
      t.equal((await bench.run(...words)).code, 0);
    }
    const saved = fs.readFileSync(path.join(bench.dir, `run/${id}_sandbox:${id}.state`), "utf8");
    process.kill(Number(/"goferPid":(\d+)/.exec(saved)?.[1]), "SIGKILL");
    t.ok(
      await until(async () => (await bench.run("state", id)).stdout.includes('"stopped"')),
      "it stops",
    );
    // runsc waits for the gofer's pid to vanish, up to 5 s; init may take longer to reap it.
    let removed = await bench.run("delete", id);
    await until(async () => {
      if (removed.code !== 0) removed = await bench.run("delete", id);
      return removed.code === 0;
    });
    t.equal(removed.code, 0, removed.stderr);
  },

  ["a stub that doesn't start a server is runsc's error"]: async (t, bench) => {
    const bundle = bench.bundle("echo never");
    for (const stub of ["/bin/false", path.join(bench.dir, "not-elf")]) {
      fs.writeFileSync(path.join(bench.dir, "not-elf"), "neither ELF nor script", { mode: 0o755 });
      const result = await bench.outcomeOf(bench.argv("run", "-bundle", bundle, bench.id("a")), {
        BURROW_STUB: stub,
      });
      t.equal(result.code, 128, result.stderr);
      t.match(result.stderr, /EOF|mounts/i);
      t.same(await bench.leftovers(), [], "nothing is left");
    }
  },
};

for (const gofer of gofers()) {
  for (const revision of found) {
    // 7 s of CPU each: what judges the judge, and trees of the host, are for the long run.
    if (!isLong && (gofer === hostGofer || gofer === stockGofer)) continue;
    const platforms = isLong ? revision.platforms : revision.platforms.slice(0, 1);
    for (const platform of platforms) {
      t.test(`runsc ${revision.name} on ${platform}, ${gofer.name} gofer`, (t) =>
        lifecycle(t as Test, gofer, revision, platform),
      );
    }
  }
}

type Test = typeof t;

async function lifecycle(t: Test, gofer: Gofer, revision: Revision, platform: string) {
  for (const [name, body] of Object.entries(behaviours)) {
    await t.test(name, async (t) => {
      const bench = new Bench(gofer, revision, platform);
      try {
        await body(t as unknown as Test, bench);
        t.same(await bench.leftovers(), [], "no process, mount or cgroup is left");
      } finally {
        const log = path.join(bench.dir, "gofer.log");
        if (!t.passing() && fs.existsSync(log)) t.comment(fs.readFileSync(log, "utf8"));
        bench.close();
      }
    });
  }
}
