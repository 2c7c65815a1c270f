// The backends: one suite for all, then what only HTTP can get wrong (pitfalls B6, B7, D4).

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { tmpdir } from "node:os";
import { type Test, test } from "tap";
import { explain } from "../../lib/base/error.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { httpBackend } from "../../lib/store/http.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { localBackend } from "../../lib/store/local.ts";
import { memoryBackend } from "../../lib/store/memory.ts";
import { newMeter } from "../../lib/store/meter.ts";
import { isStore, openOrigin, openStore } from "../../lib/store/open.ts";
import { retrying } from "../../lib/store/retry.ts";
import { classOf } from "../../lib/store/store.ts";
import { backendSuite, writableSuite } from "../suite/backend-suite.ts";
import { type Fault, OriginServer } from "../suite/origin-server.ts";
import { LATE_MS } from "../suite/wait.ts";

function temporary(t: Test): string {
  const root = fs.mkdtempSync(`${tmpdir()}/burrow-store-`);
  t.teardown(() => fs.rmSync(root, { recursive: true, force: true }));
  return root;
}

test("a directory", async (t) => {
  const root = temporary(t);
  await writableSuite(t, localBackend(root));
  t.same(fs.readdirSync(`${root}/tmp`), [], "nothing is left aside");
});

test("what is no file in a directory is not waited for", { timeout: 10_000 }, async (t) => {
  const root = temporary(t);
  const store = localBackend(root);
  await store.put("packs/ab/some", Buffer.from("1"));
  t.equal(spawnSync("mkfifo", [`${root}/packs/ab/fifo`]).status, 0);
  fs.mkdirSync(`${root}/packs/ab/folder`);
  for (const name of ["fifo", "folder"]) {
    const failure = await store.get(`packs/ab/${name}`).catch((error: unknown) => error);
    t.equal(classOf(failure), "notFound", name);
  }
});

test("memory", async (t) => {
  await writableSuite(t, memoryBackend());
});

async function origin(t: Test): Promise<{ server: OriginServer; root: string }> {
  const root = temporary(t);
  const server = await OriginServer.start(root);
  t.teardown(() => server.close());
  return { server, root };
}

test("HTTP", async (t) => {
  const { server, root } = await origin(t);
  const backend = httpBackend(server.url);
  t.teardown(() => backend.close());
  const put = async (path: string, bytes: Uint8Array) => localBackend(root).put(path, bytes);
  await backendSuite(t, { backend, put });
});

const FAULTS: [Fault, string][] = [
  ["short-body", "transient"],
  ["short-range", "transient"],
  ["long-body", "transient"],
  ["wrong-range", "transient"],
  ["whole", "transient"],
  ["gzip", "transient"],
  ["redirect", "transient"],
  ["stall-headers", "transient"],
  ["stall-body", "transient"],
  ["503", "transient"],
  ["429", "transient"],
  ["reset", "transient"],
  ["404", "notFound"],
  ["403", "permanent"],
];

test("a wrong answer to a range is refused, then retried and taken when right", async (t) => {
  const { server, root } = await origin(t);
  const bytes = Buffer.alloc(2 * 1024 * 1024, "some content ");
  await localBackend(root).put("packs/ab/big", bytes);
  for (const [fault, expected] of FAULTS) {
    // Only silence is to run into them, on a loaded machine too.
    const limitMs = fault.startsWith("stall") ? 500 : 20_000;
    const deadlines = { headerMs: limitMs, stallMs: limitMs, baseMs: 1 };
    const bare = httpBackend(server.url, deadlines);
    const range = { offset: 100_000, length: 70_000 };
    server.fault = () => fault;
    try {
      await bare.get("packs/ab/big", { range });
      t.fail(`${fault} was taken`);
    } catch (error) {
      t.equal(classOf(error), expected, `${fault} is ${expected}`);
      t.match((error as { context: unknown }).context, {
        path: "packs/ab/big",
        origin: server.url,
      });
    }
    bare.close();
    const meter = newMeter();
    const retrying = openOrigin(server.url, { ...deadlines, meter });
    let count = 0;
    server.fault = () => (count++ === 0 ? fault : "none");
    const again = retrying.get("packs/ab/big", { range });
    if (expected === "transient") {
      t.same(await again, bytes.subarray(100_000, 170_000), `right after ${fault}`);
      t.equal(meter.requests, 2);
    } else {
      await t.rejects(again, `${fault} is not retried`);
      t.equal(meter.requests, 1);
    }
    retrying.close();
  }
});

test("retries are bounded, and end with the caller's signal", async (t) => {
  const { server, root } = await origin(t);
  await localBackend(root).put("x", Buffer.from("x"));
  server.fault = () => "503";
  const backend = openOrigin(server.url, { baseMs: 1, tries: 4 });
  t.teardown(() => backend.close());
  await t.rejects(backend.get("x"), { code: "BURROW_ORIGIN", context: { status: 503 } });
  t.equal(server.requests.length, 4);
  server.fault = () => "slow";
  fs.writeFileSync(`${root}/slow`, Buffer.alloc(1000));
  const startedMs = Date.now();
  const late = backend.get("slow", { signal: AbortSignal.timeout(150) });
  await t.rejects(late, { code: "BURROW_TIMEOUT" });
  t.ok(Date.now() - startedMs < LATE_MS, "a trickle does not outlive the deadline");
});

test("a small whole object may answer a range; a whole one is verified by its name", async (t) => {
  const { server, root } = await origin(t);
  const bytes = Buffer.from("0123456789");
  const path = objectPath("indexes", digestOf(bytes));
  await localBackend(root).put(path, bytes);
  const backend = openOrigin(server.url, { baseMs: 1 });
  t.teardown(() => backend.close());
  server.fault = () => "whole";
  t.same(await backend.get(path, { range: { offset: 3, length: 4 } }), Buffer.from("3456"));
  let count = 0;
  server.fault = () => (count++ === 0 ? "flip" : "none");
  t.same(await backend.get(path), bytes, "a flipped bit is fetched again");
  server.fault = () => "flip";
  await t.rejects(backend.get(path), { code: "BURROW_DIGEST_MISMATCH" });
});

test("an origin that is down is transient; what is no origin is refused", async (t) => {
  const { server } = await origin(t);
  const { url } = server;
  await server.close();
  const backend = openOrigin(url, { baseMs: 1 });
  await t.rejects(backend.get("x"), { code: "BURROW_ORIGIN", class: "transient" });
  t.throws(() => openOrigin("relative/path"), { code: "BURROW_USAGE" });
  await t.rejects(openStore(url), { code: "BURROW_UNSUPPORTED" });
});

test("an address that is signed is refused, and not shown", (t) => {
  for (const query of ["?X-Amz-Signature=SECRET&X-Amz-Expires=60", "#SECRET", "/?sig=SECRET"]) {
    let failure: unknown;
    try {
      openOrigin(`https://example.invalid/store${query}`);
    } catch (error) {
      failure = error;
    }
    t.match(failure, { code: "BURROW_USAGE", message: /has no query .* use s3:/ }, query);
    t.notMatch(explain(failure), /SECRET/);
  }
  t.end();
});

test("a store is marked with its format", async (t) => {
  const root = temporary(t);
  t.equal(await isStore(localBackend(root)), false);
  await openStore(root);
  t.equal(await isStore(localBackend(root)), true);
  fs.writeFileSync(`${root}/burrow-store.json`, '{"format":2}');
  await t.rejects(openStore(root), { code: "BURROW_UNSUPPORTED" });
});

test("a full disk leaves no half object", async (t) => {
  const root = temporary(t);
  const store = localBackend(root, {
    ...fs.promises,
    open: async (path: string, flags: string, mode?: number) => {
      const file = await fs.promises.open(path, flags, mode);
      const write = async () => {
        throw Object.assign(new Error("no space"), { code: "ENOSPC", errno: -28 });
      };
      return Object.assign(Object.create(file) as object, {
        write,
        read: file.read.bind(file),
        sync: file.sync.bind(file),
        stat: file.stat.bind(file),
        close: file.close.bind(file),
      });
    },
  } as never);
  await t.rejects(store.put("packs/ab/x", Buffer.from("x")), {
    code: "BURROW_NO_SPACE",
    errno: 28,
  });
  t.same(fs.readdirSync(`${root}/tmp`), []);
  t.equal(await store.has("packs/ab/x"), false);
});

/** A directory of which `call` of a file fails the first time, by what the system says. */
function failingOnce(root: string, call: "read" | "stat" | "open", code: string, errno: number) {
  let isOver = false;
  const failure = async () => {
    isOver = true;
    throw Object.assign(new Error(code), { code, errno });
  };
  const open = async (path: string, flags: string, mode?: number) => {
    if (call === "open" && !isOver) return await failure();
    const file = await fs.promises.open(path, flags, mode);
    if (call === "open" || isOver) return file;
    const calls = { stat: () => file.stat(), close: () => file.close(), [call]: failure };
    return { read: file.read.bind(file), ...calls };
  };
  return localBackend(root, { ...fs.promises, open } as never);
}

test("what a disk or a network mount can't read for a moment is tried again", async (t) => {
  const root = temporary(t);
  await localBackend(root).put("packs/ab/x", Buffer.from("content"));
  const failures = [
    ["read", "EIO", -5],
    ["stat", "ESTALE", -116],
    ["read", "ESTALE", -116],
    // Another node has written the object anew since its folder was looked at.
    ["open", "ESTALE", -116],
    ["read", "ETIMEDOUT", -110],
  ] as const;
  for (const [call, code, errno] of failures) {
    const bare = failingOnce(root, call, code, errno);
    const failure = await bare.get("packs/ab/x").catch((error: unknown) => error);
    t.match(failure, { code: "BURROW_ORIGIN", class: "transient" }, `${code} of ${call}`);
    const again = retrying(failingOnce(root, call, code, errno), { baseMs: 1 });
    t.same(await again.get("packs/ab/x"), Buffer.from("content"));
  }
  const refused = failingOnce(root, "open", "EACCES", -13);
  t.equal(await refused.get("packs/ab/x").catch(classOf), "permanent");
});

test("a directory that was emptied under its writer, or is removed, is made again", async (t) => {
  const root = temporary(t);
  const store = localBackend(`${root}/store`);
  const all = async () => {
    for (const path of ["packs/ab/one", "locators/cd/two"]) {
      await store.put(path, Buffer.from(path));
      t.equal((await store.get(path)).toString(), path);
    }
  };
  await all();
  for (const name of fs.readdirSync(`${root}/store`))
    fs.rmSync(`${root}/store/${name}`, { recursive: true });
  await all();
  fs.rmSync(`${root}/store/packs`, { recursive: true });
  await all();
  fs.rmSync(`${root}/store`, { recursive: true });
  await all();
  t.same(fs.readdirSync(`${root}/store/tmp`), []);
});
