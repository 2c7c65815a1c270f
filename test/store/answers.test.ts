// Owns: proof of what is made of answers that are rare and right, over plain HTTP and S3: when to ask again, how soon, and when a request that
// met a connection's end is none of the origin's failures (pitfalls B7, D1, D13). Plane: control.

import fs from "node:fs";
import http from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { tmpdir } from "node:os";
import { type Test, test } from "tap";
import type { BurrowError } from "../../lib/base/error.ts";
import { newMeter } from "../../lib/store/meter.ts";
import { openOrigin } from "../../lib/store/open.ts";
import { retryingStore } from "../../lib/store/retry.ts";
import { s3Backend } from "../../lib/store/s3.ts";
import { classOf } from "../../lib/store/store.ts";
import { keyFile } from "../suite/key-file.ts";
import { type Front, OriginServer } from "../suite/origin-server.ts";
import { service } from "../suite/s3-server.ts";
import { until } from "../suite/wait.ts";

const CONTENT = Buffer.alloc(1000, "some content ");

/** A server of the object "x" behind `front`. */
async function serverOf(t: Test, front: Front): Promise<OriginServer> {
  const root = fs.mkdtempSync(`${tmpdir()}/burrow-answers-`);
  t.teardown(() => fs.rmSync(root, { recursive: true, force: true }));
  fs.writeFileSync(`${root}/x`, CONTENT);
  const server = await OriginServer.start(root, front);
  t.teardown(() => server.close());
  return server;
}

test("a date in Retry-After is by the server's clock", async (t) => {
  const headers: Record<string, string> = {};
  const server = await serverOf(t, async (_, response) => {
    response.sendDate = false;
    response.writeHead(503, headers).end();
    return undefined;
  });
  const backend = openOrigin(server.url, { tries: 1 });
  t.teardown(() => backend.close());
  const asked = async (values: Readonly<Record<string, string>>) => {
    for (const name of Object.keys(headers)) delete headers[name];
    Object.assign(headers, values);
    const error = await backend.get("x").catch((error: unknown) => error as BurrowError);
    return (error as BurrowError).context["retryAfterMs"] ?? 0;
  };
  const date = "Wed, 21 Oct 2015 07:28:00 GMT";
  const at = (seconds: number) => new Date(Date.parse(date) + 1000 * seconds).toUTCString();
  t.equal(await asked({ date, "retry-after": at(1) }), 1000);
  t.equal(await asked({ date, "retry-after": at(-5) }), 0, "it is over");
  t.equal(await asked({ "retry-after": at(1) }), 0, "of no known clock");
  t.equal(await asked({ date, "retry-after": "soon" }), 0);
  t.equal(await asked({ date, "retry-after": "-1" }), 0);
});

test("a date far away is waited for no longer than a number is", async (t) => {
  const date = "Wed, 21 Oct 2015 07:28:00 GMT";
  const server = await serverOf(t, async (_, response) => {
    response.writeHead(429, { date, "retry-after": "Fri, 31 Dec 2099 23:59:59 GMT" }).end();
    return undefined;
  });
  const backend = openOrigin(server.url, { tries: 1 });
  t.teardown(() => backend.close());
  await t.rejects(backend.get("x"), { code: "BURROW_ORIGIN", context: { retryAfterMs: 30_000 } });
});

test("what isn't there isn't there, though the page that says so is compressed", async (t) => {
  const server = await serverOf(t, async (_, response) => {
    response.writeHead(404, { "content-encoding": "gzip" }).end("not a page");
    return undefined;
  });
  const meter = newMeter();
  const backend = openOrigin(server.url, { baseMs: 1, meter });
  t.teardown(() => backend.close());
  for (const options of [{}, { range: { offset: 0, length: 10 } }])
    t.equal(await backend.get("x", options).catch(classOf), "notFound");
  t.equal(meter.requests, 2, "and isn't asked for again");
});

/** Once armed, ends each connection that was used before, by a reset, when it is used again. */
function resetting(): { front: Front; isArmed: boolean; resets: number } {
  const before = new WeakSet<Socket>();
  const facts = { isArmed: false, resets: 0, front: (async () => undefined) as Front };
  facts.front = async ({ socket }) => {
    if (!facts.isArmed) before.add(socket);
    if (!facts.isArmed || !before.has(socket)) return { path: "x", headers: {} };
    facts.resets++;
    socket.resetAndDestroy();
    return undefined;
  };
  return facts;
}

test("a connection that ended while it stood open is no failure of the origin", async (t) => {
  const facts = resetting();
  const server = await serverOf(t, facts.front);
  const backend = openOrigin(server.url, { tries: 1 });
  t.teardown(() => backend.close());
  const readAll = (count: number) =>
    Promise.all(
      Array.from({ length: count }, (_, offset) =>
        backend.get("x", { range: { offset, length: 10 } }),
      ),
    );
  let rounds = 0;
  // On a slow machine they may have run out meanwhile.
  for (; facts.resets === 0 && rounds < 20; rounds++) {
    facts.isArmed = false;
    await readAll(6);
    facts.isArmed = true;
    for (const [offset, bytes] of (await readAll(6)).entries())
      t.same(bytes, CONTENT.subarray(offset, offset + 10));
  }
  t.ok(facts.resets > 0, `${facts.resets} connections ended`);
  t.match(backend.mirrors.figures(), [
    { state: "up", transient: 0, rests: 0, requests: 12 * rounds },
  ]);
  server.fault = () => "reset";
  await t.rejects(
    backend.get("x"),
    { code: "BURROW_ORIGIN", class: "transient" },
    "one that is new is a failure",
  );
});

test("an upload that met the end of its connection is sent again, whole", async (t) => {
  const server = await service(t);
  const store = s3Backend(server.address("box"));
  t.teardown(() => store.close());
  await store.put("first", CONTENT);
  server.files.hangUp();
  // Its end may be heard before it is used, or not: either is right.
  await store.put("second", CONTENT);
  t.same(await store.get("second"), CONTENT);
});

test("what a service refuses for a moment, or for what the way did to an upload, is sent again", async (t) => {
  const server = await service(t);
  const bare = s3Backend(server.address("box"));
  t.teardown(() => bare.close());
  const refusals: [number, string][] = [
    [409, "OperationAborted"],
    [409, "ConditionalRequestConflict"],
    [400, "BadDigest"],
    [400, "IncompleteBody"],
    [400, "XAmzContentSHA256Mismatch"],
    [400, "RequestTimeout"],
  ];
  for (const [status, code] of refusals) {
    server.refusalOf = () => ({ status, code });
    t.equal(await bare.put("x", CONTENT).catch(classOf), "transient", code);
    let count = 0;
    server.refusalOf = () => (count++ === 0 ? { status, code } : undefined);
    await retryingStore(bare, { baseMs: 1 }).put("x", CONTENT);
    t.same(await bare.get("x"), CONTENT);
  }
  server.refusalOf = () => ({ status: 409, code: "BucketAlreadyExists" });
  t.equal(await bare.put("x", CONTENT).catch(classOf), "permanent");
});

test("credentials that can't be had for a moment are waited for, once they could be", async (t) => {
  const server = await service(t);
  fs.writeFileSync(`${server.root}/box/x`, CONTENT);
  const keys = keyFile(t);
  const address = `${server.address("box/")}&profile=p&region=no-keys`;
  const backend = openOrigin(address, { baseMs: 1 });
  t.teardown(() => backend.close());
  t.equal(await backend.get("x").catch(classOf), "permanent", "there never were any");
  server.keys.set("ONE", { secret: "SECRET" });
  keys.give("ONE");
  t.same(await backend.get("x"), CONTENT);
  server.keys.set("ONE", { secret: "SECRET", isExpired: true });
  server.keys.set("TWO", { secret: "SECRET" });
  keys.take();
  const before = keys.asked();
  const late = openOrigin(address, {
    tries: 1000,
    baseMs: 1,
    capMs: 1,
    onRetry: () => {
      // The program has given none.
      if (keys.asked() >= before + 2) keys.give("TWO");
    },
  });
  t.teardown(() => late.close());
  t.same(await late.get("x"), CONTENT);
});

test("whether there is an object: credentials that have expired are renewed for that, too", async (t) => {
  const server = await service(t);
  fs.writeFileSync(`${server.root}/box/x`, CONTENT);
  fs.writeFileSync(`${server.root}/box/empty`, "");
  const keys = keyFile(t);
  const backend = openOrigin(`${server.address("box")}&profile=p&region=head`, { baseMs: 1 });
  t.teardown(() => backend.close());
  for (const [i, name] of ["x", "none", "empty"].entries()) {
    for (const key of server.keys.values()) key.isExpired = true;
    server.keys.set(`KEY${i}`, { secret: "SECRET" });
    keys.give(`KEY${i}`);
    t.equal(await backend.has(name), name !== "none", name);
  }
  server.refusalOf = () => ({ status: 403, code: "AccessDenied" });
  await t.rejects(backend.has("x"), {
    code: "BURROW_ORIGIN",
    class: "permanent",
    message: /AccessDenied/,
  });
});

test("a refusal leaves its connection open for the next request", async (t) => {
  const sockets = new Set<Socket>();
  const server = await serverOf(t, async ({ socket, url }, response) => {
    sockets.add(socket);
    if (url === "/x") return { path: "x", headers: {} };
    response.writeHead(url === "/busy" ? 503 : 404).end("a page for people ".repeat(100));
    return undefined;
  });
  const backend = openOrigin(server.url, { tries: 1 });
  t.teardown(() => backend.close());
  t.same(await backend.get("x"), CONTENT);
  for (let i = 0; i < 3; i++) {
    await t.rejects(backend.get("none"), { code: "BURROW_NOT_FOUND" });
    await t.rejects(backend.get("busy"), { code: "BURROW_ORIGIN" });
    t.same(await backend.get("x"), CONTENT);
  }
  // A page may come after its refusal: then the next request has a new one.
  t.ok(sockets.size <= 4, `${sockets.size} connections for 10 requests`);
});

test("a service that heeds no range doesn't send all of an object to who asks whether it is there", async (t) => {
  let isClosed = false;
  const server = http.createServer((request, response) => {
    if (request.method === "HEAD") return void response.writeHead(403).end();
    const send = () => void (response.writable && response.write(Buffer.alloc(65_536)));
    response.writeHead(200, { "content-length": 2 ** 40 }).on("drain", send);
    response.once("close", () => {
      isClosed = true;
    });
    send();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const address = `s3://box?endpoint=http://127.0.0.1:${port}&anonymous=true&region=endless`;
  const backend = openOrigin(address, { tries: 1 });
  t.teardown(() => backend.close());
  t.equal(await backend.has("x"), true);
  t.ok(await until(() => isClosed));
});
