// burrow cache show | verify | clear | pin | unpin | pins: what was fetched to this node, whether it is right, what stays, and getting
// rid of it. Control plane.

import { existsSync } from "node:fs";
import type { Command } from "commander";
import { type Digest, parseDigest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { evict, openCache, statCache, verifyCache } from "../cache/cache.ts";
import { daemonStatus, lookAgain, type RoomStatus } from "../cache/client.ts";
import type { CacheDirectory } from "../cache/directory.ts";
import { CACHE_MARKER } from "../cache/layout.ts";
import { listPins, pin, unpin } from "../cache/pins.ts";
import { addCommonOptions, type Context, contextOf } from "./context.ts";
import { theOne } from "./digests.ts";
import { counted, ExitCode, Progress, print, showBytes, table } from "./output.ts";
import { Packages } from "./packages.ts";
import { parseSize } from "./query.ts";

const CLEAR_HELP = `
Safe while sandboxes run: what they have open stays theirs, and what they ask for next is fetched
again. Of downloads that were broken off, those go that no live command is at.

Examples:
  burrow cache clear --to 10G
  burrow cache clear --cache /var/cache/burrow`;

export function addCache(program: Command): void {
  const cache = program.command("cache").description("what was fetched to this node");
  addCommonOptions(cache.command("show"))
    .alias("stats")
    .description("count what is in the cache, and say how near its limit it is")
    .addHelpText("after", "\nExample:\n  burrow cache show --json")
    .action(async (options) => {
      const context = contextOf(options);
      const cache = existing(context);
      const facts = { ...statCache(cache), pins: listPins(cache).map(showDigest) };
      const room = (await daemonStatus(context.cache))?.room;
      const rows = [
        ["cache", context.cache],
        ["files", `${facts.blobs}, ${showBytes(facts.blobBytes)}`],
        ["in part", String(facts.partials)],
        ["indexes", String(facts.indexes)],
        ["pinned", counted(facts.pins.length, "snapshot")],
        ...(room === undefined ? [["limit", "no daemon runs"]] : roomRows(room)),
      ];
      print(context.isJson, { ...facts, room: room ?? null }, table(rows));
    });
  addPins(cache);
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
    .action(async (options: { to?: string; cache?: string; state?: string; json?: boolean }) => {
      const context = contextOf(options);
      const maxBytes = options.to === undefined ? 0 : parseSize(options.to, "--to");
      const cache = existing(context);
      const progress = new Progress(false, context.isJson);
      progress.begin(`clearing ${context.cache}`);
      const say = ({ blobs, bytes }: { blobs: number; bytes: number }) =>
        `removed ${counted(blobs, "file")}, ${showBytes(bytes)}`;
      const removed = await evict(cache, maxBytes, (soFar) => progress.update(say(soFar)));
      const packages = new Packages(context.cache, []).clear();
      await lookAgain(context.cache);
      progress.end();
      const text = `${say(removed)}; downloads: ${packages.files}, ${showBytes(packages.bytes)}`;
      print(context.isJson, { ...removed, packages }, text);
    });
}

const PIN_HELP = `
What a pinned snapshot consists of is never evicted once it is here; bring it with "burrow preload".
"burrow cache clear" removes it all the same.

Example:
  burrow cache pin sha256:…`;

function addPins(cache: Command): void {
  addCommonOptions(cache.command("pin"))
    .description("keep the files of snapshots, whatever the limit")
    .argument(
      "<snapshot...>",
      "snapshots whose index is in the cache: digests, or their first 6 digits or more",
    )
    .addHelpText("after", PIN_HELP)
    .action(async (snapshots: string[], options) => {
      const context = contextOf(options);
      const cache = existing(context);
      const held = [...cache.digests("indexes")];
      const digests = snapshots.map(
        (text) => snapshotIn(cache, held, text) ?? unknown(cache, text),
      );
      for (const digest of digests) await pin(cache, digest);
      const names = digests.map(showDigest);
      print(context.isJson, { pinned: names }, `pinned ${counted(names.length, "snapshot")}`);
    });
  addCommonOptions(cache.command("unpin"))
    .description(
      "let the files of snapshots go when there is no more space; exits 1 when one wasn't pinned",
    )
    .argument("<snapshot...>", "digests of snapshots, or their first 6 digits or more")
    .addHelpText("after", "\nExample:\n  burrow cache unpin sha256:…")
    .action((snapshots: string[], options) => {
      const context = contextOf(options);
      const cache = existing(context);
      const pins = listPins(cache);
      const digests = snapshots.map((text) => snapshotIn(cache, pins, text));
      const isUnpinned = (digest?: Digest) => digest !== undefined && unpin(cache, digest);
      const names = digests.flatMap((digest) => (isUnpinned(digest) ? showDigest(digest!) : []));
      print(context.isJson, { unpinned: names }, `unpinned ${counted(names.length, "snapshot")}`);
      if (names.length < digests.length) process.exitCode = ExitCode.failed;
    });
  addCommonOptions(cache.command("pins"))
    .description("list pinned snapshots")
    .addHelpText("after", "\nExample:\n  burrow cache pins --json")
    .action((options) => {
      const context = contextOf(options);
      const names = listPins(existing(context)).map(showDigest);
      print(context.isJson, { pins: names }, names.join("\n") || "none");
    });
}

/** The snapshot that a text names, by its first digits where it is among `known`; stores need not be at hand. BURROW_USAGE. */
function snapshotIn(
  cache: CacheDirectory,
  known: readonly Digest[],
  text: string,
): Digest | undefined {
  return parseDigest(text) ?? theOne(text, known, { cache: cache.root });
}

function unknown(cache: CacheDirectory, snapshot: string): never {
  throw new BurrowError("BURROW_NOT_FOUND", "no such snapshot in the cache", {
    context: { snapshot, cache: cache.root },
  });
}

function roomRows(room: RoomStatus): string[][] {
  const { limitBytes, usedBytes, byFolder, evicted, evictedBytes, inUse } = room;
  const { inodes, freeInodes } = room;
  const limit = limitBytes === 0 ? "none" : showBytes(limitBytes);
  const folders = Object.entries(byFolder).map(([name, bytes]) => `${name} ${showBytes(bytes)}`);
  const counting = room.isSurveyed ? "" : ", still counting";
  const taken = `${showBytes(usedBytes)} (${folders.join(", ")})${counting}`;
  return [
    ["limit", limit],
    ...(limitBytes === 0 ? [] : [["taken", taken]]),
    // A daemon of an earlier version doesn't say.
    ...(inodes > 0 ? [["inodes", `${freeInodes} of the disk's ${inodes} are free`]] : []),
    ["evicted", `${counted(evicted, "file")}, ${showBytes(evictedBytes)}`],
    ["kept", `${counted(inUse, "time")}, since somebody had it open`],
  ];
}

/** The cache, which looking makes none of. BURROW_NOT_FOUND. */
function existing(context: Context) {
  if (existsSync(`${context.cache}/${CACHE_MARKER}`)) return openCache(context.cache);
  throw new BurrowError("BURROW_NOT_FOUND", "there is no cache", {
    context: { cache: context.cache },
  });
}
