// The folder of --upper: one run has it at a time, however many ask at once and whatever a killed one left; it is of one view, and
// leads nowhere else.

import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { changedPlaces, claimUpper, openKept, type Place } from "../../lib/cli/kept-upper.ts";
import { temporary } from "../suite/served.ts";

const view = (digit: string): Place[] => [
  { at: "/", snapshot: digit.repeat(64) as Digest, origin: "/store" },
];

test("one has a folder at a time, and its end is enough", (t) => {
  const folder = join(temporary(t), "up");
  const first = claimUpper(folder, view("a"));
  t.throws(() => claimUpper(folder, view("a")), { code: "BURROW_BUSY" });
  t.throws(() => claimUpper(folder, view("b")), { code: "BURROW_BUSY" });
  t.throws(() => openKept(folder), { code: "BURROW_BUSY" });
  first[Symbol.dispose]();
  t.throws(() => claimUpper(folder, view("b")), { code: "BURROW_USAGE", message: /another view/ });
  claimUpper(folder, view("a"))[Symbol.dispose]();
  for (const left of ["", "0123"]) {
    // What a full disk leaves.
    writeFileSync(join(folder, "owner"), left);
    claimUpper(folder, view("a"))[Symbol.dispose]();
  }
  t.equal(openKept(folder).places.length, 1);
  t.end();
});

test("where something was changed is told by names, through no symlink", (t) => {
  const folder = temporary(t);
  const [base] = view("a") as [Place];
  const places = ["/", "/opt/env", "/stage/data", "/srv"].map((at) => ({ ...base, at }));
  const inTree = (path: string) => join(folder, "tree", path);
  const changed = () => changedPlaces(folder, places).map(({ at }) => at);
  mkdirSync(inTree("opt/env"), { recursive: true });
  t.strictSame(changed(), [], "a way is no change");
  writeFileSync(inTree("opt/env/new"), "");
  t.strictSame(changed(), ["/opt/env"]);
  mkdirSync(join(folder, "elsewhere", "data"), { recursive: true });
  writeFileSync(join(folder, "elsewhere", "data", "mine"), "");
  symlinkSync(join(folder, "elsewhere"), inTree("stage"));
  t.strictSame(changed(), ["/", "/opt/env"]);
  rmSync(inTree("opt/env/new"));
  mkdirSync(inTree("srv/below"), { recursive: true });
  rmSync(inTree("stage"));
  t.strictSame(changed(), ["/srv"]);
  t.end();
});

test("a folder that is no upper is left alone", (t) => {
  const parent = temporary(t);
  const refuse = (folder: string, message: RegExp) =>
    t.throws(() => claimUpper(folder, view("a")), { code: "BURROW_USAGE", message });
  const file = join(parent, "file");
  writeFileSync(file, "");
  refuse(file, /no directory/);
  const own = join(parent, "own");
  mkdirSync(join(own, "upper", "mine"), { recursive: true });
  refuse(own, /no view.json/);
  t.strictSame(readdirSync(join(own, "upper")), ["mine"]);
  const led = join(parent, "led");
  claimUpper(led, view("a"))[Symbol.dispose]();
  rmSync(join(led, "upper"), { recursive: true });
  symlinkSync(join(own, "upper"), join(led, "upper"));
  refuse(led, /no directory/);
  const owned = join(parent, "owned");
  mkdirSync(owned);
  symlinkSync(file, join(owned, "owner"));
  t.throws(() => claimUpper(owned, view("a")), { code: "BURROW_IO" });
  const message = /--upper: can't make the folder/;
  t.throws(() => claimUpper("/proc/none/upper", view("a")), { code: "BURROW_IO", message });
  t.equal(existsSync(join(owned, "upper")), false);
  t.end();
});

test("a file system without whiteouts is refused before anything is written", (t) => {
  const parent = temporary(t);
  const at = (name: string) => join(parent, name);
  for (const name of ["lower", "upper", "work", "seen"]) mkdirSync(at(name));
  const options = `lowerdir=${at("lower")},upperdir=${at("upper")},workdir=${at("work")}`;
  const mounted = spawnSync("mount", ["-t", "overlay", "overlay", "-o", options, at("seen")]);
  if (mounted.status !== 0) {
    t.comment("not tested: overlayfs can't be mounted here");
    t.end();
    return;
  }
  t.teardown(() => void spawnSync("umount", [at("seen")]));
  const folder = join(at("seen"), "up");
  t.throws(() => claimUpper(folder, view("a")), {
    code: "BURROW_UNSUPPORTED",
    message: /whiteouts/,
  });
  t.strictSame(readdirSync(folder), ["owner"]);
  t.end();
});
