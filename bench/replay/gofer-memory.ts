// gofer-memory: what one more sandbox's gofer takes of memory, by proportional share (PSS): stub and server against stock runsc's own
// gofer, idle, each in new namespaces as runsc would start it. With a few at a time: the second and later ones share what is the program's.
//
// Expected: a stock gofer some 7 MB, a server in JavaScript some 30 (docs/design/0006-standby.md has a standby's). Needs root and runsc;
// fixtures as for hot-start.

import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { Bench } from "../run.ts";
import { goferModes, type StartedGofer, startGofer } from "./gofer-start.ts";
import { median, setUp } from "./setup.ts";

const SANDBOXES = 5;
/** Until a server has done what follows its mounts: hardening, and the wait. */
const SETTLE_MS = 1_500;

/** A process and all below it. */
function family(pid: number): number[] {
  const children = readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").split(" ").filter(Boolean),
  );
  return [pid, ...children.flatMap((child) => family(Number(child)))];
}

/** Of what `unshare` started, without itself: lines of smaps_rollup, summed. MiB. man proc_pid_smaps(5). */
function memoryOf({ child }: StartedGofer, names: readonly string[]): number {
  const [, ...gofers] = family(child.pid!);
  const kib = gofers.flatMap((pid) => {
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
    return names.map((name) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(rollup)?.[1]));
  });
  return kib.reduce((sum, each) => sum + each, 0) / 1024;
}

export const bench: Bench = async (emit, { isQuick }) => {
  const setup = setUp();
  if (typeof setup === "string") return emit({ skipped: setup });
  try {
    const modes = goferModes(setup).filter(({ mode }) => mode !== "burrow, standby");
    for (const { mode, words, config, env } of modes) {
      const gofers: StartedGofer[] = [];
      try {
        for (let i = 0; i < (isQuick ? 2 : SANDBOXES); i++) {
          gofers.push(startGofer(words, config, env));
          await sleep(SETTLE_MS);
        }
        const medianOf = (...names: string[]) =>
          Number(median(gofers.map((gofer) => memoryOf(gofer, names))).toFixed(1));
        emit({
          mode,
          runsc: setup.version,
          sandboxes: gofers.length,
          pssMiB: medianOf("Pss"),
          privateMiB: medianOf("Private_Clean", "Private_Dirty"),
        });
      } finally {
        for (const gofer of gofers) await gofer.end();
      }
    }
  } finally {
    setup.dispose();
  }
};
