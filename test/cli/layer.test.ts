// Owns: proof that layers and environments come out of what people have, are found again, and that what is wrong is refused by
// name. Plane: control.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { type Test, test } from "tap";
import { type RawHeader, tar } from "../ingest/archives.ts";
import { wheelOf } from "../ingest/wheel/wheels.ts";
import { type Node, newNode } from "./cli.ts";

function nodeWithTree(t: Test): Node {
  const node = newNode(t);
  node.file("tree/bin/tool", "#!/bin/sh\n", 0o755);
  node.file("tree/etc/conf", "conf\n");
  fs.symlinkSync("conf", node.path("tree/etc/link"));
  return node;
}

const DIGEST = /^sha256:[0-9a-f]{64}\n$/;

test("a directory and a tar become layers and a snapshot; a tar is not read twice", async (t) => {
  const node = nodeWithTree(t);
  spawnSync("tar", ["-cf", node.path("tree.tar"), "-C", node.path("tree"), "."]);
  const first = await node.run(["layer", "import", "tree.tar"]);
  t.equal(first.code, 0, first.stderr);
  t.match(first.stdout, DIGEST);
  t.match(first.stderr, /^tree\.tar: 6 entries, /);
  const second = await node.run(["layer", "import", "tree.tar"]);
  t.match(second, { code: 0, stdout: first.stdout, stderr: /^$/ }, "found again");
  const folder = await node.run(["layer", "import", "--quiet", "--json", "tree"]);
  t.equal(folder.stderr, "");
  t.match(JSON.parse(folder.stdout), { layers: [/^sha256:/] });
  const merged = await node.run(["layer", "import", "--snapshot", "--json", "tree.tar", "tree"]);
  const { snapshot } = JSON.parse(merged.stdout) as { snapshot: string };
  const listed = await node.run(["layer", "ls"]);
  t.match(listed.stdout, /^digest +kind +inodes +content +of\n/);
  t.ok(listed.stdout.includes(first.stdout.trim()));
  t.match(listed.stdout, new RegExp(`${snapshot} +snapshot +6 `));
  const shown = await node.run(["layer", "show", snapshot]);
  t.match(shown.stdout, /^d0755 .* \.\n/);
  t.match(shown.stdout, /\n-0755 +\S+ +10 +bin\/tool\n/);
  t.match(shown.stdout, /\nl0777 .*etc\/link -> conf\n/);
  const start = snapshot.slice(0, "sha256:".length + 12);
  t.equal((await node.run(["layer", "show", start])).stdout, shown.stdout, "by its first digits");
  const below = await node.run(["layer", "show", snapshot, "/etc/", "--json"]);
  const paths = (JSON.parse(below.stdout) as { path: string }[]).map((entry) => entry.path);
  t.same(paths, ["etc", "etc/conf", "etc/link"]);
  t.match(await node.run(["layer", "show", snapshot, "etc/no"]), {
    code: 1,
    stderr: /has no etc\/no: paths begin at its root/,
  });
  const through = await node.run(["layer", "show", snapshot, "/etc/link/x"]);
  t.match(through, { code: 1, stderr: /has no \/etc\/link\/x: etc\/link is a symlink to conf/ });
  const url = await node.run(["layer", "ls", "--store", `file://${node.store}`]);
  t.equal(url.stdout, listed.stdout);
});

test("what is no archive is refused by name, and a half made layer isn't listed", async (t) => {
  const node = nodeWithTree(t);
  node.file("junk.tar", Buffer.alloc(2048, "junk"));
  node.file("junk.deb", "no package");
  for (const name of ["junk.tar", "junk.deb"]) {
    const { code, stdout, stderr } = await node.run(["layer", "import", "tree", name]);
    t.equal(code, 1, name);
    t.equal(stdout, "");
    t.match(stderr, new RegExp(`\nburrow: .*${name}.* \\(BURROW_BAD_ARCHIVE\\)\n$`));
  }
  const listed = await node.run(["layer", "ls", "--json"]);
  t.equal(JSON.parse(listed.stdout).length, 1, "the directory's");
  const readOnly = await node.run(["layer", "import", "tree", "--store", "http://127.0.0.1:9"]);
  t.match(readOnly, { code: 1, stderr: /an HTTP origin can't be written/ });
  const blocked = await node.run(["layer", "import", "tree", "--store", "junk.deb/store"]);
  t.equal(blocked.code, 1);
  t.notMatch(blocked.stderr, /BURROW_INTERNAL/);
});

test("a Debian package becomes a layer", async (t) => {
  const node = nodeWithTree(t);
  const options = [
    "-o",
    "Acquire::http::Timeout=5",
    "-o",
    "Acquire::Retries=0",
    "-o",
    "APT::Sandbox::User=root",
  ];
  spawnSync("apt-get", [...options, "download", "hostname"], { cwd: node.dir, timeout: 15_000 });
  const name = fs.readdirSync(node.dir).find((file) => file.endsWith(".deb"));
  if (name === undefined) {
    t.comment("skipped: apt-get can't download a package here");
    return;
  }
  const made = await node.run(["layer", "import", name]);
  t.equal(made.code, 0, made.stderr);
  const shown = await node.run(["layer", "show", made.stdout.trim()]);
  t.match(shown.stdout, /bin\/hostname\n/);
  const again = await node.run(["layer", "import", path.join(".", name)]);
  t.match(again, { stdout: made.stdout, stderr: /^$/ });
});

test("a root's device nodes are left out and counted; .wh. names hide only when told to", async (t) => {
  const node = nodeWithTree(t);
  const root: RawHeader[] = [
    { name: "dev/", type: "5", mode: 0o755 },
    { name: "dev/null", type: "3", mode: 0o666 },
    { name: "dev/zero", type: "3", mode: 0o666 },
    { name: "dev/sda", type: "4", mode: 0o660 },
    { name: "etc/old", content: "old\n" },
    { name: "etc/kept", content: "kept\n" },
  ];
  node.file("root.tar", tar(...root));
  node.file("upper.tar", tar({ name: "etc/.wh.old" }, { name: "etc/new", content: "new\n" }));
  const made = await node.run(["layer", "import", "root.tar"]);
  t.equal(made.code, 0, made.stderr);
  t.match(made.stderr, /^root\.tar: left out 2 \(character-device\), 1 \(block-device\)\n/);
  const pathsOf = async (options: string[]) => {
    const words = ["layer", "import", "--snapshot", ...options, "root.tar", "upper.tar"];
    const { code, stdout, stderr } = await node.run(words);
    t.equal(code, 0, stderr);
    const shown = await node.run(["layer", "show", "--json", stdout.trim()]);
    const paths = (JSON.parse(shown.stdout) as { path: string }[]).map((one) => one.path);
    return { paths, stderr };
  };
  const plain = await pathsOf([]);
  t.same(plain.paths, ["", "dev", "etc", "etc/.wh.old", "etc/kept", "etc/new", "etc/old"]);
  t.match(plain.stderr, /^upper\.tar: \.wh\. names kept as files: 1; see --whiteouts\n/m);
  const hidden = await pathsOf(["--whiteouts", "oci"]);
  t.same(hidden.paths, ["", "dev", "etc", "etc/kept", "etc/new"], "not the layer noted before");
  t.notMatch(hidden.stderr, /--whiteouts/);
  const wrong = await node.run(["layer", "import", "--whiteouts", "aufs", "root.tar"]);
  t.match(wrong, { code: 2, stdout: "", stderr: /--whiteouts/ });
});

test("what has no end, or waits for a writer, is refused at once", async (t) => {
  const node = nodeWithTree(t);
  t.equal(spawnSync("mkfifo", [node.path("pipe")]).status, 0);
  for (const source of ["/dev/zero", "pipe"]) {
    const { code, stderr } = await node.run(["layer", "import", source]);
    t.equal(code, 2, stderr);
    t.match(stderr, /neither a directory nor a plain file.*BURROW_USAGE/);
  }
});

test("a wheel becomes a layer for one Python and prefix, which must be ones", async (t) => {
  const node = nodeWithTree(t);
  const files = [{ name: "demo.py", content: "x = 1\n" }];
  node.file(
    "demo_pkg-1.0-py3-none-any.whl",
    wheelOf({ files, entryPoints: "[console_scripts]\ndemo = demo:x\n" }),
  );
  const importing = (...options: string[]) =>
    node.run(["layer", "import", "--quiet", ...options, "demo_pkg-1.0-py3-none-any.whl"]);
  const usual = await importing("--python", "3.11");
  t.match(usual, { code: 0, stdout: DIGEST }, usual.stderr);
  const shown = await node.run(["layer", "show", usual.stdout.trim()]);
  t.match(shown.stdout, / usr\/local\/bin\/demo\n/);
  t.match(shown.stdout, / usr\/local\/lib\/python3\.11\/site-packages\/demo\.py\n/);
  t.equal((await importing("--python", "3.11")).stdout, usual.stdout);
  const elsewhere = await importing("--python", "/opt/py/bin/python3.12", "--prefix", "/opt/w");
  const other = await node.run(["layer", "show", elsewhere.stdout.trim(), "opt/w/lib/python3.12"]);
  t.match(other, { code: 0, stdout: /site-packages\/demo\.py\n/ });
  for (const [options, why] of [
    [[], /is a wheel: say for which --python/],
    [["--python", "/usr/bin/python"], /doesn't end in pythonX\.Y/],
    [["--python", "3.11", "--prefix", "usr"], /--prefix: "usr" is no plain path/],
    [["--python", "3.11", "--prefix", "/a/../b"], /is no plain path/],
    [["--python", "2.7"], /py3-none-any/],
  ] as const) {
    const refused = await importing(...options);
    t.match(refused, { stdout: "", stderr: why });
    t.not(refused.code, 0);
  }
});
