// Makes dist/gofer.cjs, the program that the stub starts: the gofer's modules in one file (loading some thirty small ones costs a
// start more than running them), compiled ahead (docs/design/0003-server-start.md). Leaves beside it gofer-bundle.js and
// gofer-bundle.cache; without a cache that this Node.js takes, the bundle is compiled as any script is.
import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { setFlagsFromString } from "node:v8";
import { Script } from "node:vm";
import { build } from "esbuild";

/**
 * What the server's start and its first second gain by (docs/design/0003-server-start.md): code is optimized later, since a start is
 * over before that pays; and the hash seed of V8's snapshot is kept, since choosing another costs a third of the start. (What a seed
 * guards against, names made to collide, could slow only the server of the sandbox that made them.) node refuses flags that its V8
 * doesn't have, so each is tried. native/stub reads the file: V8 takes a code cache only under the flags that it was made with.
 */
const WANTED_FLAGS = ["--interrupt-budget=1000000", "--no-rehash-snapshot"];
const bare = { ...process.env, NODE_OPTIONS: "" };
const flags = WANTED_FLAGS.filter(
  (flag) => spawnSync(process.execPath, [flag, "-e", ""], { env: bare }).status === 0,
);

const LOADER = `// Made by native/bundle.mjs.
const { readFileSync } = require("node:fs");
const { Script } = require("node:vm");
const path = __dirname + "/gofer-bundle";
let cachedData;
try {
  cachedData = readFileSync(path + ".cache");
} catch {}
const script = new Script(readFileSync(path + ".js", "latin1"), { filename: path + ".js", cachedData });
script.runInThisContext()(require, __dirname);
`;

/** Appears whole or not at all: a gofer may be starting meanwhile. */
function write(path, content) {
  writeFileSync(`${path}.new`, content);
  renameSync(`${path}.new`, path);
}

const { outputFiles } = await build({
  entryPoints: ["dist/lib/gofer/main.js"],
  bundle: true,
  write: false,
  platform: "node",
  target: "node20",
  format: "cjs",
  // Names stay, so that a logged trace can be read. The output is ASCII, so latin1 reads it.
  minifyWhitespace: true,
  minifySyntax: true,
  logLevel: "warning",
  // The addon is found from the place of lib/sys/native.js, as in the unbundled program.
  define: { "import.meta.url": "moduleUrl" },
});
const source = `(function (require, __dirname) {
const moduleUrl = "file://" + __dirname + "/lib/sys/native.js";
${outputFiles[0].text}
})`;

for (const flag of flags) setFlagsFromString(flag);
// Every function is compiled now, not when it is first called. The flag is part of what a cache is checked for: put it back.
setFlagsFromString("--no-lazy");
const script = new Script(source, { filename: "gofer-bundle.js" });
setFlagsFromString("--lazy");
write("dist/gofer-bundle.js", source);
write("dist/gofer-bundle.cache", script.createCachedData());
write("dist/gofer.cjs", LOADER);
write("dist/gofer.cjs.flags", `${flags.join("\n")}\n`);

// A cache that is refused is passed over in silence: look now.
const CHECK = `
const { readFileSync } = require("node:fs");
const cachedData = readFileSync("dist/gofer-bundle.cache");
const source = readFileSync("dist/gofer-bundle.js", "latin1");
if (new (require("node:vm").Script)(source, { cachedData }).cachedDataRejected) throw new Error("the code cache is refused");
`;
execFileSync(process.execPath, [...flags, "-e", CHECK], { env: bare, stdio: "inherit" });
