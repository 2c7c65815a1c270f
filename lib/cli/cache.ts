// burrow cache show | verify | clear: what was fetched to this node, whether it is right, and getting rid of it. Control plane.

import { existsSync } from "node:fs";
import type { Command } from "commander";
import { showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { evict, openCache, statCache, verifyCache } from "../cache/cache.ts";
import { CACHE_MARKER } from "../cache/layout.ts";
import { addCommonOptions, type Context, contextOf } from "./context.ts";
import { counted, ExitCode, Progress, print, showBytes, table } from "./output.ts";
import { Packages } from "./packages.ts";
import { parseSize } from "./query.ts";

const CLEAR_HELP = `
Safe while sandboxes run: what they have open stays theirs, and what they ask for next is fetched again. Of downloads that were broken
off, those go that no live command is at.

Examples:
  burrow cache clear --to 10G
  burrow cache clear --cache /var/cache/burrow`;

export function addCache(program: Command): void {
  const cache = program.command("cache").description("what was fetched to this node");
  addCommonOptions(cache.command("show"))
    .description("count what is in the cache")
    .addHelpText("after", "\nExample:\n  burrow cache show --json")
    .action((options) => {
      const context = contextOf(options);
      const facts = statCache(existing(context));
      const rows = [
        ["cache", context.cache],
        ["files", `${facts.blobs}, ${showBytes(facts.blobBytes)}`],
        ["in part", String(facts.partials)],
        ["indexes", String(facts.indexes)],
      ];
      print(context.isJson, facts, table(rows));
    });
  addCommonOptions(cache.command("verify"))
    .description("hash every file of the cache and drop those that are wrong; exits 1 when any was")
    .addHelpText("after", "\nExample:\n  burrow cache verify --json")
    .action(async (options) => {
      const context = contextOf(options);
      const cache = existing(context);
      const progress = new Progress(false, context.isJson);
      progress.begin(`checking ${context.cache}`);
      const say = (count: number) => progress.update(`checking ${counted(count, "file")}`);
      const { checked, wrong } = await verifyCache(cache, say);
      progress.end();
      const names = wrong.map(showDigest);
      const text = [`${counted(checked, "file")}, ${wrong.length} of them wrong`, ...names];
      print(context.isJson, { checked, wrong: names }, text.join("\n"));
      if (wrong.length > 0) process.exitCode = ExitCode.failed;
    });
  addCommonOptions(cache.command("clear"))
    .description("remove files from the cache, those used longest ago first")
    .option("--to <SIZE>", "leave this much")
    .addHelpText("after", CLEAR_HELP)
    .action((options: { to?: string; cache?: string; state?: string; json?: boolean }) => {
      const context = contextOf(options);
      const maxBytes = options.to === undefined ? 0 : parseSize(options.to, "--to");
      const cache = existing(context);
      const progress = new Progress(false, context.isJson);
      progress.begin(`clearing ${context.cache}`);
      const say = ({ blobs, bytes }: { blobs: number; bytes: number }) =>
        `removed ${counted(blobs, "file")}, ${showBytes(bytes)}`;
      const removed = evict(cache, maxBytes, (soFar) => progress.update(say(soFar)));
      const packages = new Packages(context.cache, []).clear();
      progress.end();
      const text = `${say(removed)}; downloads: ${packages.files}, ${showBytes(packages.bytes)}`;
      print(context.isJson, { ...removed, packages }, text);
    });
}

/** The cache, which looking makes none of. BURROW_NOT_FOUND. */
function existing(context: Context) {
  if (existsSync(`${context.cache}/${CACHE_MARKER}`)) return openCache(context.cache);
  throw new BurrowError("BURROW_NOT_FOUND", "there is no cache", {
    context: { cache: context.cache },
  });
}
