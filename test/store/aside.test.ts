// Owns: proof that what killed writers left in a store goes, and what live ones write stays. Plane: control.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "tap";
import { asideName } from "../../lib/store/aside.ts";
import { openStore } from "../../lib/store/open.ts";

test("tmp/ of a store", async (t) => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "burrow-aside-"));
  t.teardown(() => fs.rmSync(root, { recursive: true, force: true }));
  await openStore(root);
  const tmp = (name: string) => path.join(root, "tmp", name);
  const made = (name: string, ageMs = 0) => {
    fs.writeFileSync(tmp(name), "half");
    const time = new Date(Date.now() - ageMs);
    fs.utimesSync(tmp(name), time, time);
    return name;
  };
  // A process that has ended by now, by its own name.
  const aside = path.join(import.meta.dirname, "../../lib/store/aside.js");
  const program = `import(${JSON.stringify(aside)}).then((m) => process.stdout.write(m.asideName()))`;
  const dead = spawnSync(process.execPath, ["-e", program], { encoding: "utf8" }).stdout;
  t.match(dead, /^[\da-f]{8}-.*@/);
  const day = 86_400_000;
  const stranger = `0123abcd-1-2-3@${"a".repeat(24)}`;
  const own = asideName();
  const [boot, , pid, start] = own.split(/[-@]/);
  const container = `${boot}-1-${pid}-${start}@${"b".repeat(24)}`;
  const kept = [
    made(container, day / 2),
    made(own, 3 * day),
    made(stranger, day / 2),
    made("of-another-form"),
  ];
  made(dead);
  made(container.replaceAll("b".repeat(24), "c".repeat(24)), 2 * day);
  made(`f${stranger.slice(1)}`, 2 * day);
  made("0".repeat(24), 2 * day);
  fs.mkdirSync(tmp("folder"));
  await openStore(root);
  t.same(fs.readdirSync(path.join(root, "tmp")).sort(), [...kept, "folder"].sort());
});
