// What a collection must know of a store's objects that the store itself doesn't: which snapshots are environments, what their documents
// name, and what this node's mounts use. Control plane.

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { type Digest, parseDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { readMount } from "../gofer/mount.ts";
import { rootEntry } from "../layer/entries.ts";
import { IndexKind } from "../layer/format.ts";
import { faultOf, Index } from "../layer/index.ts";
import type { IndexFacts, SurveyPorts } from "../store/survey.ts";
import type { Context } from "./context.ts";
import { PREFIX_XATTR } from "./env-root.ts";
import { badDocument, type Environment, soundEnvironment } from "./environment.ts";

export function surveyPorts(context: Context): SurveyPorts {
  return { describe, namedBy, blobsOf, inUse: inUse(context) };
}

function soundIndexOf(bytes: Buffer): Index {
  const fault = faultOf(bytes);
  if (fault !== undefined) throw new BurrowError("BURROW_BAD_INDEX", fault);
  return new Index(bytes);
}

function describe(bytes: Buffer): IndexFacts {
  const index = soundIndexOf(bytes);
  const isSnapshot = index.kind === IndexKind.snapshot;
  const isEnvironment = isSnapshot && rootEntry(index).xattrs?.has(PREFIX_XATTR) === true;
  return { isSnapshot, isEnvironment };
}

function* blobsOf(bytes: Buffer): Iterable<Digest> {
  const index = soundIndexOf(bytes);
  for (let row = 0; row < index.blobCount; row++) yield index.blobDigest(row);
}

/** What an environment's document names. */
function namedBy(bytes: Buffer): Digest[] {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString("utf8"));
  } catch (cause) {
    throw badDocument("can't be understood", cause);
  }
  return layersOf(soundEnvironment(value));
}

/** The layers of an environment; of a compiled one also the base that it was compiled on. BURROW_CORRUPT where it names none. */
export function layersOf({ packages, wheels = [], compiled, kept = [] }: Environment): Digest[] {
  const texts = [...packages, ...wheels, ...kept].map(({ layer }) => layer);
  if (compiled !== undefined) texts.push(compiled.layer, compiled.base);
  return texts.map((text) => {
    const digest = parseDigest(text);
    if (digest === undefined) throw badDocument("names no digest");
    return digest;
  });
}

/** Snapshots of the store in mounts of this node: sandboxes that run, and bundles. What is no mount now is none. */
function inUse({ state, store }: Context): Digest[] {
  let ids: string[];
  try {
    ids = readdirSync(join(state, "mounts"));
  } catch {
    return [];
  }
  return ids.flatMap((id) => {
    try {
      const mount = readMount(state, id);
      if (mount.kind !== "view") return [];
      const sources = [mount.base, ...mount.grafts];
      return sources.filter(({ origin }) => origin === store).map(({ snapshot }) => snapshot);
    } catch {
      return [];
    }
  });
}
