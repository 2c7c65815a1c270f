// Owns: proof that annotations of a bundle become mounts of its sandbox by bin/burrow-oci, that hostile ones are refused with reasons, and
// that mounts go with their bundle. Plane: control.

import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import tap from "tap";
import { isSpec } from "../../lib/cli/annotate.ts";
import { type Allowed, wantedOf } from "../../lib/cli/annotations.ts";
import { exitOf, findRevisions, ROOT } from "../conformance/runsc.ts";
import { conda } from "../ingest/conda/packages.ts";
import { busybox, type Node } from "./cli.ts";

const { found, reasons } = findRevisions();
const skip = found.length === 0 ? reasons.join("; ") : false;
const DIGEST = `sha256:${"a".repeat(64)}`;
const ALLOWED: Allowed = {
  stages: ["/srv/stages", "https://data.example/public/"],
  scratchBytes: 2 ** 30,
};

tap.test("annotations that can't be are refused, each with its name and why", async (t) => {
  const bad: [string, unknown, RegExp][] = [
    ["env", "/etc", /no digest/],
    ["env", "sha256:aaaaaa", /no digest/],
    ["env", "", /no text/],
    ["env", ["a"], /no text/],
    ["env.x", DIGEST, /there is env, stage/],
    ["envs", DIGEST, /there is env, stage/],
    ["mount.x", DIGEST, /not PATH=/],
    ["mount.x", `opt=${DIGEST}`, /no absolute, plain path/],
    ["mount.x", `/=${DIGEST}`, /no absolute, plain path/],
    ["mount.x", `/opt/../etc=${DIGEST}`, /no absolute, plain path/],
    ["mount.x", `/opt/=${DIGEST}`, /no absolute, plain path/],
    ["mount.x", `/proc/self=${DIGEST}`, /sandbox's own/],
    ["mount.x", `/dev=${DIGEST}`, /sandbox's own/],
    ["mount.x", "/opt=/etc", /no digest/],
    ["mount.x", `/opt\n=${DIGEST}`, /control characters/],
    ["mount.x", `/${"x".repeat(9000)}=${DIGEST}`, /longer than/],
    ["mount.", `/opt=${DIGEST}`, /there is env, stage/],
    ["scratch.x", "/tmp=2G", /at most 1073741824/],
    ["scratch.x", "/tmp=1", /no size/],
    ["scratch.x", "/tmp=-1G", /no size/],
    ["stage.x", "/etc", /not allowed/],
    ["stage.x", "/srv/stagesecret", /not allowed/],
    ["stage.x", "/srv/stages/../../etc", /not allowed/],
    ["stage.x", "https://data.example/publicity", /not allowed/],
    ["stage.x", "https://data.example/public/%2e%2e/private", /not allowed/],
    ["stage.x", "https://data.example/public?x", /not allowed/],
    ["stage.x", "http://169.254.169.254/", /not allowed/],
    ["stage...", "/srv/stages", /no name/],
    ["stage.a/b", "/srv/stages", /no name/],
    [`stage.${"x".repeat(256)}`, "/srv/stages", /no name/],
  ];
  for (const [name, value, why] of bad) {
    const annotations = { [`dev.burrow.${name}`]: value };
    t.throws(() => wantedOf(annotations, ALLOWED), { code: "BURROW_USAGE", message: why }, name);
  }
  const many = Array.from({ length: 65 }, (_, i) => [`dev.burrow.scratch.${i}`, `/s${i}=4K`]);
  t.throws(() => wantedOf(Object.fromEntries(many), ALLOWED), { message: /at most 64/ });
  const good = {
    "other.env": "/etc",
    "dev.burrow.stage.b": "https://data.example/public/b",
    "dev.burrow.stage.a": "/srv/stages/a",
    "dev.burrow.scratch.t": "/tmp=64M",
  };
  t.match(wantedOf(good, ALLOWED), [
    { kind: "scratch", at: "/tmp", sizeBytes: 64 * 2 ** 20 },
    { kind: "stage", at: "/stage/a", source: "/srv/stages/a" },
    { kind: "stage", at: "/stage/b", source: "https://data.example/public/b" },
  ]);
  t.same(wantedOf(undefined, ALLOWED), []);
});

tap.test("a configuration whose lists are none is refused before it is used", async (t) => {
  const good = [
    {},
    { mounts: null, process: null },
    { mounts: [{ destination: "/a" }], process: { args: ["a"], env: null } },
  ];
  for (const spec of good) t.ok(isSpec(spec), JSON.stringify(spec));
  const bad = [
    null,
    [],
    { mounts: {} },
    { mounts: [null] },
    { mounts: [{}] },
    { mounts: [{ destination: 5 }] },
    { process: "sh" },
    { process: { env: "PATH=/bin" } },
    { process: { env: [1] } },
    { process: { args: { length: 1e9 } } },
  ];
  for (const spec of bad) t.notOk(isSpec(spec), JSON.stringify(spec));
});

/** A bundle as a container manager writes it: a root of the host's, and annotations. */
function bundleOf(node: Node, name: string, script: string, annotations: object): string {
  const spec = {
    ociVersion: "1.0.2",
    process: {
      user: { uid: 0, gid: 0 },
      args: ["/bin/sh", "-c", script],
      env: ["PATH=/bin", "CONDA_DEFAULT_ENV=own"],
      cwd: "/",
    },
    root: { path: node.path("base"), readonly: true },
    mounts: [{ destination: "/proc", type: "proc", source: "proc" }],
    annotations,
    linux: { namespaces: ["pid", "mount", "ipc", "uts", "network"].map((type) => ({ type })) },
  };
  node.file(`${name}/config.json`, JSON.stringify(spec));
  return node.path(name);
}

tap.test("a container finds what its annotations ask for", { skip }, async (t) => {
  const { node } = await busybox(t, found.at(-1)!.path);
  const tool = "#!/bin/sh\necho tool of $CONDA_PREFIX, $CONDA_DEFAULT_ENV\n";
  const archive = await conda({
    index: { name: "tool", version: "1.0", build: "0", build_number: 0 },
    files: [{ name: "bin/tool", content: tool, mode: 0o755 }],
  });
  node.file("tool-1.0-0.conda", archive);
  const made = await node.run(["env", "create", "--quiet", "tool-1.0-0.conda"]);
  t.equal(made.code, 0, made.stderr);
  node.file("stages/orders/a.csv", "1,2\n");
  const env = { BURROW_ANNOTATION_STAGES: node.path("stages") };
  const oci = async (...words: string[]) => {
    const flags = [`--root=${node.path("runsc")}`, "--network=none", "--ignore-cgroups"];
    const child = spawn(path.join(ROOT, "bin/burrow-oci"), [...flags, ...words], {
      env: { ...node.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
      timeout: 60_000,
    });
    const texts = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"] as const)
      child[name].on("data", (chunk) => {
        texts[name] += chunk;
      });
    return { code: await exitOf(child), ...texts };
  };
  const script =
    "tool; cat /stage/orders/a.csv; echo x >/tmp/a && cat /tmp/a; echo y >/stage/orders/b; exit 3";
  const annotations = {
    "dev.burrow.env": made.stdout.trim(),
    "dev.burrow.stage.orders": node.path("stages/orders"),
    "dev.burrow.scratch.tmp": "/tmp=1M",
  };
  const bundle = bundleOf(node, "one", script, annotations);
  const ran = await oci("run", "--bundle", bundle, "one-annotated");
  t.equal(ran.code, 3, ran.stderr);
  t.equal(ran.stdout, "tool of /opt/env, own\n1,2\nx\n");
  t.match(ran.stderr, /Read-only file system/, "a stage is not written to");
  const mounts = () => node.leftovers().filter((name) => name.startsWith("mounts/"));
  t.equal(mounts().length, 3, "they stay as long as the bundle");
  const again = await oci("run", `-bundle=${bundle}`, "one-annotated");
  t.equal(again.code, 3, "which can be run again");
  t.equal(mounts().length, 3, "with the mounts that it has");

  const log = node.path("log.json");
  const hostile = bundleOf(node, "two", "true", { "dev.burrow.stage.etc": "/etc" });
  const refused = await oci("--log", log, "run", "--bundle", hostile, "two-annotated");
  t.equal(refused.code, 128);
  t.match(refused.stderr, /annotation dev.burrow.stage.etc: \/etc is not allowed/);
  t.match(JSON.parse(fs.readFileSync(log, "utf8")), { level: "error", msg: /not allowed/ });

  fs.rmSync(bundle, { recursive: true });
  const other = bundleOf(node, "three", "true", { "dev.burrow.scratch.p": "/proc2=1M" });
  t.equal((await node.run(["annotate", other])).code, 0);
  t.equal(mounts().length, 1, "those of a bundle that is gone go with the next call");
  t.equal(fs.readdirSync(path.join(node.state, "bundles")).length, 1);
  t.same(node.processes(), []);
});
