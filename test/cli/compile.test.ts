// Owns: proof that burrow env compile keeps what Python and packages' scripts make in a sandbox, the same each time, and believes
// nothing of what comes out. Needs root, a runsc and this machine's Python for a base; skipped with the reason otherwise.
// Plane: control.

import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { wheelOf } from "../ingest/wheel/wheels.ts";
import type { Node } from "./cli.ts";
import { addPackage, created, hasCgroups, shared, skip } from "./python-node.ts";

/** Lines of "type-mode path" of a layer, by path. */
async function listing(node: Node, digest: string): Promise<Map<string, Record<string, unknown>>> {
  const { stdout } = await node.run(["layer", "show", "--json", digest]);
  const all = JSON.parse(stdout) as Record<string, unknown>[];
  return new Map(all.map((entry) => [String(entry["path"]), entry]));
}

interface Listed {
  readonly snapshot: string;
  readonly compiledFrom: string | null;
}

const POST_LINK = `set -e
echo "$PKG_NAME $PKG_VERSION $PKG_BUILDNUM" > "$PREFIX/made"
mkdir -p "$PREFIX/share/new"
ln -s ../../made "$PREFIX/share/new/link"
rm "$PREFIX/share/gone"
echo more >> "$PREFIX/share/grown"
chmod 4777 "$PREFIX/made"
echo out of sight > /tmp/elsewhere
echo said > "$PREFIX/.messages.txt"
`;

test("byte code, scripts and activation become a layer, the same each time", {
  skip,
  timeout: 230_000,
}, async (t) => {
  const { node, base, version } = await shared(t);
  const site = `lib/python${version}/site-packages`;
  const env = await created(
    node,
    t,
    await addPackage(node, "plain", {
      files: [
        { name: `${site}/plain.py`, content: "WORDS = {'b', 'a', 'c', 'xyz'}\nprint('hello')\n" },
        { name: `${site}/broken.py`, content: "print 'Python 2'\n" },
        { name: `${site}/stale.py`, content: "x = 1\n" },
        {
          name: `${site}/__pycache__/stale.cpython-${version.replace(".", "")}.pyc`,
          content: "old",
        },
        {
          name: "etc/conda/env_vars.d/plain.json",
          content: '{"FROM_JSON": "json", "FROM_BOTH": "json"}',
        },
        {
          name: "etc/conda/activate.d/plain.sh",
          // And a process that outlives it, with all its FDs.
          content: 'export FROM_BOTH="shell $CONDA_PREFIX"\nHIDDEN=1\nsleep 1000 &\n',
        },
      ],
    }),
    await addPackage(node, "linked", {
      files: [
        { name: "bin/.linked-post-link.sh", content: POST_LINK, mode: 0o755 },
        { name: "share/gone", content: "x" },
        { name: "share/grown", content: "x" },
      ],
    }),
  );
  const compile = ["env", "compile", "--base", base, "--json", env];
  const first = await node.run(compile);
  t.equal(first.code, 0, first.stderr);
  t.match(first.stderr, /^said$/m, "what a script has to say");
  const done = JSON.parse(first.stdout);
  t.match(done, { compiled: 2, notCompiledCount: 1, scripts: ["linked"] });
  t.same(done.variables, { FROM_JSON: "json", FROM_BOTH: "shell /opt/env" });
  const layer = await listing(node, done.layer);
  const pycs = ["plain", "stale"].map(
    (name) => `${site}/__pycache__/${name}.cpython-${version.replace(".", "")}.pyc`,
  );
  const changed = [...layer].filter(([, { type }]) => type !== "directory").map(([name]) => name);
  t.same(changed.sort(), [...pycs, "made", "share/gone", "share/grown", "share/new/link"].sort());
  t.match(layer.get("share/gone"), { type: "whiteout" });
  t.match(layer.get("made"), { mode: 0o777, uid: 0 }, "no set-id bits");
  const whole = await listing(node, done.snapshot);
  t.notOk(whole.has("share/gone"));
  t.ok(whole.has(`${site}/broken.py`));

  const listed = JSON.parse((await node.run(["env", "ls", "--json"])).stdout) as Listed[];
  const fromOf = (digest: string) => listed.find((one) => one.snapshot === digest)?.compiledFrom;
  t.same([fromOf(env), fromOf(done.snapshot)], [null, env]);
  t.match(
    (await node.run(["env", "ls"])).stdout,
    `${done.snapshot}  /opt/env  none    ${env.slice(0, 19)}`,
  );
  const head = (await node.run(["env", "show", done.snapshot])).stdout.split("\n")[0];
  t.equal(head?.split(", ").at(-1), `compiled from ${env.slice(0, 19)} on ${base.slice(0, 19)}`);

  // What it is for: the sandbox takes it, with the variables.
  const program =
    "import os,stale,plain; print(os.environ['FROM_BOTH'], open('/opt/env/made').read())";
  const run = ["run", "--base", base, "--env", done.snapshot, "-e", `PYTHONPATH=/opt/env/${site}`];
  const query = await node.run([...run, "--", "python3", "-vc", program]);
  t.match(
    query,
    { code: 0, stdout: "hello\nshell /opt/env linked 2.0 7\n\n" },
    query.stderr.slice(-500),
  );
  for (const pyc of pycs) t.match(query.stderr, `code object from '/opt/env/${pyc}'`);

  // The variables are the snapshot's own: no document is asked for them, and others make another snapshot of the same files.
  const documents = path.join(node.store, "environments");
  fs.renameSync(documents, node.path("aside"));
  t.match(await node.run([...run, "--", "python3", "-c", program]), { stdout: /shell \/opt\/env/ });
  fs.renameSync(node.path("aside"), documents);
  const bare = await node.run([...compile, "--no-activate"]);
  t.match(JSON.parse(bare.stdout), { layer: done.layer, variables: {} });
  t.not(JSON.parse(bare.stdout).snapshot, done.snapshot);
  const twice = await node.run(["env", "compile", "--base", base, "--json", done.snapshot]);
  t.match(twice, {
    code: 0,
    stdout: first.stdout,
    stderr: /is compiled already: sha256:\w+, which/,
  });

  // The same again, here from the note and elsewhere anew.
  t.equal((await node.run(compile)).stdout, first.stdout);
  fs.rmSync(path.join(node.store, "imports"), { recursive: true });
  t.equal((await node.run(compile)).stdout, first.stdout, "a job done again gives the same bytes");
  t.match(await listing(node, env), new Map([["share/gone", {}]]), "the environment is as it was");
  t.same(node.leftovers(), []);
});

test("an environment's wheels are compiled and served with it", {
  skip,
  timeout: 230_000,
}, async (t) => {
  const { node, base, version } = await shared(t);
  const site = `lib/python${version}/site-packages`;
  const python = await addPackage(node, "python", { index: { version } });
  const files = [{ name: "wheeled.py", content: "print('from a wheel')\n" }];
  const wheel = node.file("wheeled-1.0-py3-none-any.whl", wheelOf({ project: "wheeled", files }));
  const env = await created(node, t, python, wheel);
  const compiled = await node.run(["env", "compile", "--base", base, "--json", env]);
  t.equal(compiled.code, 0, compiled.stderr);
  const { snapshot, layer } = JSON.parse(compiled.stdout);
  const pyc = `${site}/__pycache__/wheeled.cpython-${version.replace(".", "")}.pyc`;
  t.ok((await listing(node, layer)).has(pyc));
  const run = ["run", "--base", base, "--env", snapshot, "-e", `PYTHONPATH=/opt/env/${site}`];
  const query = await node.run([...run, "--", "python3", "-vc", "import wheeled"]);
  t.match(query, { code: 0, stdout: "from a wheel\n" }, query.stderr.slice(-500));
  t.match(query.stderr, `code object from '/opt/env/${pyc}'`);
  t.match((await node.run(["env", "show", snapshot])).stdout, /\nwheeled +1\.0 +wheel /);
});

test("a script that fails, prints over the tar or has no Python keeps nothing", {
  skip,
  timeout: 230_000,
}, async (t) => {
  const { node, base } = await shared(t);
  const scripted = async (name: string, script: string) =>
    await created(
      node,
      t,
      await addPackage(node, name, {
        files: [{ name: `bin/.${name}-post-link.sh`, content: script, mode: 0o755 }],
      }),
    );
  const before = async () => (await node.run(["env", "ls", "--json"])).stdout;
  const failing = await scripted("failing", "echo no luck; exit 3\n");
  // Its standard output is not the tar's, but it can reach that of the program that started it.
  const forging = await scripted(
    "forging",
    'for fd in /proc/$PPID/fd/*; do printf "{}\\nrubbish" > $fd; done 2>/dev/null\n',
  );
  const killing = await scripted("killing", "kill -9 $PPID; sleep 5\n");
  const known = await before();
  const compile = (env: string, ...more: string[]) =>
    node.run(["env", "compile", "--base", base, ...more, env]);
  const failed = await compile(failing);
  t.match(failed, { code: 1, stdout: "" });
  t.match(failed.stderr, /^the job runs in a sandbox\n/);
  t.match(failed.stderr, /no luck/);
  t.match(failed.stderr, /post-link script of failing ended with 3; --no-scripts .*BURROW_CAPTURE/);
  const forged = await compile(forging);
  t.match(forged, { code: 1, stdout: "", stderr: /BURROW_(CAPTURE|BAD_ARCHIVE)/ });
  const killed = await compile(killing);
  t.match(killed, { code: 1, stdout: "", stderr: /ended with 137.*BURROW_CAPTURE/ });
  t.equal(await before(), known, "no environment came of it");
  t.equal((await compile(failing, "--no-scripts")).code, 0);
  fs.mkdirSync(node.path("bare/proc"), { recursive: true });
  const bare = await node.run(["env", "compile", "--base", "bare", failing]);
  t.match(bare, { code: 1, stdout: "", stderr: /is there a python3.*BURROW_CAPTURE/ });
  t.same(node.leftovers(), []);
});

test("--memory bounds the job", {
  skip: skip || (hasCgroups() ? false : "needs a memory cgroup (v1) that can be written"),
  timeout: 60_000,
}, async (t) => {
  const { node, base } = await shared(t);
  // Far over the limit, whatever the kernel can reclaim of the rest.
  const script = "exec python3 -c 'bytearray(400 << 20)'\n";
  const files = [{ name: "bin/.small-post-link.sh", content: script, mode: 0o755 }];
  const env = await created(node, t, await addPackage(node, "small", { files }));
  const compile = ["env", "compile", "--base", base, env, "--memory"];
  t.match(await node.run([...compile, "200M"]), { code: 1, stderr: /ended with 137: .*--memory/ });
  t.match(await node.run([...compile, "2G"]), { code: 0 });
});
