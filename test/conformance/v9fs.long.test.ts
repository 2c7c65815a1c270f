// Linux's own 9P client, in a user-mode Linux, on what burrow serve serves: every name, attribute and byte of a Python, which then
// runs from the mount, in each kind of cache and by unix socket and TCP; and a writable view, as a program uses it.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { findUml } from "../suite/power-machine.ts";
import { temporary } from "../suite/served.ts";
import { bootV9fs } from "../suite/v9fs-machine.ts";

const uml = findUml();
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

test("Linux mounts, compares, runs Python from it and writes", { skip: uml.skip }, async (t) => {
  const folder = temporary(t);
  const { lines, output } = await bootV9fs(uml.root, folder, {
    tree: makeTree(folder),
    program: PROGRAM,
    caches: CACHES,
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
  t.ok(lines.includes("ended 0 "), "SIGTERM ends it, its socket is gone");
});
