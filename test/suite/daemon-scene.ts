// What most tests of the daemon start from: a node without a daemon yet, and a mount of files that lie behind an origin whose
// behaviour is the test's to choose.

import type { Test } from "tap";
import { type Files, noise, type Published, publish, TestNode } from "./daemon-node.ts";
import { OriginServer } from "./origin-server.ts";

/** Fifty files that share packs. */
export const SMALL: Files = Object.fromEntries(
  Array.from({ length: 50 }, (_, i) => [`file${i}`, noise(10_000 + i, i + 1)]),
);

export interface Scene {
  readonly node: TestNode;
  readonly server: OriginServer;
  readonly published: Published;
  readonly mountId: string;
}

/** Removed when the test ends. */
export async function scene(t: Test, files: Files): Promise<Scene> {
  const node = new TestNode();
  t.teardown(() => node.close());
  const published = await publish(node.store, files);
  const server = await OriginServer.start(node.store);
  t.teardown(() => server.close());
  return { node, server, published, mountId: node.mount(server.url, published.digest) };
}
