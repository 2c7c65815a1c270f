// Help of the groups of commands (burrow env, burrow layer, …): what each is most used for. Control plane.

import type { Command } from "commander";

const EXAMPLES: Readonly<Record<string, readonly string[]>> = {
  env: [
    "burrow env create explicit.txt",
    "burrow env create --channel ./channel --lock explicit.txt 'numpy>=1.24' pandas",
    "burrow env compile --base sha256:… sha256:…",
    "burrow env ls",
  ],
  layer: [
    "burrow layer import --snapshot rootfs.tar",
    "burrow layer show sha256:… usr/bin",
    "burrow layer diff sha256:1f0c9a sha256:77e2b4",
  ],
  stage: ["burrow stage create /srv/orders"],
  store: [
    "burrow store stats",
    "burrow store check --store s3://bucket/store",
    "burrow store gc --dry-run",
  ],
  cache: ["burrow cache show", "burrow cache pin sha256:…", "burrow cache clear --to 10G"],
  daemon: [
    "burrow daemon start --idle 0",
    "burrow daemon status",
    "burrow daemon metrics > /var/lib/node_exporter/textfile/burrow.prom",
  ],
  gofer: ["burrow gofer ls", "burrow gofer upgrade"],
  completion: ['eval "$(burrow completion bash)"'],
};

/** Gives the groups of a program their examples, but for those that have help of their own. */
export function addGroupHelp(program: Command): void {
  for (const group of program.commands) {
    const lines = EXAMPLES[group.name()];
    if (lines === undefined) continue;
    const title = lines.length === 1 ? "Example" : "Examples";
    group.addHelpText("after", `\n${title}:\n${lines.map((line) => `  ${line}`).join("\n")}`);
  }
}
