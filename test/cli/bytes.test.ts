// Owns: proof that a real sentry gets a file's bytes by each way there is: donated, by PRead, first the one and then the other, and
// from mappings whose cache files are gone (pitfalls C1, F1, F8). Needs root, runsc and a static busybox. Plane: control.
import { createHash } from "node:crypto";
import fs from "node:fs";
import { test } from "tap";
import { DONATE_MAX_BYTES } from "../../lib/base/limits.ts";
import { exitOf, findRevisions } from "../conformance/runsc.ts";
import { noise } from "../suite/daemon-node.ts";
import { until } from "../suite/wait.ts";
import { busybox } from "./cli.ts";

const { found, reasons } = findRevisions();
for (const reason of reasons) console.error(`skipped: ${reason}`);
if (found.length === 0) test("bytes in a sandbox", { skip: reasons.join("; ") }, () => {});

const SMALL = noise(50_000, 5);
const LARGE = noise(DONATE_MAX_BYTES + 2_000_003, 6);
const hash = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

for (const revision of found) {
  test(`${revision.name}: a sandbox reads right bytes by each way, also when the cache is emptied under it`, {
    timeout: 60_000,
  }, async (t) => {
    const { node, base } = await busybox(t, revision.path);
    node.file("data/small", SMALL);
    node.file("data/large", LARGE);
    const sums = "busybox sha256sum /stage/data/small /stage/data/large";
    const script = `${sums}; echo ready; read x; ${sums}; cat /etc/greeting; exec /bin/busybox echo end`;
    const words = ["run", "--base", base, "--platform", "ptrace", "--stage", "data=data"];
    const more = ["--stats-file", "stats.json", "--", "/bin/sh", "-c", script];
    const child = node.start([...words, ...more], { keepsInput: true });
    let out = "";
    child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      out += text;
    });
    t.ok(await until(() => out.includes("ready")), "started");
    const blobs = `${node.env["BURROW_CACHE"]}/blobs`;
    // What an eviction does. busybox itself is among them: mapped, and running.
    for (const shard of fs.readdirSync(blobs)) fs.rmSync(`${blobs}/${shard}`, { recursive: true });
    child.stdin!.end("go\n");
    t.equal(await exitOf(child), 0);
    const both = `${hash(SMALL)}  /stage/data/small\n${hash(LARGE)}  /stage/data/large\n`;
    t.equal(out, `${both}ready\n${both}hello\nend\n`);
    const { counters } = JSON.parse(fs.readFileSync(node.path("stats.json"), "utf8"));
    t.ok(counters.others.donated > 1, `${counters.others.donated} donated`);
    t.ok(counters.requests.PRead > 0, `${counters.requests.PRead} PReads`);
    t.same(node.leftovers(), []);
  });
}
