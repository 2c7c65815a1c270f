// Wheels as sources of layers: for which Python and prefix, as the options of burrow layer import say. Control plane.

import { basename } from "node:path";
import { BurrowError } from "../base/error.ts";
import { nameOf } from "../base/name.ts";
import { plainPath } from "../ingest/entry-tree.ts";
import { importWheel } from "../ingest/wheel/import.ts";
import type { LayerEntry } from "../layer/entry.ts";
import type { BlobSink } from "../store/blob-sink.ts";

export interface WheelTarget {
  /** Version, or absolute path of a program whose name ends in one. */
  readonly python?: string;
  readonly prefix?: string;
}

/** How this Burrow lays wheels out: changes with every change of what comes out of one. */
export const WHEEL_LAYOUT = "wheel-1";

function settingsOf(source: string, { python, ...target }: WheelTarget) {
  const prefix = (target.prefix ?? "/usr/local").replace(/(.)\/+$/, "$1");
  const refuse = (why: string) => new BurrowError("BURROW_USAGE", why);
  if (python === undefined) throw refuse(`${source} is a wheel: say for which --python, e.g. 3.11`);
  const below = plainPath(nameOf(prefix.slice(1)));
  const isPlain = prefix.startsWith("/") && below === nameOf(prefix.slice(1));
  if (!isPlain || /[\0-\x1f\x7f]/.test(prefix))
    throw refuse(`--prefix: "${prefix}" is no plain path`);
  if (!python.includes("/")) return { pythonVersion: python, prefix, below };
  const version = /^\/[^\0-\x1f\x7f]*python(\d+\.\d+)$/.exec(python)?.[1];
  if (version === undefined) throw refuse(`--python: "${python}" doesn't end in pythonX.Y`);
  return { pythonVersion: version, executable: python, prefix, below };
}

/** What a wheel's layer depends on besides its bytes. BURROW_USAGE for a target that is none. */
export function wheelKey(source: string, target: WheelTarget): string[] {
  const { pythonVersion, executable = "", prefix } = settingsOf(source, target);
  return [WHEEL_LAYOUT, basename(source), pythonVersion, executable, prefix];
}

/** The entries of a wheel, below its prefix. */
export async function* wheelEntries(
  source: string,
  sink: BlobSink,
  target: WheelTarget,
): AsyncIterable<LayerEntry> {
  const { below, ...settings } = settingsOf(source, target);
  const { entries } = await importWheel(source, { sink, ...settings });
  for (const entry of entries) yield { ...entry, path: `${below}/${entry.path}` };
}
