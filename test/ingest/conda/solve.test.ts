// Owns: solves over small channels: priority, what the machine is, what can't be satisfied, and repodata that lies.
// Plane: control.

import fs from "node:fs";
import path from "node:path";
import { type Test, test } from "tap";
import type { Channel } from "../../../lib/ingest/conda/channel.ts";
import { loadRepodata } from "../../../lib/ingest/conda/repodata.ts";
import { readRecord } from "../../../lib/ingest/conda/repodata-record.ts";
import { solve } from "../../../lib/ingest/conda/solve.ts";
import type { VirtualPackage } from "../../../lib/ingest/conda/virtual.ts";
import { DATA } from "../../cli/cli.ts";
import {
  channelOf,
  folderOf,
  type Json,
  type Listed,
  listing,
  recordOf,
  repodataOf,
} from "./channels.ts";
import { failureOf } from "./packages.ts";

const GLIBC: VirtualPackage = { name: "__glibc", version: "2.36", build: "0" };
const MACHINE: VirtualPackage[] = [GLIBC, { name: "__unix", version: "0", build: "0" }];

/** Solves, and gives the archives' names in their order. */
async function names(
  t: Test,
  specs: readonly string[],
  channels: readonly Channel[],
  virtual: readonly VirtualPackage[] = MACHINE,
): Promise<string[]> {
  const items = await solve(specs, channels, { cache: folderOf(t), virtual });
  return items.map(({ url }) => path.basename(url).replace("-h0_0.conda", ""));
}

test("the newest that fit, each after what it needs", async (t) => {
  const channel = listing(t, [
    { name: "app", version: "2.0", depends: ["lib >=2", "zeta"] },
    { name: "app", version: "1.0", depends: ["lib"] },
    { name: "lib", version: "1.0" },
    { name: "lib", version: "2.0", depends: ["base"] },
    { name: "lib", version: "3.0", depends: ["nowhere"] },
    { name: "base" },
    { name: "zeta", depends: ["base"] },
    { name: "other" },
  ]);
  t.same(await names(t, ["app"], [channel]), ["base-1.0", "lib-2.0", "zeta-1.0", "app-2.0"]);
  t.same(await names(t, ["app", "lib<2"], [channel]), ["lib-1.0", "app-1.0"]);
  t.same(await names(t, ["App=1", "OTHER"], [channel]), [
    "base-1.0",
    "lib-2.0",
    "app-1.0",
    "other-1.0",
  ]);
  t.same(await names(t, ["lib[version='>=1,<2']"], [channel]), ["lib-1.0"]);
  const [item] = await solve(["base"], [channel], { cache: folderOf(t), virtual: MACHINE });
  t.match(item, {
    line: 1,
    path: `${channel.path}/linux-64/base-1.0-h0_0.conda`,
    url: `${channel.url}linux-64/base-1.0-h0_0.conda`,
    size: 1000,
    sha256: recordOf({ name: "base" })["sha256"],
    dist: { name: "base", version: "1.0", build: "h0_0" },
  });
});

test("a channel in front hides a package of those behind, whatever its version", async (t) => {
  const first = listing(t, [{ name: "lib", version: "1.0" }]);
  const second = listing(t, [
    { name: "lib", version: "9.0" },
    { name: "app", depends: ["lib"] },
    { name: "needy", depends: ["lib >=2"] },
  ]);
  t.same(await names(t, ["app"], [first, second]), ["lib-1.0", "app-1.0"]);
  t.same(await names(t, ["app"], [second, first]), ["lib-9.0", "app-1.0"]);
  t.match(await failureOf(names(t, ["lib>=2"], [first, second])), /UNSOLVABLE\nNo candidates/);
  t.match(await failureOf(names(t, ["needy"], [first, second])), /BURROW_UNSOLVABLE/);
  t.same(await names(t, [`${second.name}::lib`, "app"], [first, second]), ["lib-9.0", "app-1.0"]);
  const elsewhere = names(t, ["conda-forge::lib"], [first, second]);
  t.match(await failureOf(elsewhere), /USAGE\nconda-forge::lib: .* none of the channels/);
});

test("a package in both formats is taken in the newer one", async (t) => {
  const old = { "lib-1.0-h0_0.tar.bz2": recordOf({ name: "lib" }) };
  const all = JSON.parse(repodataOf([{ name: "lib" }])) as Json;
  const both = channelOf(t, {
    "linux-64/repodata.json": JSON.stringify({ ...all, packages: old }),
  });
  t.same(await names(t, ["lib"], [both]), ["lib-1.0"]);
  const alone = channelOf(t, {
    "noarch/repodata.json": JSON.stringify({
      packages: { "lib-1.0-h0_0.tar.bz2": recordOf({ name: "lib" }, "noarch") },
    }),
  });
  t.same(await names(t, ["lib"], [alone]), ["lib-1.0-h0_0.tar.bz2"]);
});

test("what the machine is counts, needed or only constrained", async (t) => {
  const channel = listing(t, [
    { name: "new", depends: ["__glibc >=2.40"] },
    { name: "shy", version: "2.0", constrains: ["__glibc >=2.40"] },
    { name: "shy", version: "1.0" },
    { name: "gpu", depends: ["__cuda"] },
    { name: "__glibc", version: "2.99" },
  ]);
  t.match(await failureOf(names(t, ["new"], [channel])), /UNSOLVABLE.*__glibc >=2\.40/s);
  t.same(await names(t, ["shy"], [channel]), ["shy-1.0"], "the channel's own __glibc is nothing");
  const newer = [{ ...GLIBC, version: "2.41" }];
  t.same(await names(t, ["new", "shy"], [channel], newer), ["new-1.0", "shy-2.0"]);
  t.match(await failureOf(names(t, ["gpu"], [channel])), /UNSOLVABLE.*__cuda/s);
});

test("circles end, python before what is made for it", async (t) => {
  const channel = listing(t, [
    { name: "python", depends: ["pip", "zlib"] },
    { name: "pip", depends: ["python", "wheel"] },
    { name: "wheel", depends: ["python"] },
    { name: "zlib" },
    { name: "a", depends: ["b"] },
    { name: "b", depends: ["a"] },
  ]);
  const order = ["zlib-1.0", "python-1.0", "wheel-1.0", "pip-1.0"];
  t.same(await names(t, ["pip"], [channel]), order);
  t.same(await names(t, ["a", "pip"], [channel]), [
    ...order.slice(0, 2),
    "b-1.0",
    "a-1.0",
    ...order.slice(2),
  ]);
});

test("what is no spec is refused before the solver sees it", async (t) => {
  const channel = listing(t, [{ name: "lib" }]);
  const cases: [string, RegExp][] = [
    ["", /must start with a package's name/],
    ["../lib", /must start with/],
    ["lib[channel=foo]", /\[channel=…\] is not supported/],
    ["lib[url=https://h/lib-1.0-h0_0.conda]", /\[url=…\] is not supported/],
    ["lib[version='1', fn=x]", /\[fn=…\] is not supported/],
    ["li*", /must start with/],
    ["lib; if __unix", /conditions are not supported/],
    ["lib\n1", /control characters/],
    ["lib 1 other::x", /stands before the name/],
    [`lib=${"1".repeat(5000)}`, /too long/],
    ["lib>>>1", /can't read a spec: .*>>>1/],
  ];
  for (const [spec, pattern] of cases) {
    const failure = await failureOf(names(t, [spec], [channel]));
    t.match(failure, /^BURROW_USAGE/, spec);
    t.match(failure, pattern, spec);
  }
});

test("repodata that lies is refused by file and record", async (t) => {
  const lie = (fields: Json, name = "lib-1.0-h0_0.conda", one: Listed = { name: "lib" }) =>
    listing(t, [], { [name]: { ...recordOf(one), ...fields } });
  const cases: [string, Channel, RegExp][] = [
    ["another name", lie({ name: "evil" }), /says that it is evil-1\.0-h0_0/],
    ["another version", lie({ version: "2.0" }), /says that it is lib-2\.0-h0_0/],
    ["another subdir", lie({ subdir: "win-64" }), /stands in linux-64 and says "win-64"/],
    ["a path as its file", lie({}, "../lib-1.0-h0_0.conda"), /an archive's name is a path/],
    ["a path elsewhere", lie({}, "x/other-1.0-h0_0.conda"), /an archive's name is a path/],
    ["a path in its version", lie({ version: "../1" }), /its version is none/],
    ["a bad sha256", lie({ sha256: "12" }), /its sha256 is none/],
    ["a bad md5", lie({ md5: 5 }), /its md5 is none/],
    ["no hash", lie({ sha256: null, md5: null }), /neither sha256 nor md5/],
    ["no size", lie({ size: -1 }), /its size is absurd: -1/],
    ["an absurd size", lie({ size: 1e20 }), /its size is absurd: 1000/],
    ["dependencies of another kind", lie({ depends: [["a"]] }), /its depends is no list/],
    ["a build number of none", lie({ build_number: "x" }), /its build_number is none/],
    ["a record of no kind", listing(t, [], { "lib-1.0-h0_0.conda": [] }), /is something else/],
    [
      "a version that none can order",
      lie({ version: "1..2" }, "lib-1..2-h0_0.conda"),
      /the solver can't read it/,
    ],
    ["a large record", lie({ x: "x".repeat(1 << 20) }), /too large/],
  ];
  for (const [what, channel, pattern] of cases) {
    const failure = await failureOf(names(t, ["lib"], [channel]));
    t.match(failure, /^BURROW_BAD_REPODATA\n/, what);
    t.match(failure, pattern, what);
    t.match(failure, `repodata: ${channel.path}/linux-64/repodata.json`, what);
    t.match(failure, /record: [^\n]*-h0_0\.conda/, what);
  }
});

test("a file that is no repodata is refused", async (t) => {
  const whole = repodataOf([{ name: "lib" }]);
  const twice = whole.replace(
    '"packages.conda":{',
    `$&"lib-1.0-h0_0.conda":${JSON.stringify(recordOf({ name: "lib" }))},`,
  );
  const cases: [string, string, RegExp][] = [
    ["empty", "", /it is cut/],
    ["cut", whole.slice(0, -40), /it is cut/],
    ["a page", "<html></html>", /no repodata\.json/],
    ["a list", "[]", /no repodata\.json/],
    ["more behind it", `${whole}{}`, /goes on behind its end/],
    ["of another subdir", whole.replace("linux-64", "osx-64"), /it is that of osx-64/],
    ["a record twice", twice, /it comes twice/],
    [
      "archives elsewhere",
      whole.replace('"info":{', '$&"base_url":"data:x",'),
      /its base_url is none/,
    ],
    ["no JSON in a record", whole.replace('"size"', "size"), /no JSON/],
  ];
  for (const [what, text, pattern] of cases) {
    const channel = channelOf(t, { "linux-64/repodata.json": text });
    const failure = await failureOf(names(t, ["lib"], [channel]));
    t.match(failure, /^BURROW_BAD_REPODATA\n/, what);
    t.match(failure, pattern, what);
  }
  const none = channelOf(t, { "osx-64/repodata.json": whole });
  t.match(await failureOf(names(t, ["lib"], [none])), /^BURROW_NOT_FOUND\nno channel: it has no/);
  const path = none.path!;
  const missing = { ...none, path: `${path}/missing` };
  t.match(await failureOf(names(t, ["lib"], [missing])), /no channel: there is no such directory/);
  const file = { ...none, path: `${path}/osx-64/repodata.json` };
  t.match(await failureOf(names(t, ["lib"], [file])), /no channel: it is no directory/);
  const odd = channelOf(t, {
    "linux-64/repodata.json": `\ufeff { "a" : [ {"b":"}\\""} ] , "info" : {} ,${whole.slice(1)}`,
  });
  t.same(
    await names(t, ["lib"], [odd]),
    ["lib-1.0"],
    "blanks, strange keys and brackets in strings",
  );
});

test("a solver that doesn't end is ended", async (t) => {
  const channel = listing(t, [{ name: "lib" }]);
  const options = { cache: folderOf(t), virtual: MACHINE, solveMs: 1 };
  t.match(await failureOf(solve(["lib"], [channel], options)), /^BURROW_TIMEOUT\n/);
});

const REAL = ["conda/repodata/r_linux-64.json", "rattler/channels-pytorch/repodata.json"].map(
  (name) => path.join(DATA, name),
);

test("every record of real channels can be read", {
  skip: REAL.every((file) => fs.existsSync(file)) ? false : "the example repodata is not here",
}, async (t) => {
  let count = 0;
  for (const file of REAL) {
    const channel = channelOf(t, { "linux-64/repodata.json": fs.readFileSync(file) });
    const index = await loadRepodata(channel, "linux-64", { cache: folderOf(t) });
    const bySection = JSON.parse(fs.readFileSync(file, "utf8")) as Record<string, Json>;
    const all = { ...bySection["packages"], ...bySection["packages.conda"] } as Record<
      string,
      Json
    >;
    for (const slices of index!.records.values()) {
      for (const slice of slices) {
        const record = readRecord(index!, slice, "linux-64");
        if (record.sha256 === all[slice.fileName]?.["sha256"]) count++;
      }
    }
    t.equal(Object.keys(all).length, [...index!.records.values()].flat().length);
  }
  t.equal(count, 4211 + 2181);
});

test("a solve of a real channel needs what its packages need", {
  skip: fs.existsSync(REAL[0]!) ? false : "the example repodata is not here",
}, async (t) => {
  const r = channelOf(t, { "linux-64/repodata.json": fs.readFileSync(REAL[0]!) });
  const failure = await failureOf(names(t, ["r-base"], [r]));
  t.match(failure, /^BURROW_UNSOLVABLE\n/, "compilers are in another channel");
  t.same(await names(t, ["_r-mutex"], [r]), ["_r-mutex-1.0.0-mro_2.tar.bz2"]);
});
