// gofer-memory: what one more sandbox's gofer takes of memory, by proportional share (PSS): stub and server against stock runsc's own
// gofer, idle, each in new namespaces as runsc would start it. With a few at a time: the second and later ones share what is the program's.
//
// Expected: a stock gofer some 7 MB, a server in JavaScript some 30 (docs/design/0006-standby.md has a standby's); of a server that many
// share, the stub and what one more sandbox adds to the server: 1 or 2. Needs root and runsc; fixtures as for hot-start.

import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { native } from "../../lib/sys/native.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { LisafsClient } from "../../test/suite/lisafs-client.ts";
import type { Bench } from "../run.ts";
import {
  type GoferMode,
  goferModes,
  SHARED,
  type StartedGofer,
  startGofer,
} from "./gofer-start.ts";
import { median, type Setup, SHARING, setUp } from "./setup.ts";

const SANDBOXES = 5;
const SHARERS = 20;
const LOOKS = 200;
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

/** As a sandbox that has mounted it and looked around. */
class Mounted {
  readonly gofer: StartedGofer;
  readonly #client: LisafsClient;

  constructor({ words, config, env }: GoferMode) {
    this.gofer = startGofer(words, config, env);
    this.#client = LisafsClient.mount(native.dupFd(this.gofer.io), 2);
    const fd = this.#client.rootFd;
    for (let i = 0; i < LOOKS; i++) this.#client.call(Mid.Walk, { fd, names: [`missing${i}`] });
  }

  memory(names: readonly string[]): number {
    return memoryOf(this.gofer, names);
  }

  end(): Promise<void> {
    this.#client.close();
    return this.gofer.end();
  }
}

const rounded = (value: number) => Number(value.toFixed(1));

/** Stubs and the one server that they have, when there are some and when there are all: what is the server's falls to each in part. */
async function measureShared(setup: Setup, mode: GoferMode, count: number) {
  const mounted: Mounted[] = [];
  const figures = (names: readonly string[]) => {
    const servers = setup.servers();
    if (servers.length !== 1 || servers[0]!.stubs.length !== mounted.length)
      throw new Error("not shared by all");
    const stubs = mounted.reduce((sum, each) => sum + each.memory(names), 0);
    return { stubs, server: memoryOfAll([servers[0]!.pid], names) };
  };
  setup.startDaemon();
  try {
    await setup.standby();
    await sleep(SETTLE_MS); // the broker has started, too
    mounted.push(new Mounted(mode));
    await sleep(SETTLE_MS);
    const { server: serverOfOne } = figures(PSS);
    while (mounted.length < count) mounted.push(new Mounted(mode));
    await sleep(SETTLE_MS);
    const [pss, own] = [figures(PSS), figures(PRIVATE)];
    return {
      mode: mode.mode,
      runsc: setup.version,
      sandboxes: count,
      pssMiB: rounded((pss.stubs + pss.server) / count),
      privateMiB: rounded((own.stubs + own.server) / count),
      stubMiB: Number((pss.stubs / count).toFixed(2)),
      serverOfOneMiB: rounded(serverOfOne),
      serverMiB: rounded(pss.server),
    };
  } finally {
    for (const each of mounted) await each.end();
  }
}

export const bench: Bench = async (emit, { isQuick }) => {
  const setup = setUp(SHARING);
  if (typeof setup === "string") return emit({ skipped: setup });
  try {
    const modes = goferModes(setup).filter(({ mode }) => mode !== "burrow, standby");
    for (const each of modes) {
      const { mode } = each;
      if (mode === SHARED) {
        emit(await measureShared(setup, each, isQuick ? 3 : SHARERS));
        continue;
      }
      const gofers: Mounted[] = [];
      try {
        for (let i = 0; i < (isQuick ? 2 : SANDBOXES); i++) {
          gofers.push(new Mounted(each));
          await sleep(SETTLE_MS);
        }
        const medianOf = (...names: string[]) =>
          rounded(median(gofers.map((gofer) => gofer.memory(names))));
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
