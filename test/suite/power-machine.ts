// PowerMachine: a user-mode Linux with one ext4 disk on which the crash program works until the power goes. test/suite/power-guest.sh is what
// runs in it. Test support.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { noise, type Published, publish, type TestNode } from "./daemon-node.ts";
import type { PowerFacts } from "./power-check.ts";
import { bootUml, ROOT } from "./uml.ts";

/** Of a boot, a check and one run of the program: some 6 s on an idle machine. */
const BOOT_MAX_MS = 600_000;
const DISK_BYTES = 96 * 1024 * 1024;
const LOG_BYTES = 1024 * 1024 * 1024;

/** Small blobs, and a large one in blocks. */
export const POWER_FILES = {
  ...Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`s${i}`, noise(9_000 + i, i + 1)])),
  large: noise(5 * 256 * 1024 + 7, 99),
};

/** Where a user-mode Linux is, or why there is none. `suite`: of which Debian in place of this machine's. */
export function findUml(suite?: "trixie"): { root: string; skip: string | false } {
  if (process.getuid?.() !== 0) return { root: "", skip: "mounting needs root" };
  if (spawnSync("mkfs.ext4", ["-V"]).status !== 0)
    return { root: "", skip: "no mkfs.ext4: apt-get install e2fsprogs" };
  const folder = process.env["BURROW_TEST_CACHE"] ?? path.join(tmpdir(), "burrow-test-cache");
  const script = path.join(ROOT, "fixtures/uml.sh");
  const words = [script, folder, ...(suite === undefined ? [] : [suite])];
  const { status, stdout, stderr } = spawnSync("bash", words, { encoding: "utf8" });
  if (status === 0) return { root: stdout.trim(), skip: false };
  return { root: "", skip: `no user-mode Linux: ${stderr.trim().split("\n").at(-1)}` };
}

export interface Boot {
  readonly isChecked: boolean;
  readonly isFresh: boolean;
  /** The power goes so many ms after the program has noted `anchor`. */
  readonly anchor: string;
  readonly cutMs: number;
  /**
   * Of dm-flakey: drop_writes, error_writes. "log": the power stays, and what is written is logged. "": nothing more is done than to check.
   */
  readonly mode: string;
  /** Of the mount. */
  readonly options: string;
}

export interface Outcome {
  readonly facts: PowerFacts | undefined;
  /** What the program had noted when the power went. */
  readonly notes: readonly string[];
  readonly output: string;
}

export class PowerMachine {
  /** Image of the disk, and what is logged of its writes. */
  readonly disk: string;
  readonly log: string;
  readonly published: Published;
  readonly #uml: string;
  readonly #node: TestNode;

  private constructor(uml: string, node: TestNode, published: Published) {
    this.#uml = uml;
    this.#node = node;
    this.published = published;
    this.disk = `${node.root}/disk`;
    this.log = `${node.root}/log`;
    for (const [image, bytes] of [
      [this.disk, DISK_BYTES],
      [this.log, LOG_BYTES],
    ] as const) {
      fs.writeFileSync(image, "");
      fs.truncateSync(image, bytes);
    }
  }

  static async create(uml: string, node: TestNode): Promise<PowerMachine> {
    return new PowerMachine(uml, node, await publish(node.store, POWER_FILES));
  }

  /** One boot until it halts. `seed` is the check's. */
  async boot(given: Boot, seed: number): Promise<Outcome> {
    const { root } = this.#node;
    this.#describe(`${root}/given`, given, seed);
    const output = await bootUml({
      uml: this.#uml,
      folder: root,
      given: `${root}/given`,
      memory: "512M",
      words: [`ubd0=${this.disk}`, `ubd1=${this.log}`],
      script: "power-guest.sh",
      maxMs: BOOT_MAX_MS,
    });
    const line = (word: string) => new RegExp(`^@@ ${word} ?(.*?)\r?$`, "m").exec(output)?.[1];
    const facts = line("facts");
    return {
      facts: facts === undefined ? undefined : (JSON.parse(facts) as PowerFacts),
      notes: line("notes")?.split(" ") ?? [],
      output,
    };
  }

  /** The same check on this machine, of a disk that is mounted here. */
  check(cache: string, seed: number): PowerFacts {
    const words = ["--no-warnings", ...this.#checkOf(seed), cache];
    const { stdout, stderr } = spawnSync(process.execPath, words, { encoding: "utf8" });
    const facts = /^@@ facts (.*)$/m.exec(stdout)?.[1];
    if (facts === undefined) throw new Error(stderr);
    return JSON.parse(facts) as PowerFacts;
  }

  /** The check and its arguments, but for the cache. */
  #checkOf(seed: number): string[] {
    const { state, store } = this.#node;
    return [suite("power-check"), state, store, this.published.digest, String(seed)];
  }

  /** Writes what the guest needs to know, as assignments of a shell. */
  #describe(target: string, given: Boot, seed: number): void {
    const { state, store } = this.#node;
    const row = (name: string) => this.published.row(name);
    const smalls = Object.keys(POWER_FILES).filter((name) => name.startsWith("s"));
    const rows = `${smalls.map(row).join(",")} ${row("large")}`;
    const run = `${process.execPath} --no-warnings`;
    const common = `${state} ${store} ${this.published.digest}`;
    const lines = {
      ...{ root: this.#uml, anchor: given.anchor, cutMs: given.cutMs, mode: given.mode },
      ...{ options: given.options, isChecked: Number(given.isChecked) },
      isFresh: Number(given.isFresh),
      check: `${run} ${this.#checkOf(seed).join(" ")}`,
      program: `${run} ${suite("crash-program")} /run/disk/cache ${common} ${rows}`,
    };
    const text = Object.entries(lines).map(([name, value]) => `${name}='${value}'\n`);
    fs.writeFileSync(target, text.join(""));
  }
}

function suite(name: string): string {
  return fileURLToPath(new URL(`${name}.js`, import.meta.url));
}
