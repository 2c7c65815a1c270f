// Owns: proof on real wheels that a wheel's layer is what pip makes of it, file by file, but for who installed it. Needs
// $BURROW_FIXTURES=DIR where fixtures/wheels.sh works, and a Python 3.11 with pip; skipped with the reason otherwise. Plane: control.

import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { newNode } from "../../cli/cli.ts";

const ROOT = path.resolve(import.meta.dirname, "../../../..");
const fixtures = process.env["BURROW_FIXTURES"];
const ASK =
  "import pip, sys; print(sys.executable) if sys.version_info[:2] == (3, 11) else exit(1)";
const asked = spawnSync("python3", ["-c", ASK], { encoding: "utf8" });
// pip's scripts name the Python that ran it by the path that it was called by: one that says its version.
const python = asked.status === 0 ? fs.realpathSync(asked.stdout.trim()) : undefined;
const skip =
  fixtures === undefined
    ? "BURROW_FIXTURES=DIR isn't set: where fixtures/wheels.sh works"
    : python === undefined && "python3 is no Python 3.11 with pip";

/** An installer says its name, and where it had the wheel from. */
const INSTALLERS = /\.dist-info\/(INSTALLER|RECORD|REQUESTED|direct_url\.json)$/;

function installed(root: string): Map<string, string> {
  const files = new Map<string, string>();
  for (const each of fs.readdirSync(root, { recursive: true, withFileTypes: true })) {
    const file = path.join(each.parentPath, each.name);
    const name = path.relative(root, file);
    if (!each.isFile() || INSTALLERS.test(name)) continue;
    const mode = (fs.statSync(file).mode & 0o777).toString(8);
    const sha256 = createHash("sha256").update(fs.readFileSync(file)).digest("hex");
    files.set(name, `${mode} ${sha256}`);
  }
  return files;
}

test("real wheels are laid out as pip does", { skip, timeout: 900_000 }, async (t) => {
  const wheels = path.join(fixtures!, "wheels");
  execFileSync("bash", [path.join(ROOT, "fixtures/wheels.sh"), wheels, python!], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  const node = newNode(t);
  const names = fs.readdirSync(wheels).filter((name) => name.endsWith(".whl"));
  t.ok(names.length >= 20);
  const target = ["--python", python!, "--prefix", "/opt/w"];
  for (const name of names) {
    const wheel = path.join(wheels, name);
    const made = await node.run(["layer", "import", "--quiet", ...target, wheel]);
    t.equal(made.code, 0, `${name}: ${made.stderr}`);
    const { stdout } = await node.run(["layer", "show", "--json", made.stdout.trim()]);
    const entries = JSON.parse(stdout) as {
      path: string;
      type: string;
      mode: number;
      sha256: string;
    }[];
    const ours = entries
      .filter(({ path: file, type }) => type !== "directory" && !INSTALLERS.test(file))
      .map(({ path: file, mode, sha256 }): [string, string] => [
        file,
        `${mode.toString(8)} ${sha256}`,
      ]);
    const pips = installed(path.join(wheels, "installed", name));
    t.same(new Map(ours.sort()), new Map([...pips].sort()), `${name}: ${pips.size} files`);
  }
});
