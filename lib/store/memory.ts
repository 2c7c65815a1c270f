// A store in memory: local.ts over memfs. For tests, dry runs and `memory:` origins. Control plane.

import { Volume } from "memfs";
import { type FsLike, localBackend } from "./local.ts";
import type { WritableBackend } from "./store.ts";

/** A fresh, empty store that lives as long as it is referenced. */
export function memoryBackend(): WritableBackend {
  const volume = Volume.fromJSON({}, "/store");
  volume.mkdirSync("/store", { recursive: true });
  return localBackend("/store", volume.promises as unknown as FsLike);
}
