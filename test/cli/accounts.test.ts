// Owns: proof that what an image's /etc says of its user is read however the store keeps it. Plane: control.

import { test } from "tap";
import { showDigest } from "../../lib/base/digest.ts";
import { readFacts } from "../../lib/cli/image-facts.ts";
import { makeSnapshot } from "../../lib/cli/layer.ts";
import { readIndex } from "../../lib/cli/read-index.ts";
import type { Image } from "../../lib/ingest/oci/image.ts";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { KnownBlobs, readLocator } from "../../lib/store/known.ts";
import { openStore } from "../../lib/store/open.ts";
import { openPackWriter } from "../../lib/store/pack-writer.ts";
import { nearOf, publish } from "../suite/daemon-node.ts";
import { newNode } from "./cli.ts";

/** Many users, one of them with another number. */
function accounts(uid: number): Buffer {
  const others = Array.from({ length: 400 }, (_, i) => `user${i}:x:${i + 1000}:${i * 7919}::/:\n`);
  return Buffer.from(`${others.join("")}app:x:${uid}:34::/:\n`);
}

const PASSWD = "etc/passwd";
const plain = { uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 };

test("a file of users that is kept as a delta", async (t) => {
  const node = newNode(t);
  const base = await publish(node.store, { [PASSWD]: accounts(7) });
  const store = await openStore(node.store);
  const writer = await openPackWriter(store, { near: nearOf(base) });
  const blob = await writer.addBytes(accounts(12), PASSWD);
  const entries: LayerEntry[] = [
    { ...plain, type: "directory", path: "etc", mode: 0o755 },
    { ...plain, type: "file", path: PASSWD, mode: 0o644, blob },
  ];
  const { digest } = await writer.finish(writeIndex(IndexKind.layer, entries));
  const locator = await readLocator(store, digest);
  t.ok(locator.hasDelta(locator.find(blob.digest)));

  const defaults = { env: [], workingDir: "", entrypoint: [], cmd: [], user: "app" };
  const image = { configDigest: digestOf(Buffer.alloc(0)), config: { defaults } };
  const known = await KnownBlobs.load(store);
  const source = { layers: [digest], image: image as unknown as Image };
  const snapshot = await makeSnapshot(store, known, [source]);
  const facts = await readFacts(store, snapshot, await readIndex(store, snapshot));
  t.same(facts?.ids, [12, 34], showDigest(snapshot));
});
