// Owns: a node with a web server of small conda packages beside it, as preload is asked for, and what preload says. Plane: control.

import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import type { Test } from "tap";
import { conda, type Spec } from "../ingest/conda/packages.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { type Node, newNode } from "./cli.ts";

export interface Channel {
  readonly node: Node;
  readonly server: OriginServer;
  /** Lines for a lock, by package. */
  readonly line: (name: string, kind?: "sha256" | "md5" | "none") => string;
  readonly lock: (...names: string[]) => string;
  readonly file: (name: string) => string;
}

export const fileName = (name: string) => `${name}-1.0-h0_0.conda`;
export const sumOf = (kind: "sha256" | "md5", bytes: Uint8Array) =>
  createHash(kind).update(bytes).digest("hex");

/** A node and a channel of small packages: a Python, one for it that is noarch, and others. */
export async function channel(t: Test, others = ["aa", "bb", "cc", "dd"]): Promise<Channel> {
  const node = newNode(t);
  const specs: Record<string, Spec> = {
    python: { index: { version: "3.11.2" }, files: [{ name: "bin/python3.11", content: "x" }] },
    pure: {
      index: { noarch: "python", subdir: "noarch" },
      files: [{ name: "site-packages/pure.py", content: "one = 1\n" }],
    },
  };
  for (const name of others) {
    specs[name] = { files: [{ name: `share/${name}`, content: randomBytes(150_000) }] };
  }
  for (const [name, spec] of Object.entries(specs)) {
    const index = { name, ...spec.index };
    node.file(`channel/linux-64/${fileName(name)}`, await conda({ ...spec, index }));
  }
  const server = await OriginServer.start(node.path("channel"));
  t.teardown(() => server.close());
  const file = (name: string) => node.path(`channel/linux-64/${fileName(name)}`);
  const line = (name: string, kind: "sha256" | "md5" | "none" = "sha256") => {
    const hash = kind === "none" ? "" : `#${kind}:${sumOf(kind, fs.readFileSync(file(name)))}`;
    return `${server.url}/linux-64/${fileName(name)}${hash}\n`;
  };
  const lock = (...names: string[]) => `@EXPLICIT\n${names.map((name) => line(name)).join("")}`;
  return { node, server, line, lock, file };
}

export const ALL = ["python", "pure", "aa", "bb", "cc", "dd"];

export type Event = { event: string } & Record<string, unknown>;

export const eventsOf = ({ stdout }: { stdout: string }) =>
  stdout
    .split("\n")
    .filter((text) => text.endsWith("}"))
    .map((text) => JSON.parse(text) as Event);

export const lastOf = (outcome: { stdout: string }) => eventsOf(outcome).at(-1)!;

/** Names of the packages that were asked for, with the ranges. */
export const askedOf = (server: OriginServer, from = 0) =>
  server.requests
    .slice(from)
    .map(({ path: name, range }) => `${path.basename(name).split("-")[0]} ${range}`.trim())
    .sort();
