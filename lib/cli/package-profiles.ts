// Profiles of packages in a store: what starts over an environment read of each of its layers lies beside that layer, and an environment that
// is made of layers which others have started begins with it (docs/design/0027-learned-starts.md). Control plane.

import { type Digest, parseDigest } from "../base/digest.ts";
import { PROFILE_FILE_MAX_BYTES } from "../base/limits.ts";
import { asksOfLayer, composed, type LayerAsks } from "../preload/compose.ts";
import { ANY_COMMAND, Profile } from "../preload/profile.ts";
import { objectPath } from "../store/layout.ts";
import { inParallel } from "../store/parallel.ts";
import { classOf, type WritableBackend } from "../store/store.ts";
import { type Environment, writeEnvironment } from "./environment.ts";
import { counted, type ProgressLine } from "./output.ts";
import { readIndex } from "./read-index.ts";

/** Profiles and indexes that are read at once. */
const PARALLEL = 8;

/** Writes what an environment is made of; a new one begins with what others' starts read of its layers, unless $BURROW_PROFILES is off. */
export async function publishEnvironment(
  store: WritableBackend,
  snapshot: Digest,
  environment: Environment,
  progress: ProgressLine,
): Promise<void> {
  const isWanted = process.env["BURROW_PROFILES"] !== "off";
  const isNew = isWanted && !(await store.has(objectPath("environments", snapshot)));
  await writeEnvironment(store, snapshot, environment);
  const count = isNew ? await composeProfile(store, snapshot, environment) : 0;
  if (count > 0)
    progress.line(`starts begin with what others read of ${counted(count, "package")}`);
}

/** What the store has learned of a snapshot or layer; undefined of nothing, and of what is no profile or too large: a hint that is damaged is none. Throws what may pass. */
export async function profileIn(
  store: WritableBackend,
  digest: Digest,
): Promise<Profile | undefined> {
  try {
    const path = objectPath("profiles", digest);
    return Profile.decode(await store.get(path, { maxBytes: PROFILE_FILE_MAX_BYTES }), digest);
  } catch (error) {
    if (classOf(error) === "transient") throw error;
    return undefined;
  }
}

/** Puts a profile into the store, with what is there already. */
export async function putProfile(store: WritableBackend, profile: Profile): Promise<void> {
  const there = await profileIn(store, profile.snapshot);
  if (there !== undefined) profile.join(there);
  await store.put(objectPath("profiles", profile.snapshot), profile.encode());
}

/** The layers that an environment is made of, each once. */
export function layersOf({ packages, wheels = [], compiled, kept = [] }: Environment): Digest[] {
  const all = [...packages, ...wheels, ...(compiled === undefined ? [] : [compiled]), ...kept];
  return [...new Set(all.flatMap(({ layer }) => parseDigest(layer) ?? []))];
}

/** Puts what the starts of an environment read of each of its layers beside that layer: of how many. */
export async function pushPackages(
  store: WritableBackend,
  profile: Profile,
  environment: Environment,
): Promise<number> {
  const asks = profile.asks(ANY_COMMAND);
  const index = await readIndex(store, profile.snapshot);
  let count = 0;
  await inParallel(layersOf(environment), PARALLEL, async (layer) => {
    const learned = new Profile(layer);
    const some = asksOfLayer(asks, index, await readIndex(store, layer));
    if (some.length === 0 || !learned.learn(ANY_COMMAND, some)) return;
    await putProfile(store, learned);
    count++;
  });
  return count;
}

/** Has the starts of an environment begin with what others read of its layers, as far as the store has that: of how many. */
export async function composeProfile(
  store: WritableBackend,
  snapshot: Digest,
  environment: Environment,
): Promise<number> {
  const found = new Map<Digest, LayerAsks>();
  const layers = layersOf(environment);
  await inParallel(layers, PARALLEL, async (layer) => {
    // A hint: one that can't be had is none.
    const profile = await profileIn(store, layer).catch(() => undefined);
    if (profile === undefined) return;
    const index = await readIndex(store, layer);
    found.set(layer, { layer, index, asks: profile.asks(ANY_COMMAND) });
  });
  if (found.size === 0) return 0;
  const known = layers.flatMap((layer) => found.get(layer) ?? []);
  // One that is there and can't be read just now isn't lost to this.
  const profile = (await profileIn(store, snapshot)) ?? new Profile(snapshot);
  profile.compose(composed(await readIndex(store, snapshot), known));
  await store.put(objectPath("profiles", snapshot), profile.encode());
  return profile.packages.length;
}
