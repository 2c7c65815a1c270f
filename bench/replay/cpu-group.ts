// CpuGroup: the CPU time of a command and of all that it leaves behind: a cgroup (version 2, wherever it is mounted) of its own, made
// for one command. A standby enters the cgroups of the stub that it serves, so a sandbox's server is in it too, from then on.

import { mkdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { until } from "../../test/suite/wait.ts";

export class CpuGroup {
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /** undefined where there is no such cgroup to be had: not root, version 1 alone, read-only. */
  static make(name: string): CpuGroup | undefined {
    const mounts = readFileSync("/proc/mounts", "utf8").split("\n");
    const place = mounts.map((line) => line.split(" ")).find(([, , type]) => type === "cgroup2");
    if (place === undefined) return undefined;
    const folder = join(place[1]!, name);
    try {
      mkdirSync(folder);
      return new CpuGroup(folder);
    } catch {
      return undefined;
    }
  }

  /** The words that start a command in it. */
  wrap(words: readonly string[]): string[] {
    const procs = join(this.#folder, "cgroup.procs");
    return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', procs, ...words];
  }

  /** Once the last process in it has ended: user and system time, seconds. Removes it. */
  async end(): Promise<number> {
    const isEmpty = () => /^populated 0$/m.test(this.#read("cgroup.events"));
    if (!(await until(isEmpty))) throw new Error(`${this.#folder} has processes still`);
    const usec = /^usage_usec (\d+)$/m.exec(this.#read("cpu.stat"))![1];
    rmdirSync(this.#folder);
    return Number(usec) / 1e6;
  }

  #read(file: string): string {
    return readFileSync(join(this.#folder, file), "utf8");
  }
}
