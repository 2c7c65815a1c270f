// Random damage to sound locks, environment files and repodata: each is taken, or refused with a code of its own; nothing hangs, and
// nothing that is no BurrowError comes out.

import fc from "fast-check";
import { test } from "tap";
import { BurrowError, type ErrorCode } from "../../lib/base/error.ts";
import {
  isEnvironmentFile,
  parseEnvironmentFile,
} from "../../lib/ingest/conda/environment-file.ts";
import { parseExplicit } from "../../lib/ingest/conda/explicit.ts";
import { isCondaLock, parseCondaLock } from "../../lib/ingest/conda/lock-conda.ts";
import { isPixiLock, parsePixiLock } from "../../lib/ingest/conda/lock-pixi.ts";
import { parseMatchSpec } from "../../lib/ingest/conda/match-spec.ts";
import { readRecord } from "../../lib/ingest/conda/repodata-record.ts";
import { scanRepodata } from "../../lib/ingest/conda/repodata-scan.ts";
import { parseYamlMap, YAML_ITEMS_MAX } from "../../lib/ingest/conda/yaml.ts";
import { recordOf, repodataOf } from "../ingest/conda/channels.ts";
import { RUNS, SEED } from "../layer/trees.ts";

const MD5 = "d41d8cd98f00b204e9800998ecf8427e";
const URL_OF = (name: string) => `https://h/c/linux-64/${name}-1.0-0.conda`;

const EXPLICIT = `# platform: linux-64\n@EXPLICIT\n${URL_OF("a")}#${MD5}\nfile:///srv/b-1-0.tar.bz2#sha256:${MD5}${MD5}\n`;
const CONDA_LOCK = `version: 1
metadata: {platforms: [linux-64]}
package:
- {name: a, manager: conda, platform: linux-64, url: "${URL_OF("a")}", hash: {md5: ${MD5}}, dependencies: {b: ">=1"}}
- name: b
  manager: conda
  platform: linux-64
  url: ${URL_OF("b")}
  hash:
    sha256: ${MD5}${MD5}
  category: main
`;
const PIXI = `version: 6
environments:
  default:
    channels:
    - url: https://h/c/
    packages:
      linux-64:
      - conda: ${URL_OF("a")}
packages:
- conda: ${URL_OF("a")}
  md5: ${MD5}
  depends: [b, "c >=1"]
`;
const ENVIRONMENT = `name: x
channels: [&c conda-forge, *c, nodefaults]
dependencies:
  - python=3.11
  - a >=1,<2
variables: {A: b}
`;

type Read = (text: string) => unknown;

async function yaml(text: string): Promise<unknown> {
  const file = await parseYamlMap(text, "x");
  if (isPixiLock(file)) return parsePixiLock(file, "x");
  if (isCondaLock(file)) return parseCondaLock(file, "x");
  return isEnvironmentFile(file) ? parseEnvironmentFile(file, "x").specs.map(parseMatchSpec) : null;
}

function repodata(text: string): unknown {
  const index = scanRepodata(Buffer.from(text, "latin1"), "x");
  return [...index.records.values()].flatMap((slices) =>
    slices.map((slice) => readRecord(index, slice, "linux-64")),
  );
}

/** Cuts, repeats, and puts in what parsers care for. */
const piece = fc.oneof(
  fc.constantFrom("[", "]", "{", "}", ":", ",", "- ", '"', "\\u0000", "\n", "null", "1e999", "-1"),
  fc.constantFrom("../..", "/", "#", "&a ", "*a", "!!binary ", "__proto__", "constructor", "\t"),
  fc.constantFrom(
    "\u2028",
    "\ud800",
    "%zz",
    "file:///",
    "\x1b[2J",
    "9".repeat(400),
    "[".repeat(99),
  ),
  fc.string({ maxLength: 12 }),
);
const damage = fc.array(
  fc.record({ at: fc.double({ min: 0, max: 1, noNaN: true }), drop: fc.nat(9), piece }),
  { minLength: 1, maxLength: 3 },
);

function damaged(text: string, changes: readonly { at: number; drop: number; piece: string }[]) {
  let out = text;
  for (const { at, drop, piece: added } of changes) {
    const start = Math.floor(at * out.length);
    out = out.slice(0, start) + added + out.slice(start + drop);
  }
  return out;
}

async function outcome(read: Read, text: string): Promise<"taken" | ErrorCode> {
  try {
    await read(text);
    return "taken";
  } catch (error) {
    if (error instanceof BurrowError) return error.code;
    throw error;
  }
}

const REPODATA = repodataOf([{ name: "a", depends: ["b >=1"] }, { name: "b" }]);
const KINDS: readonly [string, Read, string, readonly (ErrorCode | "taken")[]][] = [
  ["an explicit list", (text) => parseExplicit(text, "x"), EXPLICIT, ["BURROW_BAD_LOCK"]],
  ["a conda-lock", yaml, CONDA_LOCK, ["BURROW_BAD_LOCK", "BURROW_USAGE", "BURROW_UNSUPPORTED"]],
  ["a pixi.lock", yaml, PIXI, ["BURROW_BAD_LOCK", "BURROW_USAGE", "BURROW_UNSUPPORTED"]],
  ["an environment.yml", yaml, ENVIRONMENT, ["BURROW_BAD_LOCK", "BURROW_USAGE"]],
  ["repodata", repodata, REPODATA, ["BURROW_BAD_REPODATA"]],
];

for (const [name, read, sound, codes] of KINDS) {
  test(`${name}, damaged`, async (t) => {
    t.equal(await outcome(read, sound), "taken");
    const seen = new Map<string, number>();
    await fc.assert(
      fc.asyncProperty(damage, async (changes) => {
        const code = await outcome(read, damaged(sound, changes));
        seen.set(code, (seen.get(code) ?? 0) + 1);
        return code === "taken" || codes.includes(code);
      }),
      { numRuns: RUNS * 4, seed: SEED },
    );
    // Of JSON hardly any damage is taken: some seeds have none.
    const refused = [...seen.keys()].filter((code) => code !== "taken");
    t.ok(refused.length > 0, `seed ${SEED}: ${JSON.stringify([...seen])}`);
  });
}

/** Values of every type in every field. */
const VALUES = [
  null,
  true,
  0,
  -1,
  1e300,
  "",
  "x".repeat(2e6),
  [],
  [[]],
  {},
  [1],
  ["a", null],
  [{}],
];

test("a record with each type in each field", async (t) => {
  for (const field of Object.keys(recordOf({ name: "a" }))) {
    for (const value of VALUES) {
      const text = repodataOf([{ name: "a", fields: { [field]: value } }]);
      const code = await outcome(repodata, text);
      t.ok(code === "taken" || code === "BURROW_BAD_REPODATA", `${field}: ${code}`);
    }
  }
});

test("what would take all memory is refused before it is read", async (t) => {
  const texts = [
    "a:\n".concat("- b\n".repeat(YAML_ITEMS_MAX)),
    `a: [${",b".repeat(YAML_ITEMS_MAX + 1)}`,
  ];
  for (const text of texts) {
    await t.rejects(parseYamlMap(text, "x"), { code: "BURROW_BAD_LOCK", message: /over 500000/ });
  }
});
