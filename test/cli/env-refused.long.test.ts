// Owns: what env create refuses to solve or to believe: channels that lie of their archives, and words that make no sense.
// Plane: control.

import fs from "node:fs";
import { test } from "tap";
import { ChannelServer } from "../ingest/conda/channels.ts";
import { create, packagesIn, records, scene } from "./channel-node.ts";
import { checkRefused } from "./cli.ts";

test("an archive that is not what its channel says is refused", async (t) => {
  const node = await scene(t);
  const server = await ChannelServer.start(t, node.path("channel"));
  const file = node.path("channel/linux-64/repodata.json");
  const text = fs.readFileSync(file, "utf8");
  const lie = (fields: object, fileName = "lib-1.0-h0_0.conda") => {
    const record = { ...records(node)["lib-1.0-h0_0.conda"], ...fields };
    fs.writeFileSync(file, JSON.stringify({ "packages.conda": { [fileName]: record } }));
  };
  const size = records(node)["lib-1.0-h0_0.conda"]!["size"] as number;
  const renamed = "lib-1.1-h0_0.conda";
  const archive = fs.readFileSync(node.path("channel/linux-64/lib-1.0-h0_0.conda"));
  fs.writeFileSync(node.path(`channel/linux-64/${renamed}`), archive);
  const cases: [string, () => void, RegExp][] = [
    ["sha256", () => lie({ sha256: "0".repeat(64) }), /sha256 is not as expected.*DIGEST_MISMATCH/],
    ["md5", () => lie({ md5: "0".repeat(32), sha256: null }), /md5 is not.*DIGEST_MISMATCH/],
    ["a larger size", () => lie({ size: size + 1 }), /size is not as expected.*DIGEST_MISMATCH/],
    [
      "another version, of the right hash",
      () => lie({ version: "1.1" }, renamed),
      /not the lib-1\.1-h0_0 it is listed as \[package: lib-1\.0-h0_0, .*BURROW_BAD_REPODATA/,
    ],
    ["a path", () => lie({}, "../lib-1.0-h0_0.conda"), /name is a path.*BURROW_BAD_REPODATA/],
  ];
  for (const [what, change, pattern] of cases) {
    fs.writeFileSync(file, text);
    change();
    for (const channel of what === "sha256" ? ["./channel", server.url] : ["./channel"]) {
      const made = await node.run(["env", "create", "-c", channel, "lib"]);
      t.match(made, { code: 1, stdout: "" }, what);
      t.match(made.stderr, pattern, what);
    }
  }
  fs.writeFileSync(file, text);
  lie({ size: size - 1 });
  const cut = await node.run(["env", "create", "-c", server.url, "lib"]);
  t.match(
    cut.stderr,
    /it has \d+ bytes by the lock, and the server sends .*BURROW_DIGEST_MISMATCH/,
    "no more is fetched than said",
  );
  fs.writeFileSync(file, text);
  t.same(await packagesIn(node, await create(t, node, ["-c", server.url, "lib=1.0"])), ["lib-1.0"]);
});

test("what can't be solved or makes no sense is refused by name", async (t) => {
  const node = await scene(t);
  node.file("pip.yml", "channels: [./channel]\ndependencies: [app, {pip: [requests]}]\n");
  node.file("list.yml", "- app\n");
  node.file("other.yml", "services: {}\n");
  node.file("bad.yml", "dependencies: [app\n");
  const channel = ["--channel", "./channel"];
  const cases: [string[], RegExp, number][] = [
    [
      [...channel, "app", "lib<1"],
      /No candidates were found for lib <1.*\(BURROW_UNSOLVABLE\)/s,
      1,
    ],
    [["app", "lib"], /specs need a channel: --channel/, 2],
    [[...channel, "app>>>1"], /can't read a spec.*BURROW_USAGE/, 2],
    [["--channel", "./nowhere", "app"], /no channel: .*nowhere.*BURROW_NOT_FOUND/, 1],
    [["--channel", "a b", "app"], /"a b" is no channel.*BURROW_USAGE/, 2],
    [[...channel, "conda-forge::app"], /conda-forge is none of the channels given/, 2],
    [["pip.yml"], /pip\.yml: it has a pip section.*BURROW_BAD_LOCK/, 1],
    [["list.yml"], /list\.yml: it is no lock and no environment file.*BURROW_BAD_LOCK/, 1],
    [["other.yml"], /other\.yml is none of these: .*environment\.yml.*BURROW_BAD_LOCK/, 1],
    [["bad.yml"], /bad\.yml: it is no YAML: .*BURROW_BAD_LOCK/, 1],
    [["nowhere.yml"], /there is no file nowhere\.yml.*BURROW_NOT_FOUND/, 1],
    [["pip.yml", "app"], /pip\.yml is no package file or URL.*BURROW_USAGE/, 2],
    [
      [...channel, "channel/linux-64/app-2.0-h0_0.conda"],
      /--channel has no meaning for packages/,
      2,
    ],
    [["--environment", "x", ...channel, "app"], /--environment has no meaning for specs/, 2],
  ];
  await checkRefused(
    t,
    node,
    cases.map(([words, line, code]) => [["env", "create", ...words], line, code]),
  );
  const odd = await node.run(["env", "create", ...channel, "app"], {
    env: { CONDA_OVERRIDE_GLIBC: "x" },
  });
  t.match(odd, { code: 2, stderr: /CONDA_OVERRIDE_GLIBC="x" is no version.*BURROW_USAGE/ });
  const absent = await node.run(["env", "create", ...channel, "app"], {
    env: { CONDA_OVERRIDE_GLIBC: "" },
  });
  t.match(
    absent,
    { code: 1, stderr: /__glibc.*BURROW_UNSOLVABLE/s },
    "an empty override takes it away",
  );
});
