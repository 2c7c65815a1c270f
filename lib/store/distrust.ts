// Wrapper: a store some of whose objects were found damaged. To a writer they are not there, so that it writes them again; what it
// has written is there. Reading one fails as before. Control plane.

import { type DeltaStore, deltaPath } from "./deltas.ts";

/** Takes the paths out of `damaged` as they are written again. Locators that lead to damaged objects must be among them. */
export function distrusting(store: DeltaStore, damaged: Set<string>): DeltaStore {
  const deltas = deltaPath("");
  return {
    ...store,
    has: async (path, signal) => !damaged.has(path) && (await store.has(path, signal)),
    async put(path, bytes) {
      await store.put(path, bytes);
      damaged.delete(path.startsWith(deltas) ? path.slice(deltas.length) : path);
    },
    async *list(folder) {
      for await (const path of store.list(folder)) if (!damaged.has(path)) yield path;
    },
  };
}
