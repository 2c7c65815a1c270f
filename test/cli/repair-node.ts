// Owns: what the tests of --repair share: a store of environments, and what damages each of its objects in turn. Plane: control.

import fs from "node:fs";
import path from "node:path";
import type { Test } from "tap";
import { showDigest } from "../../lib/base/digest.ts";
import { createEnvironment } from "../../lib/cli/env.ts";
import { Progress } from "../../lib/cli/output.ts";
import { verifyStore } from "../../lib/cli/store-verify.ts";
import { conda, PLACEHOLDER } from "../ingest/conda/packages.ts";
import { noise } from "../suite/daemon-node.ts";
import { type Node, newNode } from "./cli.ts";

const PREFIXES = ["/opt/env", "/opt/other"];

/** Packages with files in common and files with a prefix, in number worth a delta. */
export async function scene(t: Test): Promise<{ node: Node; words: string[] }> {
  const node = newNode(t);
  const shared = { name: "share/common", content: noise(40_000, 7) };
  const words: string[] = [];
  for (const [i, name] of ["aa", "bb"].entries()) {
    const files = Array.from({ length: 60 }, (_, k) => ({
      name: `lib/${name}/file${k}`,
      content: noise(2_000, 100 * i + k + 1),
    }));
    const patched = {
      name: `bin/${name}`,
      content: Buffer.concat([noise(60_000, i + 50), Buffer.from(`${PLACEHOLDER}/x\0`)]),
    };
    const large = { name: `lib/${name}.so`, content: noise(1_500_000, i + 70) };
    const all = [...files, { ...shared, name: `${shared.name}-${name}` }, large, patched];
    const placeholders = { [`bin/${name}`]: "binary" } as const;
    const archive = await conda({ index: { name }, files: all, placeholders });
    words.push(node.file(`${name}-1.0-0.conda`, archive));
  }
  return { node, words };
}

const contextOf = ({ state, cache, store }: Node) => ({ state, cache, store, isJson: false });

/** Makes the environments: their digests. */
async function make(node: Node, words: string[], repair: boolean): Promise<string[]> {
  const made: string[] = [];
  for (const prefix of PREFIXES) {
    const options = { prefix, repair };
    const progress = new Progress(true, false);
    const { snapshot } = await createEnvironment(contextOf(node), words, options, progress);
    made.push(showDigest(snapshot));
  }
  return made;
}

export function objectsOf(node: Node, folder: string): string[] {
  const names = fs.readdirSync(path.join(node.store, folder), {
    recursive: true,
    encoding: "utf8",
  });
  return names.filter((name) => /[0-9a-f]{64}$/.test(name)).map((name) => `${folder}/${name}`);
}

const DAMAGES: Record<string, (bytes: Buffer) => Buffer | undefined> = {
  "a flipped bit": (bytes) => {
    bytes[bytes.length >> 1]! ^= 4;
    return bytes;
  },
  "cut off": (bytes) => bytes.subarray(0, bytes.length >> 1),
  gone: () => undefined,
};

const FOLDERS = ["packs", "indexes", "locators", "deltas", "imports", "environments"];

/** Damages objects of each folder and expects that --repair makes the same store of it: one of each folder in one way, or all in all. */
export async function damageEach(t: Test, isThorough: boolean): Promise<void> {
  const { node, words } = await scene(t);
  const made = await make(node, words, false);
  const verify = () => verifyStore(contextOf(node));
  t.match(await verify(), { faults: [] });
  const objects = FOLDERS.flatMap((folder) =>
    objectsOf(node, folder).slice(0, isThorough ? undefined : 1),
  );
  for (const folder of FOLDERS)
    t.ok(
      objects.some((name) => name.startsWith(folder)),
      folder,
    );
  const aside = node.path("aside");
  fs.cpSync(node.store, aside, { recursive: true });
  const ways = Object.entries(DAMAGES);
  for (const [i, object] of objects.entries()) {
    for (const [how, change] of isThorough ? ways : [ways[i % ways.length]!]) {
      // Nothing tells that a bit of a note or document is another, or that one which is gone was there.
      const isSeen = !/^(imports|environments)/.test(object);
      const file = path.join(node.store, object);
      const wrong = change(fs.readFileSync(file));
      if (wrong === undefined) fs.unlinkSync(file);
      else fs.writeFileSync(file, wrong);
      const name = `${object}: ${how}`;
      if (isSeen) t.not((await verify()).faults.length, 0, name);
      t.same(await make(node, words, true), made, name);
      const { faults } = await verify();
      t.same(faults, [], name);
      fs.rmSync(node.store, { recursive: true });
      fs.cpSync(aside, node.store, { recursive: true });
    }
  }
}
