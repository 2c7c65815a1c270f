// Owns: proof that a sandbox may write over a view (--writable): by a real sentry, small and large files, names, whole directories, up
// to the quota, and that nothing of it is there for the next. Needs root, runsc and a static busybox. Plane: control.
import { createHash } from "node:crypto";
import { test } from "tap";
import { DONATE_MAX_BYTES } from "../../lib/base/limits.ts";
import { findRevisions } from "../conformance/runsc.ts";
import { conda } from "../ingest/conda/packages.ts";
import { noise } from "../suite/daemon-node.ts";
import { busybox } from "./cli.ts";

const { found, reasons } = findRevisions();
for (const reason of reasons) console.error(`skipped: ${reason}`);
if (found.length === 0) test("a writable view", { skip: reasons.join("; ") }, () => {});

const LARGE = noise(DONATE_MAX_BYTES + 2_000_003, 6);
const hash = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** A line each of what it prints stands in EXPECTED. */
const SCRIPT = `
b=/bin/busybox; cd /
echo more >> /etc/greeting; $b cat /etc/greeting /etc/made/note
$b mv /stage/data /moved; $b ls /moved /stage
$b chmod 600 /moved/keep; $b stat -c %a /moved/keep
$b dd if=/moved/large bs=4096 count=1 2>/dev/null | $b sha256sum
echo X | $b dd of=/moved/large bs=1 seek=100 conv=notrunc 2>/dev/null; $b sha256sum /moved/large
$b rm -r /moved; $b ls /moved 2>/dev/null || echo gone
$b mkdir /moved; $b ls -a /moved
$b dd if=/dev/zero of=/full bs=1M count=40 2>&1 | $b grep -c 'No space left'; $b rm /full
echo again > /full && $b cat /full`;

function expected(): string {
  const changed = Buffer.from(LARGE);
  changed.write("X\n", 100);
  const first = hash(LARGE.subarray(0, 4096));
  const moved = ["/moved:", "keep", "large", "", "/stage:", "600", `${first}  -`];
  const rest = [`${hash(changed)}  /moved/large`, "gone", ".", "..", "1", "again", ""];
  return ["hello", "more", "kept", ...moved, ...rest].join("\n");
}

for (const revision of found) {
  test(`${revision.name}: --writable lets a sandbox change all that it sees, for itself`, {
    timeout: 120_000,
  }, async (t) => {
    const { node, base } = await busybox(t, revision.path);
    node.file("data/keep", "kept\n");
    node.file("data/large", LARGE);
    const words = ["run", "--base", base, "--platform", "ptrace", "--stage", "data=data"];
    words.push("--bind", "/etc/made/note=data/keep");
    const root = ["--user", "0:0"];
    const { code, stdout, stderr } = await node.run([
      ...words,
      ...root,
      "--writable",
      "32M",
      "--",
      "/bin/sh",
      "-c",
      SCRIPT,
    ]);
    t.equal(code, 0, stderr);
    t.equal(stdout, expected());
    const next = await node.run([
      ...words,
      "--",
      "/bin/busybox",
      "cat",
      "/etc/greeting",
      "/stage/data/keep",
      "/etc/made/note",
    ]);
    t.equal(next.stdout, "hello\nkept\nkept\n", "the next sandbox sees nothing of it");
    t.same(node.leftovers(), []);
  });
}

test("--upper keeps the changes of one view, and layer keep makes a snapshot of them", {
  timeout: 120_000,
  skip: found.length === 0 ? reasons.join("; ") : false,
}, async (t) => {
  const { node, base } = await busybox(t, found[0]!.path);
  node.file("data/keep", "kept\n");
  const script = (text: string) => ["--", "/bin/sh", "-c", text];
  const plain = ["run", "--base", base, "--platform", "ptrace", "--user", "0:0"];
  const words = [...plain, "--stage", "data=data", "--upper", "up"];
  const busy = "b=/bin/busybox";
  const first = `${busy}; echo a >> /etc/greeting; $b mkdir /new; $b ln /etc/greeting /new/same; $b mv /bin/sh /bin/ash; $b cp /stage/data/keep /new; $b rm /stage/data/keep`;
  t.equal((await node.run([...words, ...script(first)])).code, 0);
  const second = `/bin/busybox cat /new/same; echo b >> /new/same; /bin/busybox ls /bin`;
  const again = await node.run([...words, "--", "/bin/ash", "-c", second]);
  t.match(again.stdout, /^hello\na\n[\s\S]*ash\n/, again.stderr);
  const other = await node.run([...plain, "--upper", "up", "--", "/bin/ash"]);
  t.equal(other.code, 2);
  t.match(other.stderr, /another view/);

  const kept = await node.run(["layer", "keep", "up", "--json"]);
  t.equal(kept.code, 0, kept.stderr);
  const { snapshot, layer, changes } = JSON.parse(kept.stdout);
  t.ok(changes > 4 && changes < 20, `${changes} changes`);
  const listed = await node.run(["layer", "show", layer]);
  t.match(listed.stdout, /w0\d+ .* bin\/sh\n/, "the old name is hidden");
  t.notMatch(listed.stdout, /stage|bin\/busybox/, "what didn't change isn't in it");
  const run = ["run", "--base", snapshot, "--platform", "ptrace", "--", "/bin/ash", "-c"];
  const shown = await node.run([
    ...run,
    "/bin/busybox cat /etc/greeting /new/keep; /bin/busybox stat -c %h /new/same",
  ]);
  t.equal(shown.stdout, "hello\na\nb\nkept\n2\n", shown.stderr);
  const stage = await node.run(["layer", "keep", "up", "--at", "/stage/data"]);
  t.match(stage.stderr, /BURROW_UNSUPPORTED/);
  t.match(kept.stderr, /without what was changed at \/stage\/data"/);
  t.match((await node.run(["layer", "keep", "data"])).stderr, /holds no upper/);
  t.same(node.leftovers(), []);
});

test("what is kept of an environment is one: its packages are known, and whose files changed", {
  timeout: 120_000,
  skip: found.length === 0 ? reasons.join("; ") : false,
}, async (t) => {
  const { node, base } = await busybox(t, found[0]!.path);
  const files = [
    { name: "share/mine", content: "of the package" },
    { name: "share/gone", content: "in short" },
  ];
  node.file("first-1.0-0.conda", await conda({ index: { name: "first", build: "0" }, files }));
  const env = (await node.run(["env", "create", "first-1.0-0.conda"])).stdout.trim();
  const run = async (of: string, script: string) => {
    const words = ["run", "--base", base, "--env", of, "--platform", "ptrace", "--user", "0:0"];
    const ran = await node.run([...words, "--upper", `up-${of}`, "--", "/bin/sh", "-c", script]);
    t.equal(ran.code, 0, ran.stderr);
    const kept = await node.run(["layer", "keep", `up-${of}`, "--at", "/opt/env", "--json"]);
    t.equal(kept.code, 0, kept.stderr);
    return JSON.parse(kept.stdout) as { snapshot: string; layer: string };
  };
  const once = await run(env, "cd /opt/env/share; echo own > own; /bin/busybox rm gone");
  const twice = await run(once.snapshot, "cd /opt/env/share; echo other > own; echo a >> mine");
  const shown = await node.run(["env", "show", twice.snapshot]);
  t.match(shown.stdout, /first +1\.0/, shown.stderr);
  t.match(shown.stdout, `kept of sandboxes that changed ${once.snapshot.slice(0, 19)}`);
  const explain = ["explain", "--json", twice.snapshot];
  const told = await node.run([...explain, "share/own", "share/mine"]);
  t.equal(told.code, 0, told.stderr);
  const owner = { kind: "kept", layer: twice.layer };
  t.match(JSON.parse(told.stdout), [
    { owner, hides: ["burrow layer keep"] },
    { owner, hides: ["first-1.0-0"] },
  ]);
  const compile = await node.run(["env", "compile", "--base", base, twice.snapshot]);
  t.equal(compile.code, 1);
  t.match(compile.stderr, /compile the environment, .*BURROW_UNSUPPORTED/);
  // Of what isn't pinned or of an environment's nothing is left: the layers that were kept are.
  await node.run(["store", "gc", "--keep-within", "0"]);
  t.match((await node.run([...explain, "share/own"])).stdout, twice.layer);
});
