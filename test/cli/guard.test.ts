// Owns: proof that what a sandbox takes of the machine is seen from outside, under each runsc. The sandboxes need root, runsc and a static
// busybox; skipped with the reason otherwise. Plane: control.

import { test } from "tap";
import { guard } from "../../lib/cli/guard.ts";
import { exitOf, findRevisions } from "../conformance/runsc.ts";
import { until } from "../suite/wait.ts";
import { busybox } from "./cli.ts";

const { found, reasons } = findRevisions();
if (found.length === 0) test(`skipped: ${reasons.join("; ")}`, { skip: true }, () => {});

for (const { name, path } of found) {
  test(`${name}: memory and processes of a sandbox`, async (t) => {
    const { node, base } = await busybox(t, path);
    const MEBIBYTE = 1 << 20;
    const run = async (script: string, bounds: { processes: number; memoryBytes: number }) => {
      const words = ["run", "--base", base, "--platform", "ptrace", "--", "/bin/sh", "-c"];
      const child = node.start([...words, `${script}; echo done; sleep 1000`]);
      let out = "";
      child.stdout!.setEncoding("utf8").on("data", (text: string) => {
        out += text;
      });
      const seen: string[] = [];
      const stop = guard(child.pid!, bounds, (what) => seen.push(what));
      const isDone = await until(() => seen.length > 0 || out.includes("done"));
      stop();
      child.kill("SIGTERM");
      child.kill("SIGINT");
      child.kill("SIGTERM");
      await exitOf(child);
      return { isDone, seen };
    };
    const most = { processes: 1_000, memoryBytes: 4_096 * MEBIBYTE };
    const big = "dd if=/dev/zero of=/dev/null bs=300M count=1000";
    t.same(await run(big, { ...most, memoryBytes: 250 * MEBIBYTE }), {
      isDone: true,
      seen: ["memory"],
    });
    const many = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & sleep 1000 & sleep 1000 & done; wait";
    t.same(await run(many, { ...most, processes: 25 }), { isDone: true, seen: ["processes"] });
    const few = "dd if=/dev/zero of=/dev/null bs=1M count=10; sleep 1 & wait";
    t.same(await run(few, { ...most, memoryBytes: 250 * MEBIBYTE }), { isDone: true, seen: [] });
  });
}
