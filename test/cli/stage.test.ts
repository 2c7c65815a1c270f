// Owns: proof that stage create makes of a directory what others can fetch, and that a stage that can't be had says why. Plane: control.
import fs from "node:fs";
import { type Test, test } from "tap";
import { digestOf } from "../../lib/store/hash.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { type Node, newNode } from "./cli.ts";

function nodeWithData(t: Test): Node {
  const node = newNode(t);
  node.file("data/rows.csv", "1,2\n");
  node.file("data/more/notes", "kept\n");
  fs.mkdirSync(node.path("base/tmp"), { recursive: true });
  return node;
}

test("stage create writes the manifest that names the stage, again only for new content", async (t) => {
  const node = nodeWithData(t);
  const made = await node.run(["stage", "create", "data"]);
  t.equal(made.code, 0, made.stderr);
  t.equal(made.stderr, "data/burrow-stage.json: 2 files, 9 B\n");
  const bytes = () => fs.readFileSync(node.path("data/burrow-stage.json"));
  t.equal(made.stdout, `sha256:${digestOf(bytes())}\n`);
  t.match(JSON.parse(bytes().toString()), {
    files: [{ path: "more/notes" }, { path: "rows.csv", size: 4 }],
  });
  const again = await node.run(["stage", "create", "--quiet", "--json", "data"]);
  t.equal(again.stderr, "");
  t.same(JSON.parse(again.stdout), { stage: made.stdout.trim(), files: 2, bytes: 9 });
  node.file("data/rows.csv", "3,4\n");
  const changed = await node.run(["stage", "create", "data"]);
  t.not(changed.stdout, made.stdout);
  t.equal(changed.stdout, `sha256:${digestOf(bytes())}\n`);
  fs.symlinkSync("/dev/null", node.path("data/out"));
  t.equal((await node.run(["stage", "create", "data"])).code, 0, "a symlink is a name");
});

test("a stage that can't be had over HTTP: not there is told from not answering", async (t) => {
  const node = nodeWithData(t);
  const server = await OriginServer.start(node.path("data"));
  t.teardown(() => server.close());
  const bundle = (id: string, url: string) =>
    node.run(["bundle", "--base", "base", "--id", id, "--stage", `d=${url}`, `out-${id}`, "ls"]);
  const bare = await bundle("bare", server.url);
  t.equal(bare.code, 1);
  t.match(bare.stderr, /no burrow-stage\.json; .*burrow stage create DIR .*BURROW_NOT_FOUND/);
  t.equal((await node.run(["stage", "create", "data"])).code, 0);
  const good = await bundle("good", server.url);
  t.match(good, { code: 0, stdout: "good\n" });
  const { grafts } = JSON.parse(
    fs.readFileSync(`${node.state}/mounts/good/mount.json`, "utf8"),
  ) as { grafts: unknown };
  t.match(grafts, [{ at: "/stage/d", origin: server.url }]);
  const dead = await bundle("dead", "http://127.0.0.1:9");
  t.equal(dead.code, 1);
  t.match(dead.stderr, /the origin can't be reached .*ECONNREFUSED.* \(BURROW_ORIGIN\)\n$/);
});

test("a directory whose manifest is older than its files is served as the manifest says, with a word", async (t) => {
  const node = nodeWithData(t);
  const bundle = (id: string, ...more: string[]) =>
    node.run(["bundle", ...more, "--base", "base", "--id", id, "--stage", "d=data", id, "ls"]);
  t.equal((await node.run(["stage", "create", "data"])).code, 0);
  t.notMatch((await bundle("same")).stderr, /data/);
  node.file("data/rows.csv", "1,2,3\n");
  const pattern = /data: rows\.csv is served as burrow-stage\.json has it; .*stage create/;
  t.match(await bundle("size"), { code: 0, stderr: pattern });
  t.equal((await bundle("quiet", "--quiet")).stderr, "");
  t.equal((await node.run(["stage", "create", "data"])).code, 0);
  t.notMatch((await bundle("anew")).stderr, /data/);
  node.file("data/rows.csv", "3,2,1\n");
  fs.utimesSync(node.path("data/rows.csv"), Date.now() / 1000 + 5, Date.now() / 1000 + 5);
  t.match((await bundle("time")).stderr, pattern);
  fs.rmSync(node.path("data/rows.csv"));
  t.match((await bundle("gone")).stderr, pattern);
});
