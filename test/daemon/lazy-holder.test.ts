// The holder of a lazy mount where its state file can't be written, or not whole.

import fs from "node:fs";
import { join } from "node:path";
import { test } from "tap";
import { type HeldFile, Holder, takeHeld } from "../../lib/daemon/lazy-holder.ts";
import { native } from "../../lib/sys/native.ts";
import { createUpperFd } from "../../lib/tree/upper.ts";
import { noTmpfs } from "../suite/private-tmpfs.ts";
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

test("a note that a full disk has cut spoils none of the others", async (t) => {
  const why = noTmpfs();
  if (why !== undefined) return void t.pass(why, { skip: why });
  const tmpfs = createUpperFd({ sizeBytes: 16_384, inodes: 9, mode: 0o700 });
  if (typeof tmpfs === "number") return void t.fail(`errno ${-tmpfs}`);
  const folder = `/proc/self/fd/${tmpfs.borrow()}`;
  const device = fs.openSync("/dev/null", "r+");
  const holder = new Holder(`${folder}/state`, device, { suffix: "x", files: [] }, () => {});
  t.teardown(() => {
    holder.end();
    fs.closeSync(device);
    tmpfs[Symbol.dispose]();
  });
  const noted: string[] = [];
  /** Notes files of a name of some length until there is no space. */
  const fill = (some: string) => {
    for (let i = 0; i < 1_000; i++) {
      const name = `${some}${i}`.padEnd(100, "-");
      const file: HeldFile = { name, node: i, key: "", snapshot: "", origin: "", row: i, size: 1 };
      try {
        holder.note(file);
      } catch (error) {
        t.match(error, { code: "BURROW_NO_SPACE" });
        return;
      }
      noted.push(name);
    }
    t.fail("it never is full");
  };
  fs.writeFileSync(`${folder}/other`, Buffer.alloc(5_000));
  fill("early");
  fs.rmSync(`${folder}/other`);
  fill("late");
  t.ok(noted.some((name) => name.startsWith("late")));
  const held = takeHeld(`${folder}/state`);
  t.same(
    held?.files.map(({ name }) => name),
    noted,
  );
  if (held !== undefined) native.closeFd(held.device);
});
