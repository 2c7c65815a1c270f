// The page of burrow trace report: one file, which loads nothing and runs nothing but its own script, whatever the names in a trace are:
// they are data in it, escaped, and a policy forbids all else. lib/cli/page/ has its script and style. Control plane.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import type { TraceContent } from "./trace-file.ts";
import { summarize, summarizeFiles } from "./trace-summary.ts";

/** The project's own files are beside dist/, as package.json is. */
const PAGE = new URL("../../../lib/cli/page/", import.meta.url);

/** The whole page. Throws what reading the program's own files throws. */
export function tracePage(trace: TraceContent): string {
  const script = readFileSync(new URL("trace.js", PAGE), "utf8");
  const style = readFileSync(new URL("trace.css", PAGE), "utf8");
  const policy = `default-src 'none'; script-src '${sumOf(script)}'; style-src '${sumOf(style)}'; base-uri 'none'; form-action 'none'`;
  const title = escaped(`Trace of ${trace.head.command.join(" ")}`);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width">
<title>${title}</title>
<style>${style}</style>
</head>
<body>
<h1></h1>
<p id="about"></p>
<div id="totals"></div>
<div id="controls">
<input type="search" placeholder="filter: path, package, request" aria-label="filter">
<button id="reset" type="button">show all</button>
<div id="legend"><span><i class="rpc"></i>request</span><span><i class="miss"></i>waits for bytes</span><span><i class="fetch"></i>fetch, or came ahead and was used</span><span><i class="background"></i>in the background</span><span><i class="wasted"></i>came ahead in vain, or failed</span></div>
</div>
<p>Wheel: zoom; drag: move; double click: all of it; a row of a table: filter by it.</p>
<div id="chart"><canvas></canvas><div id="tip" hidden></div></div>
<h2>By package</h2>
<p id="never"></p>
<div class="scroll"><table id="packages"></table></div>
<h2>By file</h2>
<p id="shown"></p>
<div class="scroll"><table id="files"></table></div>
<script type="application/json" id="trace">${jsonOf(trace)}</script>
<script>${script}</script>
</body>
</html>
`;
}

function sumOf(text: string): string {
  return `sha256-${createHash("sha256").update(text).digest("base64")}`;
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** In rows of numbers, so that 50,000 events are some 2 MB. No "<" in it could end its element, or begin a comment. */
function jsonOf(trace: TraceContent): string {
  const { head, packages, files, marks, rpcs, misses, fetches, prefetches } = trace;
  const tallies = summarizeFiles(trace);
  const names = [...new Set(rpcs.map(({ name }) => name))];
  const origins = [...new Set(fetches.map(({ origin }) => origin))];
  const numberOf = (all: readonly string[]) => new Map(all.map((one, i) => [one, i]));
  const [nameNumbers, originNumbers] = [numberOf(names), numberOf(origins)];
  const page = {
    head,
    summary: summarize(trace, tallies),
    packages,
    names,
    origins,
    marks,
    files: files.map(({ path, bytes, package: of }) => [path, bytes, of]),
    fileTallies: tallies.map((of, i) => [
      i,
      of.requests,
      of.misses,
      of.waitedMs,
      of.prefetchedBytes,
      of.wastedBytes,
    ]),
    rpcs: rpcs.map(({ ms, us, name, file, errno, page: at, count }) => {
      return [ms, us, nameNumbers.get(name), file, errno, at, count];
    }),
    misses: misses.map(({ ms, us, file, errno, block }) => [ms, us, file, errno, block]),
    fetches: fetches.map(({ ms, us, origin, path, offset, bytes, isDemand }) => {
      return [ms, us, originNumbers.get(origin), path, offset, bytes, isDemand];
    }),
    prefetches: prefetches.map(({ ms, file, block, bytes, isUsed }) => {
      return [ms, 0, file, block, bytes, isUsed];
    }),
  };
  return JSON.stringify(page).replaceAll("<", "\\u003c");
}
