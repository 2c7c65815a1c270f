// Makes the programs of dist/ that are started again and again: the modules of each in one file, since loading dozens of small ones
// costs a start more than running them, compiled ahead. dist/NAME.cjs is the program; it reads bundles/NAME.js and bundles/NAME.cache
// beside it. Without a cache that this Node.js takes, the bundle is compiled as any script is. Modules stay the source.
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { relative } from "node:path";
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
const gofersFlags = WANTED_FLAGS.filter(
  (flag) => spawnSync(process.execPath, [flag, "-e", ""], { env: bare }).status === 0,
);
/** Of Node.js's own, not V8's: one thread to compile and to collect beside the main one, of the four that there would be. */
const THREADS_FLAG = "--v8-pool-size=1";

/** In this order: flags of V8 stay set. */
const PROGRAMS = [
  { name: "burrow", entry: "dist/lib/cli/main.js", flags: [] },
  { name: "preload-worker", entry: "dist/lib/preload/worker.js", flags: [] },
  { name: "ninep", entry: "dist/lib/gofer/ninep-main.js", flags: [] },
  { name: "fuse", entry: "dist/lib/gofer/fuse-main.js", flags: [] },
  { name: "standby", entry: "dist/lib/gofer/standby.js", flags: [] },
  { name: "broker", entry: "dist/lib/gofer/broker.js", flags: [] },
  { name: "rehearsal-caller", entry: "dist/lib/gofer/rehearsal-caller.js", flags: [] },
  { name: "gofer", entry: "dist/lib/gofer/main.js", flags: gofersFlags },
];

/** A part that programs load when they need it, at that moment: it stays out of their files, since few commands do. */
const S3_SDK = { name: "s3-sdk", entry: "dist/lib/store/s3-sdk.js", flags: [] };

/** Left in node_modules/: native code, and what no command needs. */
const EXTERNAL = ["lz4-napi", "memfs"];

const loaderOf = (name) => `// Made by native/bundle.mjs.
const { readFileSync } = require("node:fs");
const { Script } = require("node:vm");
const path = __dirname + "/bundles/${name}";
let cachedData;
try {
  cachedData = readFileSync(path + ".cache");
} catch {}
const script = new Script(readFileSync(path + ".js", "latin1"), { filename: path + ".js", cachedData });
script.runInThisContext()(require, require("node:url").pathToFileURL(__dirname).href + "/", module);
`;

/** Each module goes on knowing where it lies, and so finds the addon and other programs as it does unbundled. */
const placed = {
  name: "placed",
  setup({ onLoad }) {
    onLoad({ filter: /\/dist\/lib\/.*\.js$/ }, ({ path }) => {
      const url = `(distUrl + ${JSON.stringify(relative("dist", path))})`;
      return { contents: readFileSync(path, "utf8").replaceAll("import.meta.url", url) };
    });
  },
};

/** Programs find the part beside them. */
const apart = {
  name: "apart",
  setup({ onResolve }) {
    onResolve({ filter: /\/s3-sdk\.js$/ }, ({ kind }) =>
      kind === "entry-point" ? undefined : { path: `./${S3_SDK.name}.cjs`, external: true },
    );
  },
};

/** Appears whole or not at all: the program may be starting meanwhile. */
function write(path, content) {
  writeFileSync(`${path}.new`, content);
  renameSync(`${path}.new`, path);
}

/** A program's modules as one script that gives a function of `require`, the URL of dist/ and, for a part's exports, `module`. */
async function bundle(entry) {
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    platform: "node",
    target: "node20",
    format: "cjs",
    // A script has no import(): what it would load is required, at the same moment.
    supported: { "dynamic-import": false },
    external: EXTERNAL,
    plugins: [placed, apart],
    // Names stay, so that a logged trace can be read. The output is ASCII, so latin1 reads it.
    minifyWhitespace: true,
    minifySyntax: true,
    logLevel: "warning",
  });
  return `(function (require, distUrl, module) {\n${outputFiles[0].text}\n})`;
}

// A cache that is refused is passed over in silence: look at it here.
const CHECK = `
const { readFileSync } = require("node:fs");
const path = process.argv[1];
const cachedData = readFileSync(path + ".cache");
const source = readFileSync(path + ".js", "latin1");
if (new (require("node:vm").Script)(source, { cachedData }).cachedDataRejected) throw new Error("the code cache is refused");
`;

mkdirSync("dist/bundles", { recursive: true });
for (const { name, entry, flags } of [S3_SDK, ...PROGRAMS]) {
  const source = await bundle(entry);
  for (const flag of flags) setFlagsFromString(flag);
  // Every function is compiled now, not when it is first called. The flag is part of what a cache is checked for: put it back.
  setFlagsFromString("--no-lazy");
  const script = new Script(source, { filename: `${name}.js` });
  setFlagsFromString("--lazy");
  const path = `dist/bundles/${name}`;
  // V8 compares a cache with the length of a source, no more: the two of different builds must not be seen together.
  rmSync(`${path}.cache`, { force: true });
  write(`${path}.js`, source);
  write(`${path}.cache`, script.createCachedData());
  write(`dist/${name}.cjs`, loaderOf(name));
  execFileSync(process.execPath, [...flags, "-e", CHECK, path], { env: bare, stdio: "inherit" });
}
write("dist/gofer.cjs.flags", `${[...gofersFlags, THREADS_FLAG].join("\n")}\n`);
