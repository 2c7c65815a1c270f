// Owns: proof that V8's settings are changed where V8 has them, and that a V8 without says nothing. Plane: control.

import { spawnSync } from "node:child_process";
import { test } from "tap";

test("no V8 complains of a flag", (t) => {
  const url = new URL("../../lib/sys/tiering.js", import.meta.url);
  const program = `import { optimizeLate, optimizedSoon } from "${url}"; optimizeLate(); optimizedSoon(() => 1);`;
  const words = ["--input-type=module", "-e", program];
  const { status, stderr } = spawnSync(process.execPath, words, { encoding: "utf8" });
  t.same({ status, stderr }, { status: 0, stderr: "" });
  t.end();
});
