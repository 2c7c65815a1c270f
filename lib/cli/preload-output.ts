// What burrow preload says while it works: bars on a terminal, plain lines elsewhere, events as JSON lines with --json; and what it
// adds up to. Control plane.

import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError, explain } from "../base/error.ts";
import { showName } from "../base/name.ts";
import type { ExplicitPackage } from "../ingest/conda/explicit.ts";
import { labelOf, type PreloadEvent } from "../preload/preloader.ts";
import { Board, bar, type Screen } from "./board.ts";
import { codeOf, counted, ExitCode, showBytes, shown, shownContext } from "./output.ts";
import type { Warmth } from "./warm.ts";

/** The figures of the end. Packages count once for each list that they are in. */
export interface PreloadTotals {
  packages: number;
  ingested: number;
  present: number;
  failed: number;
  /** Over the network, now. */
  fetchedBytes: number;
  /** Of files in the packages that were ingested. */
  contentBytes: number;
  /** New in the store, as packed. */
  storedBytes: number;
  /** Blobs brought into this node's cache, and those that were there. */
  warmedBlobs: number;
  warmedBytes: number;
  warmBlobs: number;
  failures: number;
}

export interface OutputOptions {
  readonly isJson: boolean;
  readonly isQuiet: boolean;
  /** Where bars go; none when stderr is no terminal. */
  readonly screen: Screen | undefined;
}

export class PreloadOutput {
  readonly totals: PreloadTotals = {
    packages: 0,
    ingested: 0,
    present: 0,
    failed: 0,
    fetchedBytes: 0,
    contentBytes: 0,
    storedBytes: 0,
    warmedBlobs: 0,
    warmedBytes: 0,
    warmBlobs: 0,
    failures: 0,
  };
  readonly #options: OutputOptions;
  readonly #board: Board | undefined;
  readonly #startMs = Date.now();
  readonly #keys = new Map<ExplicitPackage, string>();
  #warming: Digest | undefined;
  #isMisused = true;

  constructor(options: OutputOptions) {
    this.#options = options;
    const { screen, isJson, isQuiet } = options;
    this.#board = screen && !isJson && !isQuiet ? new Board(screen) : undefined;
  }

  /** Says how much there is to do. */
  begin(packages: number, jobs: number): void {
    this.totals.packages = packages;
    this.#event("begin", { packages, jobs });
    this.#drawTotal();
  }

  /** What became of a package. */
  take(event: PreloadEvent): void {
    const { item } = event;
    const { name, source } = labelOf(item);
    const key = this.#key(item);
    const facts = { package: name };
    switch (event.event) {
      case "fetching": {
        const { size } = item;
        const part = size === undefined ? showBytes(event.bytes) : bar(event.bytes, size);
        this.#board?.set(key, `${name}: fetch ${part}`);
        return;
      }
      case "fetched": {
        const { bytes, fetchedBytes } = event.archive;
        this.totals.fetchedBytes += fetchedBytes;
        this.#board?.set(key, `${name}: waits for a worker`);
        this.#event("fetched", { ...facts, source, bytes, fetchedBytes });
        return;
      }
      case "ingesting":
        this.#board?.set(
          key,
          `${name}: ${counted(event.files, "file")}, ${showBytes(event.bytes)}`,
        );
        return;
      case "ingested":
        this.#ingested(event, name, source);
        break;
      case "present":
        this.totals.present++;
        this.#event("present", { ...facts, layer: showDigest(event.layer) });
        break;
      case "failed":
        this.totals.failed++;
        this.fail(event.error, { ...facts, source });
    }
    this.#board?.set(key, undefined);
    this.#drawTotal();
  }

  #ingested(
    event: Extract<PreloadEvent, { event: "ingested" }>,
    name: string,
    source: string,
  ): void {
    const { files, contentBytes, storedBytes, warnings, layer } = event;
    this.totals.ingested++;
    this.totals.contentBytes += contentBytes;
    this.totals.storedBytes += storedBytes;
    const figures = { files, contentBytes, storedBytes };
    this.#event("ingested", {
      package: name,
      source,
      ...figures,
      layer: showDigest(layer),
      warnings,
    });
    const count = `[${this.#doneCount}/${this.totals.packages}]`;
    const sizes = `${counted(files, "file")}, ${showBytes(contentBytes)}, new in the store ${showBytes(storedBytes)}`;
    this.line(`${count} ${name}: ${sizes}`);
    for (const warning of warnings) this.line(`  ${warning}`);
  }

  /** An environment of the store. */
  environment(source: string, snapshot: Digest): void {
    const digest = showDigest(snapshot);
    this.#event("environment", { lock: source, snapshot: digest });
    if (!this.#options.isJson) {
      this.#board?.line(`${source}: ${digest}`);
      process.stdout.write(`${digest}\n`);
    }
  }

  /** How far the cache is, with a snapshot's bytes; the first time they are those that were there before. */
  warming(digest: Digest, done: number, whole: number): void {
    const short = showDigest(digest).slice(0, 19);
    if (this.#warming !== digest) {
      this.#warming = digest;
      this.#event("warming", {
        snapshot: showDigest(digest),
        bytes: whole,
        presentBytes: done,
      });
      const left = showBytes(whole - done);
      if (!this.#board && done < whole)
        this.line(`${short}: bringing ${left} of ${showBytes(whole)} to this node`);
    }
    const text = `warm ${short}: ${bar(done, whole)} of ${showBytes(whole)}`;
    this.#board?.set("warm", text);
  }

  /** A snapshot of which all blobs that were wanted are on this node. */
  warmed(digest: Digest, { missing, ...warmth }: Warmth): void {
    this.totals.warmedBlobs += warmth.fetchedBlobs;
    this.totals.warmedBytes += warmth.fetchedBytes;
    this.totals.warmBlobs += warmth.presentBlobs;
    this.#board?.set("warm", undefined);
    const unknown = missing.map(showName);
    this.#event("warmed", { snapshot: showDigest(digest), ...warmth, missing: unknown });
    const all = warmth.fetchedBlobs + warmth.presentBlobs;
    const short = showDigest(digest).slice(0, 19);
    this.line(
      `${short}: ${counted(all, "file")}, all on this node, ${warmth.fetchedBlobs} of them new (${showBytes(warmth.fetchedBytes)})`,
    );
    if (unknown.length === 0) return;
    const shown = unknown.slice(0, 3).join(", ");
    const rest = unknown.length > 3 ? ", …" : "";
    this.line(
      `${short}: it lacks ${counted(unknown.length, "path")} of the profile: ${shown}${rest}`,
    );
  }

  /** Something that could not be done. */
  fail(error: unknown, facts: Readonly<Record<string, string>>): void {
    this.totals.failures++;
    const code = codeOf(error);
    this.#isMisused &&= code === "BURROW_USAGE";
    const context = error instanceof BurrowError ? shownContext(error) : {};
    const said = Object.entries(facts).map(([key, value]) => [key, shown(value)]);
    const message = shown(explain(error));
    this.#event("failed", { ...Object.fromEntries(said), code, message, context });
    const { package: name, source } = facts;
    const what = name === undefined ? (facts["what"] ?? "") : `${name} from ${source}`;
    const prefix = message.includes(what) ? "" : `${shown(what)}: `;
    const text = `burrow: ${prefix}${message} (${code})`;
    if (this.#options.isJson) return;
    if (this.#board) this.#board.line(text);
    else process.stderr.write(`${text}\n`);
  }

  /** What is worth knowing of something that was done. */
  note(text: string): void {
    this.#event("note", { text: shown(text) });
    this.line(text);
  }

  /** A line for people. */
  line(text: string): void {
    if (this.#board) this.#board.line(shown(text));
    else if (!this.#options.isJson && !this.#options.isQuiet)
      process.stderr.write(`${shown(text)}\n`);
  }

  /** The summary: of all that was done. */
  end(): void {
    this.#board?.end();
    const ms = Date.now() - this.#startMs;
    this.#event("summary", { ...this.totals, ms });
    const { packages, warmedBlobs, warmBlobs } = this.totals;
    if (packages + warmedBlobs + warmBlobs > 0) this.line(summaryOf(this.totals, ms));
  }

  /** Called when a signal ends the command: what is done stays done. */
  interrupted(): void {
    this.#board?.end();
    const { packages } = this.totals;
    const done =
      packages === 0 ? "" : `: ${this.#doneCount} of ${counted(packages, "package")} in the store`;
    const text = `interrupted${done}; the same command goes on from here`;
    this.#event("interrupted", { ...this.totals });
    if (!this.#options.isJson && !this.#options.isQuiet) process.stderr.write(`${text}\n`);
  }

  /** The exit code: of what was wrong with the words where that is all that failed. */
  get exitCode(): number {
    if (this.totals.failures === 0) return ExitCode.ok;
    return this.#isMisused ? ExitCode.usage : ExitCode.failed;
  }

  get #doneCount(): number {
    return this.totals.ingested + this.totals.present;
  }

  #drawTotal(): void {
    const { packages, failed, fetchedBytes, storedBytes } = this.totals;
    if (packages === 0) return;
    const failures = failed === 0 ? "" : `, ${failed} failed`;
    const bytes = `fetched ${showBytes(fetchedBytes)}, stored ${showBytes(storedBytes)}`;
    const done = `${this.#doneCount} of ${counted(packages, "package")}${failures}`;
    this.#board?.total(`${bar(this.#doneCount, packages)} ${done}, ${bytes}`);
  }

  /** One name for an item on the board, however often its package is on it. */
  #key(item: ExplicitPackage): string {
    let key = this.#keys.get(item);
    if (key === undefined) {
      key = String(this.#keys.size);
      this.#keys.set(item, key);
    }
    return key;
  }

  #event(event: string, facts: Readonly<Record<string, unknown>>): void {
    if (this.#options.isJson) process.stdout.write(`${JSON.stringify({ event, ...facts })}\n`);
  }
}

/** The figures in one line, for people. */
function summaryOf(totals: PreloadTotals, ms: number): string {
  const { packages, ingested, present, failed } = totals;
  const parts = [
    packages > 0 &&
      `${counted(packages, "package")}: ${ingested} ingested, ${present} already there, ${failed} failed`,
    packages > 0 && `fetched ${showBytes(totals.fetchedBytes)}`,
    packages > 0 &&
      `new in the store ${showBytes(totals.storedBytes)} of ${showBytes(totals.contentBytes)} of content`,
    totals.warmedBlobs + totals.warmBlobs > 0 &&
      `on this node ${counted(totals.warmedBlobs, "file")} more (${showBytes(totals.warmedBytes)}), ${totals.warmBlobs} already there`,
    `${(ms / 1000).toFixed(1)} s`,
  ];
  return parts.filter((part) => part !== false).join("; ");
}
