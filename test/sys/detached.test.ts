// Programs that live on their own: joined by one socket, started by a thread, and no zombies when they have ended.

import fs from "node:fs";
import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { Detached } from "../../lib/sys/detached.ts";
import { until } from "../suite/wait.ts";

/** The state of a process that has not been waited for; "" of none. */
function stateOf(pid: number): string {
  try {
    return /^State:\s+(\S)/m.exec(fs.readFileSync(`/proc/${pid}/status`, "latin1"))?.[1] ?? "";
  } catch {
    return "";
  }
}

test("it has the socket at 3, and is no zombie after its end", async (t) => {
  const script = 'ls /proc/self/fd | tr "\\n" " " >&3; head -c 1 <&3; exit 7';
  const { link, pid } = new Detached(["sh", "-c", script]);
  let said = "";
  link.on("data", (bytes: Buffer) => {
    said += bytes.toString();
  });
  const started = await pid;
  t.ok(started > 0);
  t.ok(await until(() => said.length > 0));
  t.match(said, /^0 1 2 /);
  t.match(said, / 3 /);
  t.not(stateOf(started), "", "it waits for us");
  link.write("x");
  t.ok(await until(() => link.destroyed), "its end is the link's");
  t.ok(await until(() => stateOf(started) === ""));
});

test("it ends when its link is given up", async (t) => {
  const { link, pid } = new Detached(["sh", "-c", "cat <&3"]);
  const started = await pid;
  link.destroy();
  t.ok(await until(() => stateOf(started) === ""));
});

test("a program that isn't there", async (t) => {
  const { link, pid } = new Detached(["/nonexistent/program"]);
  t.equal(await pid, -Errno.ENOENT);
  t.ok(await until(() => link.destroyed));
});
