// Reads of one state of an object: what is another is refused at once, of whatever place, and nothing that has no such state is asked.

import { createHash } from "node:crypto";
import fs from "node:fs";
import { test } from "tap";
import { openOrigin } from "../../lib/store/open.ts";
import { parseOrigins } from "../../lib/store/origins-file.ts";
import type { ObjectPin } from "../../lib/store/store.ts";
import { noise } from "../suite/daemon-node.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { service } from "../suite/s3-server.ts";

const BYTES = noise(5000, 3);
const WHOLE = { offset: 0, length: BYTES.length };

function pinOf(bytes: Uint8Array): ObjectPin {
  const etag = createHash("md5").update(bytes).digest("hex");
  return { versionId: undefined, etag, size: bytes.length };
}

test("a pinned read is asked of the origin alone: a mirror has other states", async (t) => {
  const server = await service(t);
  server.put("box/data/a", BYTES);
  fs.cpSync(`${server.root}/box`, `${server.root}/copy`, { recursive: true });
  const web = await OriginServer.start(`${server.root}/box/data`);
  t.teardown(() => web.close());
  const source = server.address("box/data");
  const mirrors = [web.url, server.address("copy/data")];
  const origins = parseOrigins({ format: 1, origins: { [source]: { mirrors } } });
  const backend = openOrigin(source, { origins });
  t.teardown(() => backend.close());
  const pin = pinOf(BYTES);
  t.ok((await backend.get("a", { range: WHOLE, pin })).equals(BYTES));
  server.put("box/data/a", noise(5000, 4));
  server.files.requests.length = 0;
  for (let i = 0; i < 5; i++)
    await t.rejects(backend.get("a", { range: WHOLE, pin }), { code: "BURROW_STALE", errno: 116 });
  server.remove("box/data/a");
  await t.rejects(backend.get("a", { range: WHOLE, pin }), { code: "BURROW_STALE" });
  t.equal(server.files.requests.length, 6, "each once");
  t.equal(server.files.count("copy"), 0);
  t.equal(web.requests.length, 0);
  t.match(backend.mirrors.figures()[0], { state: "up", permanent: 6 }, "the place is well");
  const strange = openOrigin(source, {
    origins: new Map([[source, { places: mirrors, tier: undefined }]]),
  });
  t.teardown(() => strange.close());
  await t.rejects(strange.get("a", { range: WHOLE, pin }), { code: "BURROW_UNSUPPORTED" });
});

test("an answer is of the pinned state, or refused", async (t) => {
  const server = await service(t);
  server.put("box/data/a", BYTES);
  server.isHeeding = false;
  const backend = openOrigin(server.address("box/data"), { tries: 2 });
  t.teardown(() => backend.close());
  const range = { offset: 100, length: 50 };
  const right = pinOf(BYTES);
  t.ok((await backend.get("a", { range, pin: right })).equals(BYTES.subarray(100, 150)));
  const others = { ...right, size: 5001 };
  await t.rejects(backend.get("a", { range, pin: others }), /it has 5000 bytes/);
  const tagged = { ...right, etag: "x" };
  await t.rejects(backend.get("a", { range, pin: tagged }), /another ETag/);
  const past = { range: { offset: 6000, length: 1 }, pin: { ...right, size: 7000 } };
  await t.rejects(backend.get("a", past), { code: "BURROW_STALE" });
  server.tagOf = () => "";
  await t.rejects(backend.get("a", { range, pin: right }), { code: "BURROW_STALE" });
});
