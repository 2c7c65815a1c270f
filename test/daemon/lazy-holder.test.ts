// The holder of a lazy mount where its state file can't be written.

import fs from "node:fs";
import { join } from "node:path";
import { test } from "tap";
import { Holder } from "../../lib/daemon/lazy-holder.ts";
import { temporary } from "../suite/served.ts";
import { openFds } from "../suite/tree-fixture.ts";
import { until } from "../suite/wait.ts";

/** More than the FDs that Node.js keeps for itself once it has started a program. */
const TIMES = 8;
const childrenOf = () =>
  fs
    .readdirSync("/proc/self/task")
    .map((task) => fs.readFileSync(`/proc/self/task/${task}/children`, "utf8").trim())
    .join("");

test("a holder that nobody could find isn't left behind", async (t) => {
  const directory = temporary(t);
  const device = fs.openSync("/dev/null", "r+");
  t.teardown(() => fs.closeSync(device));
  const given = { suffix: "x", files: [] };
  const lost = () => t.fail("nobody hears of it");
  const before = openFds();
  t.equal(childrenOf(), "");
  t.throws(() => new Holder(join(directory, "none", "state"), device, given, lost), {
    code: "ENOENT",
  });
  // The name is a folder's: what was written has none to take.
  const path = join(directory, "state");
  fs.mkdirSync(path);
  for (let times = 0; times < TIMES; times++)
    t.throws(() => new Holder(path, device, given, lost), { code: "EISDIR" });
  t.ok(await until(() => childrenOf() === ""), "no shell is left");
  t.ok(await until(() => openFds() < before + TIMES), "nor an FD of each");
  t.same(fs.readdirSync(directory), ["state"], "nor a file");
});
