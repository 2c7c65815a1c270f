// Owns: locks in YAML and environment.yml: real ones of conda-lock and pixi, the order of what is in them, and bad ones.
// Virtual packages too, which decide what a solve may take. Plane: control.

import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { parseEnvironmentFile } from "../../../lib/ingest/conda/environment-file.ts";
import { formatExplicit, parseExplicit } from "../../../lib/ingest/conda/explicit.ts";
import { isCondaLock, parseCondaLock } from "../../../lib/ingest/conda/lock-conda.ts";
import { isPixiLock, parsePixiLock } from "../../../lib/ingest/conda/lock-pixi.ts";
import { dependencyName } from "../../../lib/ingest/conda/match-spec.ts";
import { levelOf, virtualPackages } from "../../../lib/ingest/conda/virtual.ts";
import { parseYamlMap } from "../../../lib/ingest/conda/yaml.ts";
import { DATA } from "../../cli/cli.ts";
import { failureOf } from "./packages.ts";

const LOCKS = path.join(DATA, "rattler/locks");
const skip = fs.existsSync(LOCKS) ? false : "the example locks are not here";
const read = (name: string) => parseYamlMap(fs.readFileSync(path.join(LOCKS, name), "utf8"), name);

const HASH = "d41d8cd98f00b204e9800998ecf8427e";
const failure = (call: () => unknown) => failureOf((async () => call())());

test("a real conda-lock file", { skip }, async (t) => {
  const file = await read("numpy-conda-lock.yml");
  t.ok(isCondaLock(file));
  const list = parseCondaLock(file, "lock");
  const all = (file["package"] as { platform: string; url: string }[]).filter(
    ({ platform }) => platform === "linux-64",
  );
  t.same(list.map(({ url }) => url).sort(), all.map(({ url }) => url).sort());
  t.equal(list.length, 254);
  t.ok(list.every(({ md5, sha256 }) => md5?.length === 32 && sha256?.length === 64));
  const place = new Map(list.map(({ dist }, i) => [dist!.name, i]));
  t.ok(
    place.get("python")! < place.get("numpy")! && place.get("libopenblas")! < place.get("numpy")!,
  );
});

test("real pixi.lock files", { skip }, async (t) => {
  for (const [name, count] of [
    ["numpy-lock.yml", 254],
    ["turtlesim-lock.yml", 593],
  ] as const) {
    const file = await read(name);
    t.ok(isPixiLock(file) && !isCondaLock(file), name);
    const list = parsePixiLock(file, name);
    t.equal(list.length, count, name);
    const entries = file["packages"] as { url: string; depends?: string[] }[];
    const depends = new Map(entries.map((one) => [one.url, one.depends ?? []]));
    const place = new Map(list.map(({ dist }, i) => [dist!.name, i]));
    let edges = 0;
    let broken = 0;
    for (const { url, dist } of list) {
      for (const text of depends.get(url)!) {
        const needed = place.get(dependencyName(text)!);
        if (needed === undefined) continue;
        edges++;
        if (needed > place.get(dist!.name)!) broken++;
      }
    }
    t.ok(edges > count, `${name}: ${edges} dependencies`);
    t.ok(broken <= 3, `${name}: only circles are broken, here ${broken}`);
  }
});

test("locks that can't be used are refused by name", async (t) => {
  const url = "https://h/t/secret/linux-64/lib-1.0-0.conda";
  const one = { name: "lib", manager: "conda", platform: "linux-64", url, hash: { md5: HASH } };
  const lock = (fields: object) => () =>
    parseCondaLock({ version: 1, metadata: {}, package: [{ ...one, ...fields }] }, "lock");
  const pixi =
    (fields: object, chosen: object = { conda: url }, version: unknown = 6) =>
    () =>
      parsePixiLock(
        {
          version,
          environments: { default: { packages: { "linux-64": [chosen] } } },
          packages: [{ conda: url, md5: HASH, ...fields }],
        },
        "lock",
      );
  const cases: [() => unknown, RegExp][] = [
    [lock({ manager: "pip" }), /lib is a pip package: lock without pip, and give its wheel/],
    [lock({ platform: "osx-64" }), /no packages for linux-64/],
    [lock({ category: "docs" }), /no packages for linux-64/],
    [lock({ hash: {} }), /lib-1\.0-0\.conda: it has no md5 or sha256/],
    [lock({ hash: { sha256: HASH } }), /its sha256 is none/],
    [lock({ url: undefined }), /a package has no URL/],
    [lock({ url: "https://h/lib.whl" }), /lib\.whl: it is no \.conda/],
    [lock({ url: "ftp://h/lib-1-0.conda" }), /only http, https, s3 and file/],
    [() => parseCondaLock({ version: 2, package: [], metadata: {} }, "lock"), /its version is 2/],
    [() => parseCondaLock({ version: 1, package: {}, metadata: {} }, "lock"), /are no list/],
    [pixi({ md5: null }), /it has no md5 or sha256/],
    [
      pixi({}, { pypi: "https://h/x-1-py3-none-any.whl" }),
      /x-1-py3-none-any\.whl is a pip package/,
    ],
    [pixi({}, { conda: "../source" }), /source: it is no \.conda or \.tar\.bz2 \(a source package/],
    [pixi({}, {}, 8), /its version is 8; 4 to 7 are read/],
    [pixi({}, { conda_source: "lib[1] @ .." }, 7), /lib\[1\] @ \.\. is a source package/],
    [() => parsePixiLock({ version: 6, environments: {} }, "lock"), /no environment "default"/],
    [
      () => parsePixiLock({ version: 6, environments: { default: { packages: {} } } }, "lock"),
      /not locked for linux-64/,
    ],
    [
      () =>
        parsePixiLock(
          { version: 6, environments: JSON.parse('{"__proto__": {}}') },
          "lock",
          "constructor",
        ),
      /no environment "constructor"/,
    ],
  ];
  for (const [call, pattern] of cases) {
    const text = await failure(call);
    t.match(text, /^BURROW_BAD_LOCK\nlock: /);
    t.match(text, pattern);
    t.notMatch(text, /secret/);
  }
  const twice = [one, { ...one, category: "dev" }];
  const list = parseCondaLock({ version: 1, metadata: {}, package: twice }, "lock");
  t.equal(list.length, 1, "a package of two categories is one package");
  const other = [one, { ...one, url: "https://h/lib-2.0-0.conda" }];
  const both = () => parseCondaLock({ version: 1, metadata: {}, package: other }, "lock");
  t.match(await failure(both), /lib comes twice, as two archives/);
});

test("a pixi.lock whose platform has a name of its own", async (t) => {
  const url = "https://h/linux-64/lib-1.0-0.conda";
  const names = (platforms: object[]) =>
    parsePixiLock(
      {
        version: 7,
        platforms,
        environments: { default: { packages: { old: [{ conda: url }], new: [] } } },
        packages: [{ conda: url, md5: HASH }],
      },
      "lock",
    ).map(({ dist }) => dist?.name);
  const old = { name: "old", subdir: "linux-64" };
  t.same(names([old, { name: "new", subdir: "osx-64" }, { name: "unused", subdir: "linux-64" }]), [
    "lib",
  ]);
  const several = () => names([old, { name: "new", subdir: "linux-64" }]);
  t.match(await failure(several), /several kinds of linux-64: old, new/);
});

test("environment.yml, good and bad", async (t) => {
  const parse = async (text: string) => parseEnvironmentFile(await parseYamlMap(text, "e"), "e");
  t.same(await parse("channels: [a]\ndependencies: [b, 'c>=1']\nprefix: /x\nodd: 1"), {
    channels: ["a"],
    specs: ["b", "c>=1"],
    warnings: ['"odd" has no effect'],
  });
  t.same((await parse("dependencies: [b]")).channels, []);
  const deep = `a: &a [x,x,x,x,x,x,x,x,x]\n${"bcdefgh"
    .split("")
    .map((key, i) => `${key}: &${key} [${Array(9).fill(`*${"abcdefg"[i]}`).join(",")}]`)
    .join("\n")}\ndependencies: [x]`;
  const cases: [string, RegExp][] = [
    ["dependencies: [a, {pip: [b]}]", /a pip section/],
    ["dependencies: [a, {sel(unix): b}]", /a dependency is no spec/],
    ["dependencies: [1]", /a dependency is no spec/],
    ["dependencies: a", /are no list/],
    ["dependencies: []", /no dependencies/],
    ["channels: a\ndependencies: [b]", /channels are no list/],
    ["platforms: [osx-64]\ndependencies: [b]", /not for linux-64/],
    ["a: 1\nb:\n  c: 1\n  c: 2", /it has the key "c" twice: line 4/],
    ["- a", /no lock and no environment file/],
    ["a: b: c", /it is no YAML/],
    [deep, /no YAML that can be read/],
  ];
  for (const [text, pattern] of cases) {
    t.match(await failure(() => parse(text)), /^BURROW_BAD_LOCK\ne: /, text.slice(0, 40));
    t.match(await failure(() => parse(text)), pattern, text.slice(0, 40));
  }
});

test("a lock that was written can be read", async (t) => {
  const lines = [{ url: "https://h/linux-64/a-1-0.conda", sha256: "0".repeat(64) }];
  const text = formatExplicit(lines, ["platform: linux-64"]);
  t.match(parseExplicit(text, "lock"), [{ ...lines[0], line: 3 }]);
});

test("what the machine is, and what variables say that it is", async (t) => {
  const found = virtualPackages({});
  const at = (name: string) => found.find((one) => one.name === name);
  t.match(at("__linux")?.version, /^\d+\.\d+/);
  t.match(at("__glibc")?.version, /^2\.\d+/);
  t.match(at("__archspec"), { version: "1", build: /^x86_64/ });
  t.match(at("__unix"), { version: "0", build: "0" });
  t.equal(at("__cuda"), undefined);
  t.same(
    virtualPackages({
      CONDA_OVERRIDE_LINUX: "",
      CONDA_OVERRIDE_GLIBC: "2.17",
      CONDA_OVERRIDE_CUDA: "12.4",
      CONDA_OVERRIDE_ARCHSPEC: "zen4",
    }),
    [
      { name: "__archspec", version: "1", build: "zen4" },
      { name: "__cuda", version: "12.4", build: "0" },
      { name: "__glibc", version: "2.17", build: "0" },
      { name: "__unix", version: "0", build: "0" },
    ],
  );
  for (const [name, value] of [
    ["GLIBC", "x"],
    ["LINUX", "../6"],
    ["ARCHSPEC", "a b"],
  ] as const) {
    const env = { [`CONDA_OVERRIDE_${name}`]: value };
    t.match(await failure(() => virtualPackages(env)), `BURROW_USAGE\nCONDA_OVERRIDE_${name}=`);
  }
  t.equal(levelOf("fpu sse"), "x86_64");
  const v2 = "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3 pni";
  t.equal(levelOf(v2), "x86_64_v2");
  t.equal(levelOf(`${v2} avx avx2 bmi1 bmi2 f16c fma abm movbe xsave`), "x86_64_v3");
  t.equal(levelOf("avx512f avx512bw avx512cd avx512dq avx512vl"), "x86_64");
});
