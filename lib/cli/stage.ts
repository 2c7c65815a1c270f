// burrow stage create; and stages for a query: listed, pinned by their manifest's digest, indexed into the cache. Control plane.

import { statSync } from "node:fs";
import type { Command } from "commander";
import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { keepIndex } from "../cache/cache.ts";
import type { CacheDirectory } from "../cache/directory.ts";
import { ensureStageKey } from "../cache/stage-key.ts";
import { importStage } from "../ingest/stage/import.ts";
import { MANIFEST_NAME } from "../ingest/stage/manifest.ts";
import type { Listing } from "../ingest/stage/objects.ts";
import { createManifest } from "../ingest/stage/scan.ts";
import { IndexKind } from "../layer/format.ts";
import { writeIndex } from "../layer/writer.ts";
import { NO_TENANT } from "../store/object-pin.ts";
import { isS3 } from "../store/s3-place.ts";
import { counted, Progress, print, showBytes } from "./output.ts";

interface CreateOptions {
  quiet?: boolean;
  json?: boolean;
}

/** Keys that are named of those that can't be files. */
const SHOWN_MAX = 5;

const EXAMPLES = `
Reads every file of DIR once and writes DIR/${MANIFEST_NAME}, in place of an older
one. Any web server that answers ranges can then serve DIR. A directory on this machine needs none;
where there is one it counts, not the files: create it again after a change.

Examples:
  burrow stage create /srv/orders
  burrow run --base sha256:… --stage data=https://files.example/orders -- python3 /stage/data/query.py`;

export function addStage(program: Command): void {
  const stage = program.command("stage").description("make stages that others can fetch");
  stage
    .command("create")
    .argument("<dir>", "the files, as they are to be seen below /stage/NAME")
    .description(
      "write the manifest of a directory, so that it can be served by HTTP; print its digest",
    )
    .option("--quiet", "no progress")
    .option("--json", "results on stdout and errors on stderr as JSON")
    .addHelpText("after", EXAMPLES)
    .action(async (dir: string, options: CreateOptions) => {
      await createStage(dir, options);
    });
}

async function createStage(dir: string, options: CreateOptions): Promise<void> {
  if (isS3(dir)) {
    const advice = `one on S3 needs none: burrow run --stage NAME=${dir}`;
    throw new BurrowError(
      "BURROW_USAGE",
      `a manifest is made of a directory of this machine; ${advice}`,
    );
  }
  if (!isDirectory(dir)) throw new BurrowError("BURROW_USAGE", `${dir} is no directory`);
  const progress = new Progress(options.quiet === true, options.json === true);
  const { digest, manifest } = await createManifest(dir, { onFile: sayRead(progress, dir) });
  const files = manifest.files.length;
  const bytes = manifest.files.reduce((sum, file) => sum + file.size, 0);
  progress.line(`${dir}/${MANIFEST_NAME}: ${counted(files, "file")}, ${showBytes(bytes)}`);
  const text = showDigest(digest);
  print(options.json === true, { stage: text, files, bytes }, text);
}

/** Says how much of a directory was read; for many gigabytes it takes a while. */
function sayRead(progress: Progress, name: string): (file: { size: number }) => void {
  let [files, bytes] = [0, 0];
  return ({ size }) => {
    files++;
    bytes += size;
    progress.update(`${name}: ${counted(files, "file")}, ${showBytes(bytes)}`);
  };
}

/** Whether a path leads to a directory. */
export function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** What a stage of a bucket is, and what of the bucket isn't in it. */
function sayListing(progress: Progress, source: string, listing: Listing, bytes: number): void {
  const { objects, versioned, archived, skipped, skippedCount } = listing;
  const by = versioned === objects ? "version" : versioned === 0 ? "ETag" : "version or ETag";
  const of = `${counted(objects, "object")}, ${showBytes(bytes)}`;
  progress.line(`${source}: ${of}, pinned by ${by}`);
  if (archived > 0)
    progress.line(
      `${source}: ${counted(archived, "object")} archived: reading it fails until it is restored`,
    );
  if (skippedCount === 0) return;
  const shown = skipped
    .slice(0, SHOWN_MAX)
    .map(({ key, why }) => `${JSON.stringify(key)} (${why})`);
  const more = skippedCount > shown.length ? ` and ${skippedCount - shown.length} more` : "";
  progress.line(`${source}: left out ${shown.join(", ")}${more}`);
}

/** The snapshot of a stage as it is now, with its index in the cache. */
export async function importStageIndex(
  cache: CacheDirectory,
  source: string,
  progress: Progress,
  tenant: string,
): Promise<Digest> {
  const stage = await importStage(source, {
    onFile: sayRead(progress, source),
    onObjects: (count) => progress.update(`${source}: ${counted(count, "object")}`),
    ...(isS3(source) || tenant !== NO_TENANT
      ? { naming: { key: ensureStageKey(cache), tenant } }
      : {}),
  });
  if (stage.listing !== undefined) sayListing(progress, source, stage.listing, stage.bytes);
  if (stage.changed !== undefined) {
    const advice = `after a change: burrow stage create ${source}`;
    progress.line(`${source}: ${stage.changed} is served as ${MANIFEST_NAME} has it; ${advice}`);
  }
  return await keepIndex(cache, writeIndex(IndexKind.snapshot, stage.entries), stage.locator);
}
