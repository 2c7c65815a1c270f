// Owns: proof that packages' own code, however it behaves in the sandbox of burrow env compile, neither holds the command for ever, nor
// leaves anything behind, nor brings what it should not. Needs what compile.test.ts needs. Plane: control.

import { type Test, test } from "tap";
import { until } from "../suite/wait.ts";
import type { Node, Outcome } from "./cli.ts";
import { addPackage, created, shared, skip } from "./python-node.ts";

/** An environment of one package with a post-link script. */
async function scripted(node: Node, t: Test, name: string, script: string): Promise<string> {
  const files = [{ name: `bin/.${name}-post-link.sh`, content: script, mode: 0o755 }];
  return await created(node, t, await addPackage(node, name, { files }));
}

/** One with a script of activation. */
async function activated(node: Node, t: Test, name: string, script: string): Promise<string> {
  const files = [{ name: `etc/conda/activate.d/${name}.sh`, content: script }];
  return await created(node, t, await addPackage(node, name, { files }));
}

function compile(node: Node, base: string, env: string, ...more: string[]): Promise<Outcome> {
  return node.run(["env", "compile", "--base", base, "--no-bytecode", ...more, env]);
}

test("a job that does not end is ended", { skip, timeout: 120_000 }, async (t) => {
  const { node, base } = await shared(t);
  const sleeping = await scripted(node, t, "sleeping", "sleep 100000\n");
  const ended = await compile(node, base, sleeping, "--timeout", "2");
  t.match(ended, { code: 1, stdout: "", stderr: /2 s.*--timeout.*\(BURROW_TIMEOUT\)/ });
  t.same(node.leftovers(), []);
  t.same(node.processes(), []);
  const usage = await compile(node, base, sleeping, "--timeout", "soon");
  t.match(usage, { code: 2, stderr: /--timeout: "soon" is no number of seconds/ });
  const none = await compile(node, base, sleeping, "--timeout", "0");
  t.match(none, { code: 2, stderr: /--timeout/ }, "there is always a limit");
});

test("activation that fails and leaves a process is not waited for", {
  skip,
  timeout: 120_000,
}, async (t) => {
  const { node, base } = await shared(t);
  const leaving = await activated(node, t, "leaving", "sleep 100000 &\nexit 3\n");
  const failed = await compile(node, base, leaving);
  t.match(failed, { code: 1, stdout: "", stderr: /activate\.d failed.*\n.*\(BURROW_CAPTURE\)/ });
  t.same(node.leftovers(), []);
});

test("what a job says is bounded, and harmless to a terminal", {
  skip,
  timeout: 120_000,
}, async (t) => {
  const { node, base } = await shared(t);
  const loud = await scripted(
    node,
    t,
    "loud",
    "printf '\\033]0;title\\007\\033[2J\\n' >&2\nhead -c 20000000 /dev/zero | tr '\\0' x\necho\necho 'last words'\n",
  );
  const said = await compile(node, base, loud);
  t.equal(said.code, 0, said.stderr.slice(-500));
  t.match(said.stderr, /^\?\]0;title\?\?\[2J$/m);
  t.notMatch(said.stderr, "\x1b");
  t.ok(said.stderr.length < 2 << 20, `${said.stderr.length} characters`);
  t.match(said.stderr, /prints more than is shown/);
  t.notMatch(said.stderr, /last words/);
});

const ODD = `set -e
cd "$PREFIX"
mkfifo fifo
mknod device c 1 3 || :
ln -s /etc/shadow outside
ln -s ../../../../../../etc/shadow above
ln -s loop loop
echo x > set-id; chmod 6755 set-id
echo x > "$(printf "%0255d" 7)"
echo x > "$(printf 'bad\\377utf8\\n.txt')"
echo x > .wh.white
mkdir sparse; truncate -s 3G sparse/file 2>/dev/null || :
rm -r sparse
mkdir -p deep/deep; ln set-id deep/deep/hard
echo x > /tmp/elsewhere; echo x > /opt/elsewhere
rm "share/$(printf '%0251d' 8)"
echo spoilt > share/other
`;

test("files of every kind come out as files of ours, or not at all", {
  skip,
  timeout: 120_000,
}, async (t) => {
  const { node, base } = await shared(t);
  const files = [
    { name: `share/${"8".padStart(251, "0")}`, content: "x" },
    { name: "share/other", content: "x" },
  ];
  const env = await created(
    node,
    t,
    await addPackage(node, "other", { files }),
    await addPackage(node, "odd", {
      files: [{ name: "bin/.odd-post-link.sh", content: ODD, mode: 0o755 }],
    }),
  );
  const done = await compile(node, base, env, "--json");
  t.equal(done.code, 0, done.stderr.slice(-2000));
  if (done.code !== 0) return;
  const { stdout } = await node.run(["layer", "show", "--json", JSON.parse(done.stdout).snapshot]);
  const entries = JSON.parse(stdout) as Record<string, unknown>[];
  const here = entries.filter(({ type }) => type !== "directory").map(({ path }) => String(path));
  const own = here.filter((name) => !/^(conda-meta|bin)\//.test(name));
  const long = "7".padStart(255, "0");
  const odd = "bad\ufffdutf8\n.txt";
  const links = ["above", "loop", "outside"];
  t.same(own.sort(), [long, odd, "deep/deep/hard", "set-id", "share/other", ...links].sort());
  for (const { path, mode, uid, gid } of entries)
    t.match([Number(mode) & 0o7000, uid, gid], [0, 0, 0], String(path));
});

test("a job that forks for ever is ended before the machine is full", {
  skip,
  timeout: 120_000,
}, async (t) => {
  const { node, base } = await shared(t);
  const bomb = await scripted(node, t, "bomb", "f() { f & f & sleep 1000; }\nf\n");
  const ended = await compile(node, base, bomb, "--timeout", "100");
  t.match(ended, { code: 1, stdout: "", stderr: /had over 512 processes.*\(BURROW_CAPTURE\)/ });
  t.same(node.leftovers(), []);
  t.ok(await until(() => node.processes().length === 0), "nothing runs on");
});
