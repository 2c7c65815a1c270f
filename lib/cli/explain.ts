// burrow explain: why a file of a view is what it is: the symlinks that lead to it, the snapshot that shows there, the package that it is
// of and those that it hides, the prefix that was written into it, its bytes in the store and on this node. Control plane.

import type { Command } from "commander";
import { BurrowError } from "../base/error.ts";
import { addCommonOptions, type Context, contextOf } from "./context.ts";
import { type Explained, explainPath } from "./explain-path.ts";
import { openExplained } from "./explain-view.ts";
import { counted, ExitCode, Progress, print, report, showBytes, table } from "./output.ts";

const EXAMPLES = `
A view is a snapshot's digest (an environment is seen at its prefix), or the id of mounts that
burrow bundle has made. A path is as the sandbox sees it; below the environment's prefix if it
doesn't begin with "/". Nothing is fetched to this node; of a store that can't be reached it is
said, and the rest is explained from what is here. Exits 1 when one of the paths isn't there.

Examples:
  burrow explain sha256:… bin/python
  burrow explain sha256:1f0c9a /opt/env/lib/libssl.so.3 --json
  burrow explain numpy /usr/bin/env /opt/env/bin/python3`;

export function addExplain(program: Command): void {
  addCommonOptions(program.command("explain"))
    .description(
      "say why a file of a view is what it is: its package, prefix, bytes, and whether they are here",
    )
    .argument("<view>", "a snapshot: its digest or first 6 digits; or the id of a bundle's mounts")
    .argument("<path...>", "files, directories or symlinks of it")
    .addHelpText("after", EXAMPLES)
    .action(async (view: string, paths: string[], options: { json?: boolean }) => {
      process.exitCode = await explainAll(contextOf(options), view, paths);
    });
}

async function explainAll(
  context: Context,
  text: string,
  paths: readonly string[],
): Promise<number> {
  const progress = new Progress(false, context.isJson);
  progress.update(`reading ${text}`);
  using view = await openExplained(context, text);
  const explained: Explained[] = [];
  let code: number = ExitCode.ok;
  for (const path of paths) {
    progress.update(`looking at ${path}`);
    try {
      explained.push(await explainPath(view, path));
    } catch (error) {
      if (!(error instanceof BurrowError) || error.code !== "BURROW_NOT_FOUND") throw error;
      progress.end();
      code = report(error, context.isJson);
    }
  }
  progress.end();
  for (const note of view.notes) progress.line(note);
  if (explained.length > 0) print(context.isJson, explained, explained.map(textOf).join("\n\n"));
  return code;
}

function textOf(explained: Explained): string {
  const { path, links, type, mode, uid, gid, place, owner, hides, prefix, content, below } =
    explained;
  const rows: [string, string][] = [];
  for (const link of links) rows.push(["symlink", `${link.path} -> ${link.target}`]);
  const names = content !== null && content.names > 1 ? `, ${content.names} names` : "";
  const size = content === null ? "" : `, ${showBytes(content.bytes)}`;
  rows.push([
    "is",
    `${type} ${explained.resolved}, mode ${mode}, owner ${uid}:${gid}${size}${names}`,
  ]);
  if (place === null) rows.push(["from", "nowhere: it is there for what is mounted below it"]);
  else rows.push(["snapshot", `${place.snapshot}, seen at ${place.at}`], ["store", place.origin]);
  if (owner !== null) {
    rows.push([owner.kind, owner.url === undefined ? owner.title : `${owner.title}, ${owner.url}`]);
    rows.push(["layer", owner.layer]);
  }
  for (const title of hides)
    rows.push(["hides", `the file of ${title}, which was installed before`]);
  if (prefix !== null) rows.push(["prefix", prefixText(prefix)]);
  if (content !== null) rows.push(...contentRows(content));
  for (const { title, files } of below ?? [])
    rows.push(["below", `${counted(files, "file")} of ${title}`]);
  return `${path}\n${table(rows.map(([name, text]) => [`  ${name}`, text]))}`;
}

function prefixText({
  written,
  placeholder,
  mode,
  before,
}: NonNullable<Explained["prefix"]>): string {
  const how = mode === "binary" ? "padded to its length" : "as text";
  const was = before === null ? "" : `; before that it was ${before}`;
  return `${written} was written for ${placeholder} (${placeholder.length} bytes), ${how}${was}`;
}

function contentRows(content: NonNullable<Explained["content"]>): [string, string][] {
  const { digest, here, blocks, stored } = content;
  const cut = blocks === 0 ? "" : `, ${counted(blocks, "block")}`;
  const rows: [string, string][] = [["content", `${digest}${cut}`]];
  if (stored !== null) {
    const packs = counted(stored.packs.length, "pack");
    const deltas = stored.deltas === 0 ? "" : `, ${counted(stored.deltas, "chunk")} as a delta`;
    rows.push(["stored", `${showBytes(stored.bytes)} in ${packs}${deltas}`]);
  }
  const HERE = {
    whole: "yes, whole: it is donated to a sandbox and never asked for again",
    partly: "in part: the daemon has fetched some blocks",
    no: "no: it is fetched when it is first read",
    empty: "it has no bytes",
  };
  rows.push(["here", HERE[here]]);
  return rows;
}
