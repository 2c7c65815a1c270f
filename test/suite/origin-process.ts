// An origin over HTTP in a process of its own. Test support.

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Teardown } from "./served.ts";

/** Serves a directory until the test ends: its URL. */
export async function startOrigin(t: Teardown, root: string): Promise<string> {
  const program = fileURLToPath(new URL("origin-program.js", import.meta.url));
  const child = spawn(process.execPath, [program, root], { stdio: ["ignore", "pipe", "inherit"] });
  t.teardown(() => {
    child.kill("SIGKILL");
  });
  for await (const bytes of child.stdout) return String(bytes).trim();
  throw new Error("the origin did not start");
}
