// burrow profile show | push | compose | rm: what this node has learned of how sandboxes start over a snapshot (docs/design/0022-profiles.md,
// 0027-learned-starts.md).
// Control plane.

import { existsSync, readFileSync } from "node:fs";
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
import type { Backend } from "../store/store.ts";
import { addCommonOptions, type Context, contextOf } from "./context.ts";
import { findDigest } from "./digests.ts";
import { readEnvironment } from "./environment.ts";
import { counted, Progress, print } from "./output.ts";
import { composeProfile, pushPackages, putProfile } from "./package-profiles.ts";
import { addProfileRemove, environmentOf } from "./profile-rm.ts";
import { commandKey } from "./query.ts";
import { tenantOf } from "./query-settings.ts";
import { readIndex } from "./read-index.ts";

const GROUP_HELP = `
The daemon notes what the starts of a snapshot read, by command, and fetches it ahead of the next
one.

Examples:
  burrow profile show sha256:… > profile.txt
  burrow profile push sha256:…
  burrow profile compose sha256:…
  burrow profile rm sha256:…`;

const SHOW_HELP = `
In the order in which they were read: a list that "burrow preload --profile" and "burrow store
repack --profile" take.

Examples:
  burrow profile show sha256:… -- python3 query.py
  burrow profile show sha256:… > profile.txt
  burrow preload --profile profile.txt sha256:…`;

const PUSH_HELP = `
It is put beside the snapshot, and what was read of each package beside that. Nodes that have
learned nothing of a snapshot yet begin with what the store has; environments that are created later
with what it has of their packages.

Example:
  burrow profile push sha256:…`;

const COMPOSE_HELP = `
For one that was there before others taught the store ("burrow profile push"): those that are
created later have it by themselves.

Example:
  burrow profile compose sha256:…`;

interface ShowOptions {
  tenant?: string;
  json?: boolean;
}

export function addProfile(program: Command): void {
  const profile = program
    .command("profile")
    .description("what was learned of how sandboxes start")
    .addHelpText("after", GROUP_HELP);
  addCommonOptions(profile.command("show"))
    .description("print the files that starts of a snapshot read")
    .argument("<snapshot>", "its digest, or the first digits of it")
    .argument("[command...]", "after --: what its own starts read, or else those of all")
    .option("--tenant <NAME>", "whose starts of the command they are ($BURROW_TENANT)")
    .addHelpText("after", SHOW_HELP)
    .action(async (text: string, words: string[], options: ShowOptions) => {
      await show(contextOf(options), text, words, tenantOf(options.tenant));
    });
  addCommonOptions(profile.command("push"))
    .description("put what this node has learned into the store, for other nodes")
    .argument("<snapshot...>", "their digests, or the first digits of these")
    .addHelpText("after", PUSH_HELP)
    .action(async (texts: string[], options) => {
      await push(contextOf(options), texts);
    });
  addCommonOptions(profile.command("compose"))
    .description("have an environment begin with what the starts of others read of its packages")
    .argument("<environment...>", "their digests, or the first digits of these")
    .addHelpText("after", COMPOSE_HELP)
    .action(async (texts: string[], options) => {
      await compose(contextOf(options), texts);
    });
  addProfileRemove(profile);
}

async function show(
  context: Context,
  text: string,
  words: readonly string[],
  tenant: string,
): Promise<void> {
  const digest = await findDigest(context, text);
  const profile = learned(context, digest);
  const command = commandKey(words, tenant);
  if (!profile.knows(command)) {
    const what = "no start of this command has taught anything yet";
    new Progress(false, context.isJson).line(`${what}: begins with what those of all read`);
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
  const what = `nothing was learned of ${showDigest(digest)}: no start of it has read a file yet`;
  throw new BurrowError("BURROW_NOT_FOUND", what, { context: { cache: context.cache } });
}

async function push(context: Context, texts: readonly string[]): Promise<void> {
  refuseReadOnly(context.store);
  const digests: Digest[] = [];
  for (const text of texts) digests.push(await findDigest(context, text));
  const profiles = digests.map((digest) => learned(context, digest));
  const progress = new Progress(false, context.isJson);
  let packages = 0;
  await writingStore(context.store, "profile push", async (store) => {
    for (const profile of profiles) {
      await checkSnapshot(store, profile.snapshot, context.store);
      await putProfile(store, profile);
      const environment = await environmentOf(store, profile.snapshot);
      if (environment !== undefined) packages += await pushPackages(store, profile, environment);
    }
  });
  if (packages > 0) {
    const what = `has what these starts read of ${counted(packages, "package")}`;
    progress.line(`the store ${what}: environments made of them from now on begin with that`);
  }
  const pushed = digests.map(showDigest);
  print(context.isJson, { pushed, packages }, pushed.join("\n"));
}

async function compose(context: Context, texts: readonly string[]): Promise<void> {
  refuseReadOnly(context.store);
  const progress = new Progress(false, context.isJson);
  const snapshots: { snapshot: string; packages: number }[] = [];
  await writingStore(context.store, "profile compose", async (store) => {
    for (const text of texts) {
      const digest = await findDigest(context, text);
      await checkSnapshot(store, digest, context.store);
      const packages = await composeProfile(store, digest, await readEnvironment(store, digest));
      snapshots.push({ snapshot: showDigest(digest), packages });
      progress.line(`${counted(packages, "package")} of which the store knows what starts read`);
    }
  });
  const composed = snapshots.map(({ snapshot }) => snapshot);
  print(context.isJson, { composed: snapshots }, composed.join("\n"));
}

async function checkSnapshot(store: Backend, digest: Digest, origin: string): Promise<void> {
  if (await store.has(objectPath("locators", digest))) return;
  const what = `the store has no snapshot ${showDigest(digest)}`;
  throw new BurrowError("BURROW_NOT_FOUND", what, { context: { store: origin } });
}
