// Owns: proof that burrow store verify finds what is wrong with a store, and nothing with a right one: deltas and their bases,
// locators, packs, chunks. Plane: control.

import fs from "node:fs";
import { type Test, test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { verifyStore } from "../../lib/cli/store-verify.ts";
import { deltaPath } from "../../lib/store/deltas.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { Locator } from "../../lib/store/locator.ts";
import { nearOf, noise, type Published, publish } from "../suite/daemon-node.ts";
import { service } from "../suite/s3-server.ts";
import { type Node, newNode } from "./cli.ts";

/** Many small files, so that the index is worth a delta, and a large one. */
const FILES = {
  ...Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`file${i}`, noise(3_000, i + 1)])),
  large: noise(1_500_000, 99),
};

async function scene(t: Test): Promise<{ node: Node; base: Published; made: Published }> {
  const node = newNode(t);
  const base = await publish(node.store, FILES);
  const large = Buffer.from(FILES.large);
  large[700_000] = large[700_000]! ^ 1;
  const made = await publish(node.store, { ...FILES, large }, { near: nearOf(base) });
  return { node, base, made };
}

test("a store that is right, and each way to be wrong", async (t) => {
  const { node, base, made } = await scene(t);
  const whole = (folder: "indexes" | "locators", { digest }: Published) =>
    objectPath(folder, digest);
  const packs = (fs.readdirSync(`${node.store}/packs`, { recursive: true }) as string[])
    .filter((name) => name.length > 3)
    .map((name) => `packs/${name}`)
    .sort(
      (a, b) => fs.statSync(`${node.store}/${a}`).size - fs.statSync(`${node.store}/${b}`).size,
    );
  const { state, cache, store } = node;
  const verify = () => verifyStore({ state, cache, store, isJson: false });
  t.match(await verify(), { indexes: 2, blobs: 62, packs: 2, faults: [] });
  const flip = (at: number) => (bytes: Buffer) => {
    bytes[at] = bytes[at]! ^ 1;
    return bytes;
  };
  const wrongs: [string, string, (bytes: Buffer) => Buffer | undefined, RegExp][] = [
    [
      "a base that is gone",
      whole("indexes", base),
      () => undefined,
      /^locators.*not there as a whole|no layer/,
    ],
    [
      "a base that is another",
      whole("locators", base),
      flip(70),
      /^locators.*not the one it was made of/,
    ],
    [
      "a delta of an index",
      deltaPath(whole("indexes", made)),
      flip(130),
      /^locators.*(bad delta|does not make)/,
    ],
    [
      "a delta of a locator",
      deltaPath(whole("locators", made)),
      (bytes) => bytes.subarray(0, 100),
      /^locators.*bad delta/,
    ],
    ["a chunk that is a delta", packs[0]!, flip(60), /^sha256.*another digest/],
    ["a chunk of a base", packs[1]!, flip(5_000), /^packs.*1 file in it can't be had/],
    [
      "the table of a pack",
      packs[1]!,
      flip(fs.statSync(`${node.store}/${packs[1]}`).size - 60),
      /^packs.*not what its name says/,
    ],
  ];
  for (const [name, path, change, why] of wrongs) {
    const file = `${node.store}/${path}`;
    const right = fs.readFileSync(file);
    const wrong = change(Buffer.from(right));
    if (wrong === undefined) fs.unlinkSync(file);
    else fs.writeFileSync(file, wrong);
    const { faults } = await verify();
    const texts = faults.map((fault) => `${fault.what}: ${fault.why}`);
    t.ok(
      texts.some((text) => why.test(text)),
      `${name}: ${texts.join("; ")}`,
    );
    fs.writeFileSync(file, right);
  }
  const text = await node.run(["store", "verify"]);
  t.match(text, { code: 0, stdout: "indexes 2, files 62, packs 2: faults 0\n" });
  t.equal(text.stderr, `checking ${store}: 2 indexes, 2 packs\n`);
  fs.unlinkSync(`${node.store}/${packs[0]}`);
  const lost = await node.run(["store", "verify", "--json"]);
  t.match(lost, { code: 1, stderr: "" });
  t.match(JSON.parse(lost.stdout).faults, [{ what: /^sha256:/, why: /packs/ }]);
});

test("a store behind a network is read by few requests, and repaired there", async (t) => {
  const { node } = await scene(t);
  const server = await service(t);
  Object.assign(node.env, server.environment);
  node.file("tree/one", noise(50_000, 500));
  const words = ["layer", "import", "--snapshot", "--quiet", "tree"];
  const made = await node.run(words);
  t.equal(made.code, 0, made.stderr);
  const box = `${server.root}/box/store`;
  fs.cpSync(node.store, box, { recursive: true });
  const verify = ["store", "verify", "--store", "s3://box/store"];
  server.files.requests.length = 0;
  t.match(await node.run(verify), { code: 0, stdout: "indexes 4, files 63, packs 3: faults 0\n" });
  const asked = server.files.requests.filter((one) => one.path.includes("/packs/"));
  t.equal(asked.filter(({ range }) => range === "").length, 3, "each pack whole");
  t.equal(asked.length, 3 + 2, "and the one chunk that is a delta with its base");
  const pack = (fs.readdirSync(`${box}/packs`, { recursive: true }) as string[]).find(
    (name) =>
      name.length > 3 &&
      fs.statSync(`${box}/packs/${name}`).size < 60_000 &&
      fs.statSync(`${box}/packs/${name}`).size > 40_000,
  );
  fs.truncateSync(`${box}/packs/${pack}`, 1_000);
  t.match(await node.run(verify), {
    code: 1,
    stdout: /layers and snapshots that need what is wrong: /,
  });
  const again = await node.run([...words, "--repair", "--store", "s3://box/store"]);
  t.match(again, { code: 0, stdout: made.stdout }, again.stderr);
  t.match(await node.run(verify), { code: 0 });
});

test("a fault for each pack, with the files that it takes along; none for what nothing needs", async (t) => {
  const { node, base } = await scene(t);
  const command = async (...words: string[]) => {
    const outcome = await node.run(["store", ...words, "--json"]);
    return { code: outcome.code, ...JSON.parse(outcome.stdout) };
  };
  const stray = objectPath("packs", "0".repeat(64) as Digest);
  node.file(`store/${stray}`, noise(500, 7));
  t.match(await command("verify"), { code: 0, faults: [], unneeded: [{ what: stray }] });
  t.match(await command("check"), { code: 0, faults: [], unneeded: [{ what: stray }] });
  const text = await node.run(["store", "check"]);
  t.match(text.stdout, /not referred to: 1 object, 500 B, 1 of them damaged\nfaults 0$/m);
  const locator = new Locator(
    fs.readFileSync(`${node.store}/${objectPath("locators", base.digest)}`),
  );
  const pack = objectPath("packs", locator.packAt(0));
  fs.truncateSync(`${node.store}/${pack}`, 100_000);
  for (const verb of ["verify", "check"]) {
    const { code, faults } = await command(verb);
    t.equal(code, 1);
    const [fault, ...others] = faults.filter(({ what }: { what: string }) => what === pack);
    t.same(others, []);
    t.match(fault, { why: /not what its name says: \d+ files in it can't be had/ });
    t.ok(fault.files.length > 20);
    t.match(fault.files[0], { digest: /^sha256:/, path: /^(file\d+|large)$/ });
  }
  const said = await node.run(["store", "check"]);
  t.match(said.stdout, /\npacks\/\S+: .* can't be had.*: (file\d+|large), .*, …$/m);
  t.ok(said.stdout.split("\n").length < 12, said.stdout);
  const quick = await command("check", "--no-content");
  t.match(quick, { code: 1, faults: [{ what: pack, why: /^it ends at 100000, and locators/ }] });
});
