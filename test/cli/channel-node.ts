// Owns: a node with a channel of small packages beside it, and environments made of them. Plane: control.

import fs from "node:fs";
import type { Test } from "tap";
import { type Listed, writeChannel } from "../ingest/conda/channels.ts";
import { type Node, newNode } from "./cli.ts";

const PACKAGES: readonly Listed[] = [
  { name: "app", version: "2.0", depends: ["lib >=1", "__glibc >=2.17"] },
  { name: "lib", version: "1.0" },
  { name: "lib", version: "1.5", depends: ["__glibc >=2.30"] },
];
const GLIBC = { CONDA_OVERRIDE_GLIBC: "2.36" };

/** A node with a channel of PACKAGES in its directory. */
export async function scene(t: Test, packages = PACKAGES): Promise<Node> {
  const node = newNode(t);
  Object.assign(node.env, GLIBC);
  await writeChannel(node.path("channel"), packages);
  return node;
}

/** Runs env create, and gives the digest. */
export async function create(t: Test, node: Node, words: string[], env = {}): Promise<string> {
  const { code, stdout, stderr } = await node.run(["env", "create", ...words], { env });
  t.equal(code, 0, `${words.join(" ")}: ${stderr}`);
  return stdout.trim();
}

export async function packagesIn(node: Node, digest: string): Promise<string[]> {
  const { stdout } = await node.run(["env", "show", "--json", digest]);
  const { packages } = JSON.parse(stdout) as { packages: { name: string; version: string }[] };
  return packages.map(({ name, version }) => `${name}-${version}`);
}

/** The records of the node's channel by name and version. */
export function records(node: Node): Record<string, Record<string, unknown>> {
  const text = fs.readFileSync(node.path("channel/linux-64/repodata.json"), "utf8");
  return JSON.parse(text)["packages.conda"];
}
