// burrow store pin | unpin | pins: layers and snapshots that are to stay in a store whatever else names them. Control plane.

import type { Command } from "commander";
import { showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { pinIn, refuseReadOnly } from "../store/open.ts";
import { pins, unpin } from "../store/pins.ts";
import { addListedOptions, contextOf } from "./context.ts";
import { findDigest, listedStore } from "./digests.ts";
import { print } from "./output.ts";

const HELP = `
Snapshots and layers by their digests, or the first digits of these. "burrow store gc --all" keeps
bases that are pinned.

Example:
  burrow store pin sha256:…`;

export function addStorePins(store: Command): void {
  addListedOptions(store.command("pin"))
    .description("keep a layer or snapshot until it is unpinned")
    .argument("<digest>", "of the layer or snapshot")
    .addHelpText("after", HELP)
    .action(async (text: string, options) => {
      const context = contextOf(options);
      refuseReadOnly(context.store);
      const digest = await findDigest(context, text);
      await pinIn(context.store, digest);
      print(context.isJson, { pinned: showDigest(digest) }, showDigest(digest));
    });
  addListedOptions(store.command("unpin"))
    .description("let go of a layer or snapshot")
    .argument("<digest>", "of the layer or snapshot")
    .addHelpText("after", "\nExample:\n  burrow store unpin sha256:…")
    .action(async (text: string, options) => {
      const context = contextOf(options);
      refuseReadOnly(context.store);
      const digest = await findDigest(context, text);
      if (!(await unpin(await listedStore(context), digest))) {
        const where = { context: { store: context.store } };
        throw new BurrowError("BURROW_NOT_FOUND", `no pin of ${showDigest(digest)}`, where);
      }
      print(context.isJson, { unpinned: showDigest(digest) }, showDigest(digest));
    });
  addListedOptions(store.command("pins"))
    .description("list what is pinned")
    .addHelpText("after", "\nExample:\n  burrow store pins --json")
    .action(async (options) => {
      const context = contextOf(options);
      const found: string[] = [];
      for await (const digest of pins(await listedStore(context))) found.push(showDigest(digest));
      print(context.isJson, found, found.length === 0 ? "none" : found.sort().join("\n"));
    });
}
