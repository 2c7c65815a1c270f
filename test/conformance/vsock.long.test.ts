// `burrow serve --listen vsock:CID:PORT`, as VMs connect to it: in a user-mode Linux, by its loopback of vsock, since nothing can connect
// on a machine without a hypervisor. Linux's own 9P client mounts by the connection and reads all.

import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { noise } from "../suite/daemon-node.ts";
import { findUml } from "../suite/power-machine.ts";
import { temporary } from "../suite/served.ts";
import { bootUml, ROOT } from "../suite/uml.ts";

const BOOT_MAX_MS = 600_000;
const uml = findUml();

test("Linux mounts over vsock and reads all", { skip: uml.skip, timeout: 900_000 }, async (t) => {
  const folder = temporary(t);
  const tree = path.join(folder, "tree");
  for (let i = 0; i < 40; i++) {
    fs.mkdirSync(path.join(tree, `d${i % 5}`), { recursive: true });
    fs.writeFileSync(path.join(tree, `d${i % 5}/f${i}`), noise(40_000 * i, i + 1));
  }
  const sums = "find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum";
  const wanted = execFileSync("sh", ["-c", sums], { cwd: tree, encoding: "utf8" }).split(" ")[0];
  const burrow = `${process.execPath} --no-warnings ${path.join(ROOT, "dist/burrow.cjs")}`;
  const given = path.join(folder, "given");
  fs.writeFileSync(given, `root='${uml.root}'\ntree='${tree}'\nburrow='${burrow}'\n`);
  const output = await bootUml({
    ...{ uml: uml.root, folder, memory: "700M", given },
    ...{ script: "vsock-guest.sh", maxMs: BOOT_MAX_MS },
  });
  t.match(output, /^@@ out serving .*vsock:1:5640.*vsock:any:5641/m, "it listens");
  t.match(output, new RegExp(`^@@ sums 5640 ${wanted}`, "m"), "by the machine's own CID");
  t.match(output, new RegExp(`^@@ sums 5641 ${wanted}`, "m"), "by any");
  t.match(output, /^@@ ended (0|143)/m, "SIGTERM ends it");
});
