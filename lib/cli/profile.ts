// burrow profile show | push | rm: what this node has learned of how sandboxes start over a snapshot (docs/design/0022-profiles.md).
// Control plane.

import { existsSync, readFileSync, rmSync } from "node:fs";
import type { Command } from "commander";
import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { showName } from "../base/name.ts";
import { openCache } from "../cache/cache.ts";
import { entriesOf } from "../layer/entries.ts";
import type { Index } from "../layer/index.ts";
import { Profile, type ProfileAsk } from "../preload/profile.ts";
import { objectPath } from "../store/layout.ts";
import { openOrigin, refuseReadOnly, writingStore } from "../store/open.ts";
import { classOf } from "../store/store.ts";
import { addCommonOptions, type Context, contextOf } from "./context.ts";
import { findDigest } from "./digests.ts";
import { Progress, print } from "./output.ts";
import { commandKey } from "./query.ts";
import { readIndex } from "./read-index.ts";

const HELP = `
The daemon notes what the starts of a snapshot had to wait for, by command, and fetches it ahead of the next one. "show" prints the
files, in the order in which they were asked for: a list that "burrow preload --profile" takes. "push" puts it into the store, beside
the snapshot: nodes that have learned nothing of it yet begin with that. "rm" has this node forget it.

Examples:
  burrow profile show sha256:… > profile.txt
  burrow profile show sha256:… -- python3 query.py
  burrow preload --profile profile.txt sha256:…
  burrow profile push sha256:…
  burrow profile rm sha256:…`;

interface ShowOptions {
  json?: boolean;
}

export function addProfile(program: Command): void {
  const profile = program
    .command("profile")
    .description("what was learned of how sandboxes start")
    .addHelpText("after", HELP);
  addCommonOptions(profile.command("show"))
    .description("print the files that starts of a snapshot had to wait for")
    .argument("<snapshot>", "its digest, or the first digits of it")
    .argument("[command...]", "after --: what its own starts had to wait for, or else those of all")
    .addHelpText("after", HELP)
    .action(async (text: string, words: string[], options: ShowOptions) => {
      await show(contextOf(options), text, words);
    });
  addCommonOptions(profile.command("push"))
    .description("put what this node has learned into the store, for other nodes")
    .argument("<snapshot...>", "their digests, or the first digits of these")
    .addHelpText("after", HELP)
    .action(async (texts: string[], options) => {
      await push(contextOf(options), texts);
    });
  addCommonOptions(profile.command("rm"))
    .description("forget what this node has learned")
    .argument("<snapshot...>", "their digests, or the first digits of these")
    .addHelpText("after", HELP)
    .action(async (texts: string[], options) => {
      await remove(contextOf(options), texts);
    });
}

async function show(context: Context, text: string, words: readonly string[]): Promise<void> {
  const digest = await findDigest(context, text);
  const profile = learned(context, digest);
  const command = commandKey(words);
  if (!profile.knows(command)) {
    const what = "no start of this command has waited for a file yet";
    new Progress(false, context.isJson).line(`${what}: begins with what those of all have`);
  }
  const index = await readIndex(openOrigin(context.store), digest);
  const asks = profile.asks(command).filter(({ row }) => row < index.blobCount);
  const paths = pathsOf(index, asks);
  const files = asks.flatMap(({ row, first, count }) => {
    const path = paths.get(index.blobDigest(row));
    return path === undefined ? [] : [{ path: showName(path), ...(count > 0 && { first, count }) }];
  });
  const lines = [...new Set(files.map(({ path }) => path))];
  print(context.isJson, { snapshot: showDigest(digest), files }, lines.join("\n"));
}

/** A path of each blob that is asked for, latin1, by its digest. */
function pathsOf(index: Index, asks: readonly ProfileAsk[]): Map<Digest, string> {
  const wanted = new Set(asks.map(({ row }) => index.blobDigest(row)));
  const paths = new Map<Digest, string>();
  for (const entry of entriesOf(index)) {
    if (entry.type !== "file" || !wanted.has(entry.blob.digest)) continue;
    if (!paths.has(entry.blob.digest)) paths.set(entry.blob.digest, entry.path);
  }
  return paths;
}

/** What this node has learned. BURROW_NOT_FOUND, BURROW_CORRUPT. */
function learned(context: Context, digest: Digest): Profile {
  const path = openCache(context.cache).path("profiles", digest);
  if (existsSync(path)) return Profile.decode(readFileSync(path), digest);
  const what = `nothing was learned of ${showDigest(digest)}: no start of it has waited for a file yet`;
  throw new BurrowError("BURROW_NOT_FOUND", what, { context: { cache: context.cache } });
}

async function push(context: Context, texts: readonly string[]): Promise<void> {
  refuseReadOnly(context.store);
  const digests: Digest[] = [];
  for (const text of texts) digests.push(await findDigest(context, text));
  const profiles = digests.map((digest) => learned(context, digest));
  await writingStore(context.store, "profile push", async (store) => {
    for (const profile of profiles) {
      const path = objectPath("profiles", profile.snapshot);
      if (!(await store.has(objectPath("locators", profile.snapshot)))) {
        const what = `the store has no snapshot ${showDigest(profile.snapshot)}`;
        throw new BurrowError("BURROW_NOT_FOUND", what, { context: { store: context.store } });
      }
      const there = await store.get(path).catch((error: unknown) => {
        if (classOf(error) === "notFound") return undefined;
        throw error;
      });
      if (there !== undefined) profile.join(Profile.decode(there, profile.snapshot));
      await store.put(path, profile.encode());
    }
  });
  const pushed = digests.map(showDigest);
  print(context.isJson, { pushed }, pushed.join("\n"));
}

async function remove(context: Context, texts: readonly string[]): Promise<void> {
  const cache = openCache(context.cache);
  const removed: string[] = [];
  const progress = new Progress(false, context.isJson);
  for (const text of texts) {
    const digest = await findDigest(context, text);
    const path = cache.path("profiles", digest);
    if (existsSync(path)) {
      rmSync(path, { force: true });
      removed.push(showDigest(digest));
    } else progress.line(`nothing was learned of ${showDigest(digest)}`);
  }
  if (context.isJson || removed.length > 0) print(context.isJson, { removed }, removed.join("\n"));
}
