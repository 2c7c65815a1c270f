// gofer-memory: what one more sandbox's gofer takes of memory, by proportional share (PSS): stub and server against stock runsc's own
// gofer, idle, each in new namespaces as runsc would start it. With a few at a time: the second and later ones share what is the program's.
//
// Expected: a stock gofer some 7 MB, a server in JavaScript some 30 (docs/design/0006-standby.md has a standby's); of a server that many
// share, the stub and what one more sandbox adds to the server: 1 or 2. Needs root and runsc; fixtures as for hot-start.

import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { Bench } from "../run.ts";
import {
  type GoferMode,
  goferModes,
  SHARED,
  type StartedGofer,
  startGofer,
} from "./gofer-start.ts";
import { median, type Setup, setUp } from "./setup.ts";

const SANDBOXES = 5;
const SHARING = 20;
/** Until a server has done what follows its mounts: hardening, and the wait. */
const SETTLE_MS = 1_500;

/** A process and all below it. */
function family(pid: number): number[] {
  const children = readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").split(" ").filter(Boolean),
  );
  return [pid, ...children.flatMap((child) => family(Number(child)))];
}

/** Of what `unshare` started, without itself. MiB. */
function memoryOf({ child }: StartedGofer, names: readonly string[]): number {
  const [, ...gofers] = family(child.pid!);
  return memoryOfAll(gofers, names);
}

/** Lines of smaps_rollup, summed. MiB. man proc_pid_smaps(5). */
function memoryOfAll(pids: readonly number[], names: readonly string[]): number {
  const kib = pids.flatMap((pid) => {
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
    return names.map((name) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(rollup)?.[1]));
  });
  return kib.reduce((sum, each) => sum + each, 0) / 1024;
}

const PSS = ["Pss"];
const PRIVATE = ["Private_Clean", "Private_Dirty"];

/** What each sandbox but the first adds: its stub, and to the server that it shares. */
async function measureShared(setup: Setup, mode: GoferMode, count: number) {
  const { words, config, env } = mode;
  const gofers: StartedGofer[] = [];
  const figures = (names: readonly string[]) => {
    const servers = setup.servers();
    if (servers.length !== 1 || servers[0]!.stubs.length !== gofers.length)
      throw new Error("not shared by all");
    const stubs = gofers.reduce((sum, gofer) => sum + memoryOf(gofer, names), 0);
    return { stubs, server: memoryOfAll([servers[0]!.pid], names) };
  };
  const all = (names: readonly string[]) => {
    const { stubs, server } = figures(names);
    return stubs + server;
  };
  setup.startDaemon("--shared");
  try {
    await setup.standby();
    await sleep(SETTLE_MS);
    gofers.push(startGofer(words, config, env));
    await sleep(SETTLE_MS);
    const first = { pss: all(PSS), own: all(PRIVATE), server: figures(PSS).server };
    while (gofers.length < count) gofers.push(startGofer(words, config, env));
    await sleep(SETTLE_MS);
    const more = (now: number, before: number) => Number(((now - before) / (count - 1)).toFixed(2));
    return {
      mode: mode.mode,
      runsc: setup.version,
      sandboxes: count,
      pssMiB: more(all(PSS), first.pss),
      privateMiB: more(all(PRIVATE), first.own),
      serverOfOneMiB: Number(first.server.toFixed(1)),
    };
  } finally {
    for (const gofer of gofers) await gofer.end();
  }
}

export const bench: Bench = async (emit, { isQuick }) => {
  const setup = setUp();
  if (typeof setup === "string") return emit({ skipped: setup });
  try {
    const modes = goferModes(setup).filter(({ mode }) => mode !== "burrow, standby");
    for (const each of modes) {
      const { mode, words, config, env } = each;
      if (mode === SHARED) {
        emit(await measureShared(setup, each, isQuick ? 3 : SHARING));
        continue;
      }
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
          pssMiB: medianOf(...PSS),
          privateMiB: medianOf(...PRIVATE),
        });
      } finally {
        for (const gofer of gofers) await gofer.end();
      }
    }
  } finally {
    setup.dispose();
  }
};
