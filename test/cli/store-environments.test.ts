// Owns: proof that documents of environments may say anything, and come and go while a store is verified: what is wrong is a fault that
// says so, and what isn't is none. Plane: control.

import fs from "node:fs";
import { dirname } from "node:path";
import { type Test, test } from "tap";
import { type Digest, showDigest } from "../../lib/base/digest.ts";
import { ENVIRONMENT_FORMAT, namesOfLayers, readEnvironment } from "../../lib/cli/environment.ts";
import { SILENCE } from "../../lib/cli/output.ts";
import { Faults } from "../../lib/cli/store-faults.ts";
import { surveyPorts } from "../../lib/cli/store-roots.ts";
import { checkEnvironments, verifyStore } from "../../lib/cli/store-verify.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { openStore } from "../../lib/store/open.ts";
import { noise, publish } from "../suite/daemon-node.ts";
import { newNode } from "./cli.ts";

async function scene(t: Test) {
  const { state, cache, store } = newNode(t);
  const { digest } = await publish(store, { file: noise(5_000, 1) });
  const write = (snapshot: Digest, text: string) => {
    const file = `${store}/${objectPath("environments", snapshot)}`;
    fs.mkdirSync(dirname(file), { recursive: true });
    fs.writeFileSync(file, text);
  };
  return { context: { state, cache, store, isJson: false }, store, digest, write };
}

/** A document of one package. */
function documentOf(layer: Digest): string {
  const packages = [{ name: "a", version: "1", layer: showDigest(layer) }];
  return JSON.stringify({ format: ENVIRONMENT_FORMAT, prefix: "/opt/env", packages });
}

test("a document that says anything is a fault, and what it is is said", async (t) => {
  const { context, store, digest, write } = await scene(t);
  const backend = await openStore(store);
  t.teardown(() => backend.close());
  const { namedBy } = surveyPorts(context);
  const document = (more: object) => JSON.stringify({ format: ENVIRONMENT_FORMAT, ...more });
  const lies = [
    "null",
    "7",
    "[]",
    document({}),
    document({ packages: 5 }),
    document({ packages: "none" }),
    document({ packages: [null] }),
    document({ packages: [[]] }),
    document({ packages: [{ layer: { toString: 1 } }] }),
    document({ packages: [], wheels: 5 }),
    document({ packages: [], kept: [undefined] }),
    document({ packages: [], compiled: null }),
    document({ packages: [], compiled: { layer: 1, base: 2 } }),
    document({ packages: [{ layer: "../../etc/passwd" }] }),
  ];
  for (const lie of lies) {
    write(digest, lie);
    const { faults } = await verifyStore(context);
    t.match(faults, [{ what: objectPath("environments", digest) }], lie);
    t.match(faults[0]?.why, /the document of an environment|no environment/, lie);
    t.throws(() => namedBy(Buffer.from(lie)), { code: "BURROW_CORRUPT" }, lie);
    await t.resolves(namesOfLayers(backend), lie);
  }
});

test("what is published while a store is verified is not missing", async (t) => {
  const { context, store, digest, write } = await scene(t);
  write(digest, documentOf(digest));
  const aside = `${store}-aside`;
  const other = await publish(aside, { file: noise(5_000, 2) });
  // Begins when indexes and packs have been listed.
  const begin = () => {
    fs.cpSync(aside, store, { recursive: true });
    write(digest, documentOf(other.digest));
  };
  const { faults } = await verifyStore(context, { ...SILENCE, begin });
  t.same(faults, []);
});

test("what is missing is found, of an environment that is still there", async (t) => {
  const { store, digest, write } = await scene(t);
  const backend = await openStore(store);
  t.teardown(() => backend.close());
  const missing = "0".repeat(64) as Digest;
  write(digest, documentOf(missing));
  const published = new Set([digest]);
  const found = new Faults();
  await checkEnvironments(backend, backend, published, found);
  t.same([...found.keys()], [objectPath("locators", missing)]);
  t.match(await readEnvironment(backend, digest), { prefix: "/opt/env" });
  const path = `${store}/${objectPath("environments", digest)}`;
  // Removed after it was listed, then after it was read.
  for (const isRead of [false, true]) {
    write(digest, documentOf(missing));
    const get: typeof backend.get = async (...words) => {
      const bytes = isRead ? await backend.get(...words) : undefined;
      fs.rmSync(path);
      return bytes ?? (await backend.get(...words));
    };
    const reader = new Proxy(backend, {
      get: (of, name) => {
        const value: unknown = name === "get" ? get : Reflect.get(of, name);
        return typeof value === "function" ? value.bind(of) : value;
      },
    });
    const none = new Faults();
    await checkEnvironments(backend, reader, published, none);
    t.equal(none.size, 0);
  }
});
