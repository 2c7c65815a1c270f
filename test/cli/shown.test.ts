// Owns: proof that what strangers say reaches a terminal without control characters, and errors name URLs without passwords and
// tokens. Plane: control.

import { spawnSync } from "node:child_process";
import { test } from "tap";
import { shown } from "../../lib/cli/output.ts";
import { MAIN, newNode } from "./cli.ts";

const ESCAPE = "\x1b]0;title\x07\x9b31m";

test("a channel's text is shown without control characters", async (t) => {
  const node = newNode(t);
  const record = { name: "app", version: "1.0", build: "0", build_number: 0, size: 1 };
  const packages = {
    "app-1.0-0.conda": { ...record, depends: [`none ${ESCAPE}`] },
    "odd-1.0-0.conda": { ...record, name: "odd", depends: [], subdir: ESCAPE },
  };
  node.file("channel/linux-64/repodata.json", JSON.stringify({ "packages.conda": packages }));
  for (const name of ["app", "odd"])
    for (const words of [
      ["env", "create"],
      ["preload", "--no-warm"],
    ]) {
      const { code, stderr } = await node.run([...words, "-c", "./channel", name]);
      t.equal(code, 1, stderr);
      t.match(stderr, /\?\]0;title\?/);
      t.notMatch(stderr, /[\x07\x1b\x9b]/);
    }
});

test("errors show no password or token of a URL, whatever is wrong with it", async (t) => {
  const node = newNode(t);
  const url = "https://me:s3cret@127.0.0.1:1/t/t0ken/x";
  for (const words of [
    ["env", "create", "-c", "https://me:s3cret@ho st/x", "app"],
    ["env", "create", "-c", "./channel", `${url}::app`],
    ["env", "create", `${url}/lock.txt`],
    ["preload", "--json", "-c", "./channel", `${url}::app`],
    ["env", "create", `${url}/app-1.0-0.conda?sig=s3cret`],
    ["env", "ls", "--store", url],
    ["env", "ls", "--store", url, "--json"],
  ]) {
    const { code, stdout, stderr } = await node.run(words);
    t.not(code, 0);
    t.match(stdout + stderr, /https:\/\/(127|ho)/, words.join(" "));
    t.notMatch(stdout + stderr, /s3cret|t0ken/, words.join(" "));
  }
});

test("what is no secret is shown as it is", (t) => {
  for (const text of ["/t/x/y: a\n\tb", "https://h/x/t.txt", "at a@b, é", "file:///t/x/y"])
    t.equal(shown(text), text);
  t.end();
});

test("names of files reach a terminal without control characters, and a pipe as they are", async (t) => {
  const node = newNode(t);
  node.file(`tree/odd${ESCAPE}`, "");
  const layer = (await node.run(["layer", "import", "tree"])).stdout.trim();
  const piped = await node.run(["layer", "show", layer, "/"]);
  t.ok(piped.stdout.includes(`odd${ESCAPE}`), piped.stdout + piped.stderr);
  if (spawnSync("script", ["--version"]).status !== 0) return t.comment("skipped: no script(1)");
  const command = `${process.execPath} --no-warnings ${MAIN} layer show ${layer} /`;
  const words = ["-qec", command, "/dev/null"];
  const { stdout } = spawnSync("script", words, { env: node.env, encoding: "utf8" });
  t.match(stdout, /odd\?\]0;title\?\?31m/);
});
