// burrow trace report | summary: what a trace that burrow run --trace wrote says of a start. Control plane.

import type { Command } from "commander";
import { checkWritable, counted, print, showBytes, table, writeText } from "./output.ts";
import { readTraceFile } from "./trace-file.ts";
import { tracePage } from "./trace-page.ts";
import { summarize, type TraceSummary } from "./trace-summary.ts";

const RECORD =
  "burrow run --base sha256:… --env sha256:… --trace start.jsonl -- python3 -c 'import pandas'";
const HELP = `
A trace is what "burrow run --trace FILE" writes: each request of the sandbox, what it waited for,
what the daemon fetched.

Examples:
  ${RECORD}`;

export function addTrace(program: Command): void {
  const trace = program.command("trace").description("see where the time of a start goes");
  trace.addHelpText("after", `${HELP}\n  burrow trace summary start.jsonl`);
  trace
    .command("report")
    .description("write a trace as one page for a browser, which needs nothing else")
    .argument("<file>", "a trace")
    .requiredOption("-o, --output <FILE>", "the page")
    .option("--json", "say what was written as JSON")
    .addHelpText("after", `${HELP}\n  burrow trace report start.jsonl -o start.html`)
    .action((file: string, options: { output: string; json?: boolean }) => {
      checkWritable(options.output, "--output");
      const page = tracePage(readTraceFile(file));
      writeText(options.output, page);
      const bytes = Buffer.byteLength(page);
      const text = `${options.output}: ${showBytes(bytes)}`;
      print(options.json === true, { output: options.output, bytes }, text);
    });
  trace
    .command("summary")
    .description("print what was read of each package, and what was waited for")
    .argument("<file>", "a trace")
    .option("--json", "all figures, as JSON")
    .addHelpText("after", `${HELP}\n  burrow trace summary start.jsonl`)
    .action((file: string, options: { json?: boolean }) => {
      const summary = summarize(readTraceFile(file));
      print(options.json === true, summary, show(summary));
    });
}

function show(of: TraceSummary): string {
  const byName = Object.entries(of.rpcsByName).map(([name, count]) => `${name} ${count}`);
  const used = of.prefetchedBytes - of.wastedBytes;
  const totals = [
    ["time", `${showMs(of.ms)}, in ${showMs(of.blockedMs)} of it something waited for bytes`],
    ["requests", `${of.rpcs}, ${showMs(of.rpcMs)} in the gofer: ${byName.join(", ")}`],
    ["waits", `${of.misses}, ${showMs(of.waitedMs)} together`],
    ["first reads", `${of.firstReads}, ${share(of.firstReadsLocal, of.firstReads)} found here`],
    ["fetched", `${showBytes(of.fetchedBytes)} in ${counted(of.fetches, "request")}`],
    [
      "ahead",
      `${showBytes(of.prefetchedBytes)}, ${share(used, of.prefetchedBytes)} of files that were opened`,
    ],
    ...(of.dropped === 0 ? [] : [["lost", `${counted(of.dropped, "event")} found no room`]]),
  ];
  const head = ["PACKAGE", "FILES READ", "OF", "BYTES READ", "OF", "WAITS", "WAITED", "IN VAIN"];
  const rows = [...of.packages]
    .sort((a, b) => b.readBytes - a.readBytes)
    .map((each) => [
      each.title,
      `${each.filesRead}`,
      `${each.files}`,
      showBytes(each.readBytes),
      showBytes(each.bytes),
      `${each.misses}`,
      showMs(each.waitedMs),
      showBytes(each.wastedBytes),
    ]);
  const never = of.neverRead.length === 0 ? [] : [`never read: ${of.neverRead.join(", ")}`];
  return [table(totals), "", table([head, ...rows]), ...never].join("\n");
}

function share(part: number, all: number): string {
  return all === 0 ? "none" : `${Math.round((100 * part) / all)}%`;
}

function showMs(ms: number): string {
  return ms >= 1_000 ? `${(ms / 1_000).toFixed(2)} s` : `${ms.toFixed(1)} ms`;
}
