// Owns: proof that an image is a base like others, that its config holds where nobody says otherwise, and that its tree is the one that
// umoci unpacks. Sandboxes need root and a runsc, the comparison needs umoci; skipped with the reason otherwise. Plane: control.
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { type Test, test } from "tap";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { findRevisions } from "../conformance/runsc.ts";
import { Bench, dockerOf, type ImageSpec, layer, layoutOf, tarOf } from "../ingest/oci/images.ts";
import { type Node, newNode } from "./cli.ts";

const { found, reasons } = findRevisions();
const skip = found.length === 0 ? reasons.join("; ") : false;
const hasUmoci = spawnSync("umoci", ["--version"]).status === 0;
/** A real tree: that of $BURROW_TEST_ROOT, or one of any Debian. */
const REAL_TREE = process.env["BURROW_TEST_ROOT"] ?? "/usr/share/perl5";
const canJudge = hasUmoci && process.getuid?.() === 0 && fs.existsSync(REAL_TREE);
const noUmoci = canJudge ? false : `needs umoci, root and ${REAL_TREE}`;

/** busybox, with an upper layer that hides and adds. */
function image(config: Record<string, unknown>): ImageSpec {
  const folder = (name: string) => ({ name: `${name}/`, type: "5", mode: 0o755 });
  const links = ["sh", "id", "pwd", "cat", "ls", "env"].map((name) => ({
    name: `bin/${name}`,
    type: "2",
    linkname: "busybox",
  }));
  const lower = layer(
    ...["bin", "dev", "etc", "proc", "sys", "tmp"].map(folder),
    { name: "bin/busybox", mode: 0o755, content: fs.readFileSync("/bin/busybox") },
    ...links,
    { name: "etc/passwd", content: "root:x:0:0::/:/bin/sh\napp:x:12:34::/:/bin/sh\n" },
    { name: "etc/old", content: "old\n" },
  );
  const upper = layer({ name: "etc/.wh.old" }, { name: "etc/new", content: "new\n" });
  return { layers: [lower, upper], config };
}

const CONFIG = {
  Env: ["PATH=/bin", "FROM=image", "LANG=C"],
  WorkingDir: "/etc",
  Entrypoint: ["/bin/sh", "-c"],
  Cmd: ["pwd; id -u; id -g; echo $FROM $LANG; cat new; ls"],
  User: "app",
};

function nodeOf(t: Test): Node {
  const node = newNode(t);
  node.env["BURROW_RUNSC"] = found.at(-1)?.path;
  return node;
}

test("an image is run as its config says, but for what is given", { skip }, async (t) => {
  const node = nodeOf(t);
  node.file("image.tar", tarOf(layoutOf({ "": image(CONFIG) })));
  const run = ["run", "--platform", "ptrace"];
  const first = await node.run([...run, "--base", "image.tar"]);
  t.match(first, { code: 0, stdout: "/etc\n12\n34\nimage C\nnew\nnew\npasswd\n" });
  t.match(first.stderr, /^image\.tar: layer 2\/2: 2 entries, /m);
  const made = await node.run(["layer", "import", "--snapshot", "--json", "image.tar"]);
  const { snapshot } = JSON.parse(made.stdout) as { snapshot: string };
  const given = ["--base", snapshot, "--user", "5", "--cwd", "/tmp", "-e", "FROM=me"];
  const words = ["--", "/bin/sh", "-c", "pwd; id -u; id -g; echo $FROM $LANG"];
  t.match(await node.run([...run, ...given, ...words]), { code: 0, stdout: "/tmp\n5\n5\nme C\n" });
  t.same(node.leftovers(), []);
});

test("a bundle has the image's config, too", { skip }, async (t) => {
  const node = nodeOf(t);
  node.file("image.tar", tarOf(dockerOf({ "x:1": image(CONFIG) })));
  const made = await node.run(["bundle", "--base", "image.tar", "--id", "one", "out"]);
  t.match(made, { code: 0, stdout: "one\n" });
  const spec = JSON.parse(fs.readFileSync(node.path("out/config.json"), "utf8"));
  const args = [...CONFIG.Entrypoint, ...CONFIG.Cmd];
  t.match(spec.process, { args, cwd: "/etc", user: { uid: 12, gid: 34 } });
  t.ok(spec.process.env.includes("FROM=image"));
  t.equal((await node.run(["bundle-rm", "one"])).code, 0);
});

test("an image that says too little is refused in one line", async (t) => {
  const node = nodeOf(t);
  node.file("mute.tar", tarOf(layoutOf({ "": image({}) })));
  node.file("odd.tar", tarOf(layoutOf({ "": image({ ...CONFIG, User: "gone" }) })));
  const two = { a: image({}), b: image(CONFIG) };
  node.file("two.tar", tarOf(layoutOf(two)));
  const cases: [string[], RegExp, number][] = [
    [["run", "--base", "mute.tar"], /missing required argument 'command'.*BURROW_USAGE/, 2],
    [["run", "--base", "odd.tar"], /user "gone" is not in its .*: say --user UID/, 2],
    [["run", "--base", "two.tar"], /several images: name one by --image; it has a, b/, 2],
    [["layer", "import", "--image", "c", "two.tar"], /no image c; it has a, b.*NOT_FOUND/, 1],
    [["layer", "import", "--from", "docker-archive", "two.tar"], /missing.*manifest\.json/, 1],
  ];
  for (const [words, message, code] of cases) {
    t.match(await node.run(words), { code, stdout: "", stderr: message }, words.join(" "));
  }
  t.same(node.leftovers(), []);
});

/** A tree on disk, by path: type, mode, owner, names, whole seconds of its time, target, content. */
function onDisk(root: string): Record<string, string> {
  const options = { cwd: root, encoding: "utf8", maxBuffer: 1 << 28 } as const;
  const format = "%P\\t%y %m %U:%G %n %T@ %l\\n";
  const found = execFileSync("find", [".", "-printf", format], options);
  const lines = found
    .trimEnd()
    .split("\n")
    .map((line) => line.split("\t") as [string, string]);
  const sums = execFileSync("find", [".", "-type", "f", "-exec", "sha256sum", "{}", "+"], options);
  const digests = new Map(
    sums
      .trimEnd()
      .split("\n")
      .map((line) => [line.slice(68), line.slice(0, 64)]),
  );
  const facts = lines.map(([name, text]) => {
    const [type, mode, owner, links, time, target] = text.split(" ");
    const isLink = type === "l";
    const counted = type === "f" ? `${links} ${digests.get(name)}` : "";
    const said = [type, isLink ? "" : mode, owner, Math.floor(Number(time)), target, counted];
    return [name, said.join(" ")];
  });
  return Object.fromEntries(facts);
}

/** The same of a snapshot. */
function inSnapshot(tree: ReadonlyMap<string, LayerEntry>): Record<string, string> {
  const text = (latin1: string) => Buffer.from(latin1, "latin1").toString("utf8");
  const links = new Map<string, number>();
  for (const entry of tree.values()) {
    const group = entry.type === "file" ? entry.linkGroup : undefined;
    if (group) links.set(group, (links.get(group) ?? 0) + 1);
  }
  const facts = [...tree].map(([name, entry]) => {
    const { type, uid, gid, mtimeSec } = entry;
    const mode = type === "symlink" ? "" : entry.mode.toString(8);
    const target = type === "symlink" ? text(entry.target) : "";
    const count = type === "file" && entry.linkGroup ? links.get(entry.linkGroup) : 1;
    const counted = type === "file" ? `${count} ${entry.blob.digest}` : "";
    const letter = type === "symlink" ? "l" : type.slice(0, 1);
    return [text(name), [letter, mode, `${uid}:${gid}`, mtimeSec, target, counted].join(" ")];
  });
  return Object.fromEntries(facts);
}

test("the tree of a real image is the one that umoci unpacks", { skip: noUmoci }, async (t) => {
  const node = newNode(t);
  const umoci = (...words: string[]) =>
    execFileSync("umoci", words, { cwd: node.dir, stdio: ["ignore", "pipe", "ignore"] });
  const bundle = (name: string) => node.path(`${name}/rootfs`);
  umoci("init", "--layout", "layout");
  umoci("new", "--image", "layout:one");
  umoci("unpack", "--image", "layout:one", "first");
  execFileSync("cp", ["-a", REAL_TREE, path.join(bundle("first"), "tree")]);
  for (const name of ["gone/deep", "kept", "emptied/sub", "odd"])
    fs.mkdirSync(path.join(bundle("first"), name), { recursive: true });
  for (const name of ["gone/deep/f", "kept/old", "kept/stays", "emptied/sub/f", "odd/f"])
    fs.writeFileSync(path.join(bundle("first"), name), `${name}\n`);
  fs.chmodSync(path.join(bundle("first"), "kept"), 0o2711);
  fs.chownSync(path.join(bundle("first"), "kept/stays"), 12, 34);
  fs.linkSync(path.join(bundle("first"), "kept/stays"), path.join(bundle("first"), "kept/linked"));
  fs.symlinkSync("../kept/../gone", path.join(bundle("first"), "odd/link"));
  umoci("repack", "--image", "layout:one", "first");
  umoci("unpack", "--image", "layout:one", "second");
  fs.rmSync(path.join(bundle("second"), "gone"), { recursive: true });
  fs.writeFileSync(path.join(bundle("second"), "gone"), "a file now\n");
  fs.rmSync(path.join(bundle("second"), "kept/old"));
  fs.rmSync(path.join(bundle("second"), "emptied/sub"), { recursive: true });
  fs.mkdirSync(path.join(bundle("second"), "emptied/sub"));
  fs.rmSync(path.join(bundle("second"), "odd"), { recursive: true });
  fs.symlinkSync("tree", path.join(bundle("second"), "odd"));
  umoci("repack", "--image", "layout:two", "second");
  umoci("unpack", "--image", "layout:two", "judge");
  const bench = new Bench(t);
  const { tree } = await bench.snapshot(node.path("layout"), { image: "two" });
  const judged = onDisk(bundle("judge"));
  t.ok(Object.keys(judged).length > 20, `${Object.keys(judged).length} paths`);
  t.same(inSnapshot(tree), judged);
});
