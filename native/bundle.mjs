// Bundles the gofer into one file, dist/gofer.cjs: loading some thirty small modules costs a start more than running them.
import { build } from "esbuild";

await build({
  entryPoints: ["dist/lib/gofer/main.js"],
  outfile: "dist/gofer.cjs",
  bundle: true,
  platform: "node",
  target: "node20",
  format: "cjs",
  // Names stay, so that a logged trace can be read.
  minifyWhitespace: true,
  minifySyntax: true,
  logLevel: "warning",
  // The addon is found from the place of lib/sys/native.js, as in the unbundled program.
  define: { "import.meta.url": "moduleUrl" },
  banner: { js: 'const moduleUrl = "file://" + __dirname + "/lib/sys/native.js";' },
});
