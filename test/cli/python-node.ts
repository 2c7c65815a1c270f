// Owns: what the tests of burrow env compile share: a node whose base has this machine's Python, and packages with scripts.
// Plane: control.

import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import tap, { type Test } from "tap";
import { findRevisions } from "../conformance/runsc.ts";
import { conda, type Spec } from "../ingest/conda/packages.ts";
import { Node } from "./cli.ts";

const PYTHON = "/usr/bin/python3";
const { found, reasons } = findRevisions();
/** Why there can be none here; false when there can. */
export const skip =
  found.length === 0
    ? reasons.join("; ")
    : fs.existsSync(PYTHON) && fs.existsSync("/bin/busybox")
      ? false
      : `needs ${PYTHON} and /bin/busybox`;

/** Python, its version and what it is linked with. */
function python(): { version: string; files: string[] } {
  const version = execFileSync(PYTHON, [
    "-c",
    "import sys; print('%d.%d' % sys.version_info[:2], end='')",
  ]).toString();
  const stdlib = `/usr/lib/python${version}`;
  const modules = fs.readdirSync(`${stdlib}/lib-dynload`).map((name) => `lib-dynload/${name}`);
  const programs = [PYTHON, ...modules.map((name) => `${stdlib}/${name}`)];
  const linked = execFileSync("ldd", programs, { stdio: ["ignore", "pipe", "ignore"] })
    .toString()
    .matchAll(/(\/\S+\.so\S*) \(0x/g);
  return { version, files: [...new Set([...linked].map(([, file]) => file!))] };
}

/** A node with a base of this machine's Python, and busybox for a shell. */
async function pythonNode(t: Test): Promise<{ node: Node; base: string; version: string }> {
  const node = new Node();
  tap.teardown(() => node.close());
  node.env["BURROW_RUNSC"] = found.at(-1)!.path;
  const { version, files } = python();
  const root = node.path("base");
  for (const name of ["bin", "dev", "proc", "sys", "tmp", "usr/bin", "usr/lib"])
    fs.mkdirSync(path.join(root, name), { recursive: true });
  for (const file of files) {
    fs.mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
    fs.copyFileSync(file, path.join(root, file));
  }
  fs.copyFileSync(PYTHON, path.join(root, "usr/bin/python3"));
  fs.copyFileSync("/bin/busybox", path.join(root, "bin/busybox"));
  for (const name of ["sh", "cat", "mkdir", "rm", "ln", "chmod", "mv", "env", "sleep"])
    fs.symlinkSync("busybox", path.join(root, "bin", name));
  execFileSync("cp", ["-a", `/usr/lib/python${version}`, path.join(root, "usr/lib")]);
  const stdlib = path.join(root, `usr/lib/python${version}`);
  for (const name of fs.readdirSync(stdlib)) {
    const isNeeded = !/^(test|idlelib|lib2to3|ensurepip|pydoc_data|config-.*)$/.test(name);
    if (!isNeeded) fs.rmSync(path.join(stdlib, name), { recursive: true, force: true });
  }
  const { code, stdout, stderr } = await node.run(["layer", "import", "--snapshot", "base"]);
  t.equal(code, 0, stderr);
  return { node, base: stdout.trim(), version };
}

let made: ReturnType<typeof pythonNode> | undefined;
/** One node for all tests: its base takes long. */
export function shared(t: Test): ReturnType<typeof pythonNode> {
  made ??= pythonNode(t);
  return made;
}

export async function addPackage(node: Node, name: string, spec: Spec): Promise<string> {
  const index = { name, version: "2.0", build: "h0_7", build_number: 7, ...spec.index };
  return node.file(`${name}-2.0-h0_7.conda`, await conda({ ...spec, index }));
}

export async function created(node: Node, t: Test, ...packages: string[]): Promise<string> {
  const { code, stdout, stderr } = await node.run(["env", "create", "--quiet", ...packages]);
  t.equal(code, 0, stderr);
  return stdout.trim();
}

/** Whether sandboxes may have cgroups of their own here. */
export function hasCgroups(): boolean {
  const folder = `/sys/fs/cgroup/memory/burrow-test-${process.pid}`;
  try {
    fs.mkdirSync(folder);
    fs.rmdirSync(folder);
    return true;
  } catch {
    return false;
  }
}
