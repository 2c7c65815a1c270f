// Owns: proof that a note about a package is believed as far as the layer that it names bears it out. Plane: control.

import fs from "node:fs";
import { test } from "tap";
import type { Context } from "../../lib/cli/context.ts";
import { makeEnvironment } from "../../lib/cli/env.ts";
import { SILENCE } from "../../lib/cli/output.ts";
import { verifyStore } from "../../lib/cli/store-verify.ts";
import { conda, type Spec } from "../ingest/conda/packages.ts";
import { noise } from "../suite/daemon-node.ts";
import { newNode } from "./cli.ts";

interface Note {
  layer: string;
  facts: Record<string, string>;
}

test("a note that names the layer of another package is found, passed over and written anew", async (t) => {
  const node = newNode(t);
  const context: Context = { ...node, state: node.state, isJson: false };
  const specs: Record<string, Spec> = {
    six: { files: [{ name: "share/six", content: "six\n" }] },
    // Its record is cut into blocks.
    many: { files: Array.from({ length: 4_000 }, (_, i) => ({ name: `share/${i}`, content: "" })) },
    // The same name, version and build from elsewhere.
    other: { index: { name: "six" }, files: [{ name: "share/six", content: noise(99, 1) }] },
  };
  const files: Record<string, string> = {};
  for (const [name, spec] of Object.entries(specs)) {
    const index = { name, ...spec.index };
    const path = `${name}/${index.name}-1.0-h0_0.conda`;
    files[name] = node.file(path, await conda({ ...spec, index }));
  }
  const make = async (...names: string[]) => {
    const items = names.map((name, i) => {
      const path = files[name]!;
      return { line: i + 1, url: `file://${path}`, path };
    });
    return (await makeEnvironment(context, items, {}, SILENCE)).snapshot;
  };
  const other = await make("other");
  const right = await make("six", "many");
  t.not(other, right);
  const imports = `${node.store}/imports`;
  const notes = new Map<string, Note>();
  for (const name of fs.readdirSync(imports, { recursive: true, encoding: "utf8" }))
    if (name.length > 60)
      notes.set(name, JSON.parse(fs.readFileSync(`${imports}/${name}`, "utf8")) as Note);
  const layers = new Set([...notes.values()].map(({ layer }) => layer));
  t.equal(layers.size, 3);
  t.same((await verifyStore(context)).faults, []);
  const write = (name: string, note: unknown) =>
    fs.writeFileSync(`${imports}/${name}`, JSON.stringify(note));
  for (const [name, note] of notes) {
    if (note.facts["name"] === "many") continue;
    for (const said of notes.values()) {
      if (said === note) continue;
      // The layer alone, and all that is said of it.
      for (const lie of [{ ...note, layer: said.layer }, said]) {
        write(name, lie);
        const { faults } = await verifyStore(context);
        if (lie !== said) t.match(faults, [{ what: `imports/${name}`, why: /is (not )?of / }]);
        t.equal(await make("six", "many"), right);
        t.equal(await make("other"), other);
        t.same(JSON.parse(fs.readFileSync(`${imports}/${name}`, "utf8")), note, "as it was");
      }
    }
    write(name, { ...note, facts: { ...note.facts, sitePackages: "lib/evil" } });
    t.match((await verifyStore(context)).faults, [{ what: `imports/${name}` }]);
    await make("six", "many");
    await make("other");
  }
  t.same((await verifyStore(context)).faults, []);
});
