// Programs that live on their own: joined by one socket, started by a thread, and no zombies when they have ended.

import fs from "node:fs";
import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { Detached } from "../../lib/sys/detached.ts";
import { native } from "../../lib/sys/native.ts";
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

test("no FD is left for it", async (t) => {
  const limit = Math.max(...fs.readdirSync("/proc/self/fd").map(Number)) + 20;
  native.setNoFile(limit);
  const taken: number[] = [];
  for (let fd = 0; fd >= 0; taken.push(fd)) fd = native.openAt(-1, "/dev/null", 0, 0);
  t.equal(taken.pop(), -Errno.EMFILE);
  // Room for the two ends of its link, and no more.
  for (const fd of taken.splice(-2)) native.closeFd(fd);
  const { link, pid } = new Detached(["true"]);
  t.equal(await pid, -Errno.EMFILE);
  t.ok(await until(() => link.destroyed));
  for (const fd of taken) native.closeFd(fd);
});
