// loop-delay: how late the daemon's loop comes to its timers while sandboxes start over an environment of which nothing is here: three, 0.3 s
// apart, that import numpy and pandas; first with nothing known of such starts, then with what was learned of the first. Held is what the
// daemon computed, queued what it waited for a CPU: with others at work beside the bench only the first says anything of the daemon.
// In turns without and with the precedence that it takes, in a session of its own, as one has that a launch starts.
//
// Expected: 20 ms at most (pitfalls E6). Needs root, runsc and the fixtures, as hot-start does.

import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { daemonStatus, isDaemonUp, stopDaemon } from "../../lib/cache/client.ts";
import type { Bench } from "../run.ts";
import { Origin } from "./origin.ts";
import { setUp } from "./setup.ts";

const CLI = fileURLToPath(new URL("../../burrow.cjs", import.meta.url));
const SANDBOXES = 3;
const STAGGER_MS = 300;
const DELAY_MS = 5;
/** A standby rehearses for as long, and what the daemon does to start is none of it. */
const SETTLE_MS = 3_000;
/** What was learned is kept by then. */
const LEARNED_MS = 2_500;

export const bench: Bench = async (emit, { rounds = 3, isQuick, delaysMs = [DELAY_MS] }) => {
  const setup = setUp();
  if (typeof setup === "string") return emit({ skipped: setup });
  const { env, work, fixtures, cli } = setup;
  const origin = new Origin({ store: `${work}/store` });
  try {
    const base = setup.importBase();
    const environment = cli("env", "create", "--quiet", `${fixtures}/channel/explicit.txt`);
    env["BURROW_STORE"] = `${await origin.listen()}/store`;
    const start = async (cache: string) => {
      const began = performance.now();
      const words = [CLI, "run", "--cache", cache, "--base", base, "--env", environment, "--"];
      const program = ["/opt/env/bin/python3", "-c", "import numpy, pandas"];
      const child = spawn(process.execPath, [...words, ...program], {
        env,
        stdio: ["ignore", "ignore", "inherit"],
      });
      const [code] = (await once(child, "exit")) as [number | null];
      if (code !== 0) throw new Error(`burrow run ended with ${code}`);
      return performance.now() - began;
    };
    /** Of one start of all of them. */
    const measure = async (cache: string, precedence: "off" | "on") => {
      const words = [CLI, "daemon", "start", "--idle", "0", "--cache", cache];
      spawn(process.execPath, [...words, "--state", `${work}/state`], {
        env: { ...env, BURROW_PRECEDENCE: precedence },
        stdio: "ignore",
        detached: true,
      });
      while (!(await isDaemonUp(cache))) await sleep(20);
      await sleep(SETTLE_MS);
      const all = Array.from({ length: SANDBOXES }, async (_, i) => {
        await sleep(i * STAGGER_MS);
        return await start(cache);
      });
      const lastMs = Math.max(...(await Promise.all(all)));
      const status = await daemonStatus(cache);
      await sleep(LEARNED_MS);
      await stopDaemon(cache);
      return {
        precedence,
        ...tenths(status?.loop ?? {}),
        lastSeconds: Math.round(lastMs / 100) / 10,
      };
    };
    for (const delayMs of delaysMs)
      for (let round = 1; round <= (isQuick ? 1 : rounds); round++)
        for (const precedence of ["off", "on"] as const) {
          origin.begin(delayMs);
          const facts = { delayMs, round };
          const cold = `${work}/cold-${delayMs}-${round}-${precedence}`;
          emit({ ...facts, start: "foreseen", ...(await measure(cold, precedence)) });
          const learned = `${work}/learned-${delayMs}-${round}-${precedence}`;
          fs.mkdirSync(learned);
          fs.cpSync(`${cold}/profiles`, `${learned}/profiles`, { recursive: true });
          emit({ ...facts, start: "learned", ...(await measure(learned, precedence)) });
          for (const cache of [cold, learned]) fs.rmSync(cache, { recursive: true, force: true });
        }
  } finally {
    origin.close();
    setup.dispose();
  }
};

function tenths(figures: object): Record<string, number> {
  const rounded = Object.entries(figures).map(([name, ms]) => [name, Math.round(ms * 10) / 10]);
  return Object.fromEntries(rounded);
}
