// What every backend must do, whatever it stands on. `put` writes an object behind the backend's back when it can't itself.

import type { Test } from "tap";
import { type Backend, classOf, type WritableBackend } from "../../lib/store/store.ts";

export interface BackendUnderTest {
  readonly backend: Backend;
  put(path: string, bytes: Uint8Array): Promise<void>;
}

async function classOfFailure(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return "no failure";
  } catch (error) {
    return classOf(error);
  }
}

export async function backendSuite(t: Test, { backend, put }: BackendUnderTest): Promise<void> {
  const bytes = Buffer.from(Array.from({ length: 1000 }, (_, i) => i % 251));
  await put("packs/ab/some", bytes);
  t.equal(await classOfFailure(backend.get("packs/ab/none")), "notFound", "missing");
  t.equal(await classOfFailure(backend.get("none/at/all")), "notFound", "missing folder");
  const past = { range: { offset: 990, length: 11 } };
  t.not(await classOfFailure(backend.get("packs/ab/some", past)), "no failure", "past the end");
  t.equal(
    await classOfFailure(backend.get("packs/ab/some", { maxBytes: 999 })),
    "permanent",
    "bounded",
  );
  for (const path of ["../x", "/x", "a//b", "a/./b", "a/..", "", "a\0b"]) {
    t.equal(await classOfFailure(backend.get(path)), "permanent", `path ${JSON.stringify(path)}`);
  }
  const gone = { signal: AbortSignal.abort() };
  t.equal(await classOfFailure(backend.get("packs/ab/some", gone)), "transient", "aborted before");
  t.same(await backend.get("packs/ab/some"), bytes, "whole");
  const middle = { range: { offset: 500, length: 17 } };
  t.same(await backend.get("packs/ab/some", middle), bytes.subarray(500, 517), "a range");
  const all = { range: { offset: 0, length: 1000 } };
  t.same(await backend.get("packs/ab/some", all), bytes, "a range of all");
  const nothing = { range: { offset: 3, length: 0 } };
  t.equal((await backend.get("packs/ab/some", nothing)).length, 0, "an empty range");
  t.equal(await backend.has("packs/ab/some"), true);
  t.equal(await backend.has("packs/ab/none"), false);
  await put("with space/ü%", Buffer.from("x"));
  t.same(await backend.get("with space/ü%"), Buffer.from("x"), "any UTF-8 path");
}

/** The same for one that can be written, empty so far below "packs" and "nothing". */
export async function writableSuite(t: Test, store: WritableBackend): Promise<void> {
  await backendSuite(t, { backend: store, put: (path, bytes) => store.put(path, bytes) });
  await store.put("packs/cd/other", Buffer.from("1"));
  await store.put("packs/cd/other", Buffer.from("22"));
  const paths: string[] = [];
  for await (const path of store.list("packs")) paths.push(path);
  t.same(paths.sort(), ["packs/ab/some", "packs/cd/other"], "list");
  t.same(await store.get("packs/cd/other"), Buffer.from("22"), "put replaces");
  const bytes: Record<string, number> = {};
  const times: number[] = [];
  for await (const object of store.sizes("packs")) {
    bytes[object.path] = object.bytes;
    times.push(object.modifiedMs);
  }
  t.same(bytes, { "packs/ab/some": 1000, "packs/cd/other": 2 }, "sizes");
  for (const time of times) t.ok(Math.abs(Date.now() - time) < 600_000, "when it was put");
  for await (const path of store.list("nothing")) t.fail(path);
  await store.remove("packs/cd/other");
  await store.remove("packs/cd/other");
  await store.remove("nothing/of/this");
  t.equal(await store.has("packs/cd/other"), false, "removed");
  t.equal(
    await classOfFailure(store.get("packs/cd/other")),
    "notFound",
    "removed for who reads it",
  );
  for await (const path of store.list("packs")) t.equal(path, "packs/ab/some", "the others stay");
  await store.put("packs/cd/other", Buffer.from("3"));
  t.same(await store.get("packs/cd/other"), Buffer.from("3"), "and may be put again");
  for (const path of ["../x", "a/..", ""])
    t.equal(await classOfFailure(store.remove(path)), "permanent", `remove ${path}`);
}
