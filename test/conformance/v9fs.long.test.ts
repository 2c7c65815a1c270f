// Linux's own 9P client, in a user-mode Linux, on what burrow serve serves: every name, attribute and byte of a Python, which then
// runs from the mount, in each kind of cache and by unix socket and TCP; a writable view, as a program uses it and fio verifies it; and how
// long it takes beside diod. BURROW_VERIFIERS=DIR after fixtures/verifiers.sh DIR has fio in.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { findDiod } from "../suite/diod.ts";
import { findUml } from "../suite/power-machine.ts";
import { temporary } from "../suite/served.ts";
import { bootV9fs } from "../suite/v9fs-machine.ts";

const uml = findUml();
const diod = findDiod();
const PYTHON = "/usr/bin/python3";
const CACHES = ["none", "mmap", "loose"];
const PROGRAM = "import sys, json, decimal, email.message; print(json.dumps([sys.prefix, 6 * 7]))";

/** A Python without what only its own tests need. */
function makeTree(folder: string): string {
  const code = 'import sys; print("%d.%d" % sys.version_info[:2])';
  const version = execFileSync(PYTHON, ["-c", code], { encoding: "utf8" }).trim();
  const tree = path.join(folder, "tree");
  fs.mkdirSync(path.join(tree, "usr/bin"), { recursive: true });
  fs.mkdirSync(path.join(tree, "usr/lib"));
  fs.copyFileSync(PYTHON, path.join(tree, "usr/bin/python3"));
  fs.chmodSync(path.join(tree, "usr/bin/python3"), 0o755);
  execFileSync("cp", ["-a", `/usr/lib/python${version}`, path.join(tree, "usr/lib")]);
  const stdlib = path.join(tree, `usr/lib/python${version}`);
  for (const name of fs.readdirSync(stdlib)) {
    if (/^(test|idlelib|lib2to3|ensurepip|tkinter|config-.*)$/.test(name))
      fs.rmSync(path.join(stdlib, name), { recursive: true });
  }
  fs.symlinkSync("usr/lib", path.join(tree, "lib"));
  fs.linkSync(path.join(stdlib, "os.py"), path.join(stdlib, "hard.py"));
  fs.mkdirSync(path.join(tree, "many"));
  for (let i = 0; i < 1_500; i++)
    fs.writeFileSync(path.join(tree, `many/${"n".repeat(60)}${i}`), "");
  return tree;
}

/** How fio is run from what fixtures/verifiers.sh has unpacked; "" where it hasn't. */
function fioIn(verifiers: string | undefined): string {
  if (verifiers === undefined) return "";
  const root = path.join(verifiers, "root");
  const folders = [
    "lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu/ceph",
  ];
  const libraries = folders.map((folder) => `${root}/${folder}`).join(":");
  return `env LD_LIBRARY_PATH=${libraries} ${root}/usr/bin/fio`;
}

/** Of what took so many milliseconds by each server the medians and the least, beside each other. */
function besides(took: readonly string[]): string[] {
  const times = new Map<string, Map<string, number[]>>();
  for (const line of took) {
    const [, server, cache, what, ms] = line.split(" ");
    const key = `cache=${cache} ${what}`;
    const servers = times.get(key) ?? new Map<string, number[]>();
    servers.set(server!, [...(servers.get(server!) ?? []), Number(ms)]);
    times.set(key, servers);
  }
  return [...times].map(([key, servers]) => {
    const shown = [...servers].map(([name, all]) => {
      return `${name} ${median(all)} ms, least ${Math.min(...all)}`;
    });
    return `${key}: ${shown.join("; ")}`;
  });
}

function median(all: readonly number[]): number {
  return all.toSorted((a, b) => a - b)[all.length >> 1]!;
}

test("Linux mounts, compares, runs Python from it and writes", { skip: uml.skip }, async (t) => {
  const folder = temporary(t);
  const { lines, output } = await bootV9fs(uml.root, folder, {
    tree: makeTree(folder),
    program: PROGRAM,
    caches: CACHES,
    fio: fioIn(process.env["BURROW_VERIFIERS"]),
    ...(diod.skip === false ? { diod } : {}),
  });
  t.comment(output.slice(-3_000));
  for (const cache of CACHES) {
    for (const how of ["unix", "tcp"]) {
      const said = (what: string) => t.ok(lines.includes(what), what);
      said(`find ${cache} ${how} same`);
      said(`sums ${cache} ${how} same`);
      said(`python ${cache} ${how} ["/run/mnt/usr", 42] `);
      said(`readonly ${cache} ${how}`);
    }
  }
  t.equal(
    lines.find((line) => line.startsWith("write ")),
    "write ok ",
  );
  const bytes = Buffer.from(Uint8Array.from({ length: 256 }, (_, i) => i));
  const large = Buffer.concat(Array.from({ length: 40_000 }, () => bytes));
  const digest = createHash("sha256").update(large).digest("hex");
  t.ok(lines.includes(`again ${digest}  -`), "what was written is there for the next mount");
  for (const line of lines.filter((line) => line.startsWith("fio ")))
    t.match(line, / 0$/, `${line}: every block is as it was written`);
  const took = lines.filter((line) => line.startsWith("took "));
  for (const line of took) t.match(line, / 0$/, line);
  if (diod.skip === false) t.equal(took.length, 2 * 2 * (3 * 2 + 22), "each server in each cache");
  t.comment(besides(took).join("\n"));
  t.ok(lines.includes("ended 0 "), "SIGTERM ends it, its socket is gone");
});
