// Owns: proof that a download ends, whatever the server does: bounded bytes, silence and slowness; and that it goes on where it
// stopped. Plane: control.

import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { type Test, test } from "tap";
import { download } from "../../lib/cli/download.ts";
import { OriginServer } from "../suite/origin-server.ts";

const BYTES = randomBytes(300_000);

async function origin(t: Test): Promise<{ server: OriginServer; dir: string; url: string }> {
  const dir = t.testdir({});
  fs.mkdirSync(path.join(dir, "channel"));
  fs.writeFileSync(path.join(dir, "channel/a-1-0.conda"), BYTES);
  const server = await OriginServer.start(path.join(dir, "channel"));
  t.teardown(() => server.close());
  return { server, dir, url: `${server.url}/a-1-0.conda` };
}

/** A server that answers each request by `answer`. */
async function serve(t: Test, answer: http.RequestListener): Promise<string> {
  const server = http.createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/a-1-0.conda`;
}

/** A body without a length that has no end. */
const endless: http.RequestListener = (_request, response) => {
  const more = () => {
    while (!response.destroyed && response.write(Buffer.alloc(64 * 1024))) {}
  };
  response.on("drain", more);
  more();
};

test("a body without an end is cut at the size that the lock says, or at the limit", async (t) => {
  const url = await serve(t, endless);
  const dir = t.testdir({});
  await t.rejects(download(url, dir, { size: 1_000_000 }), {
    code: "BURROW_DIGEST_MISMATCH",
    message: /has 1000000 bytes by the lock, and the server sends 1\d{6} or more/,
    context: { url },
  });
  await t.rejects(download(url, dir, { maxBytes: 2_000_000 }), {
    code: "BURROW_ORIGIN",
    message: /over 2000000 bytes, the most for a package whose size no lock says/,
  });
  t.same(fs.readdirSync(dir), [], "nothing of it stays");
});

test("a user and password of the URL go as a header, and errors don't show them", async (t) => {
  const seen: unknown[] = [];
  const url = await serve(t, ({ headers }, response) => {
    seen.push(headers.authorization);
    response.writeHead(seen.length === 1 ? 200 : 404).end("bytes");
  });
  const secret = url.replace("//", "//me:se%20cret@");
  const dir = t.testdir({});
  t.equal(fs.readFileSync(await download(secret, dir), "utf8"), "bytes");
  await t.rejects(download(secret, dir), { message: /HTTP status 404/, context: { url } });
  const basic = `Basic ${Buffer.from("me:se cret").toString("base64")}`;
  t.same(seen, [basic, basic]);
});

test("a URL without a file's name is none of a package", async (t) => {
  const dir = t.testdir({ folder: {} });
  await t.rejects(download("http://127.0.0.1:1/?a.conda", path.join(dir, "folder")), {
    code: "BURROW_BAD_LOCK",
    message: /names no file/,
    context: { url: "http://127.0.0.1:1/" },
  });
});

test("an announced length that can't be right is refused before the body", async (t) => {
  const { server, dir, url } = await origin(t);
  await t.rejects(download(url, dir, { size: 299_999 }), { code: "BURROW_DIGEST_MISMATCH" });
  await t.rejects(download(url, dir, { size: 300_001 }), { code: "BURROW_DIGEST_MISMATCH" });
  await t.rejects(download(url, dir, { maxBytes: 299_999 }), { code: "BURROW_ORIGIN" });
  t.equal(server.requests.length, 3, "none is asked again");
  t.equal(fs.existsSync(path.join(dir, "a-1-0.conda")), false);
  await download(url, dir, { size: 300_000 });
  t.ok(fs.readFileSync(path.join(dir, "a-1-0.conda")).equals(BYTES));
});

test("a body that ends too early is no success when nothing announced its length", async (t) => {
  let count = 0;
  const url = await serve(t, (_request, response) => {
    count++;
    response.write(BYTES.subarray(0, 1000));
    response.end();
  });
  await t.rejects(download(url, t.testdir({}), { size: 300_000, pauseMs: 1 }), {
    code: "BURROW_ORIGIN",
    message: /ended after 1000 of 300000 bytes/,
  });
  t.equal(count, 3);
});

test("a server that drips is given up, long before its end", async (t) => {
  const { server, dir, url } = await origin(t);
  server.fault = () => "slow"; // a byte each 50 ms: over two hours
  await t.rejects(download(url, dir, { stallMs: 10_000, slowMs: 300, slowBytes: 10_000 }), {
    code: "BURROW_TIMEOUT",
    message: /the server sent \d{1,2} bytes in 0\.3 s/,
    context: { url },
  });
});

test("a connection that breaks is gone on with where it broke", async (t) => {
  const asked: number[] = [];
  const url = await serve(t, (request, response) => {
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
    asked.push(from);
    const range = { "content-range": `bytes ${from}-299999/300000` };
    const rest = BYTES.subarray(from);
    response.writeHead(from > 0 ? 206 : 200, {
      "content-length": rest.length,
      ...(from > 0 ? range : {}),
    });
    if (asked.length === 3) response.end(rest);
    else response.write(rest.subarray(0, 100_000), () => request.socket.end());
  });
  const file = path.join(t.testdir({}), "part");
  await download(url, "", { path: file, resume: true, pauseMs: 1 });
  t.ok(fs.readFileSync(file).equals(BYTES));
  t.equal(asked.length, 3);
  t.same(
    asked,
    [...asked].sort((a, b) => a - b),
    "never further back than before",
  );
  fs.writeFileSync(file, BYTES.subarray(0, 12_345));
  await download(url, "", { path: file, resume: true, pauseMs: 1 }).catch(() => {});
  t.equal(asked[3], 12_345);
});

test("what is there already is not asked for; what can't be gone on with starts over", async (t) => {
  const { server, dir, url } = await origin(t);
  const file = path.join(dir, "part");
  const sum = () => createHash("sha256").update(fs.readFileSync(file)).digest("hex");
  const right = createHash("sha256").update(BYTES).digest("hex");
  fs.writeFileSync(file, BYTES);
  await download(url, dir, { path: file, resume: true, size: BYTES.length });
  t.equal(server.requests.length, 0);
  fs.writeFileSync(file, BYTES.subarray(0, 100));
  server.fault = (_path, count) => (count === 1 ? "whole" : "none");
  await download(url, dir, { path: file, resume: true });
  t.equal(sum(), right, "a server without ranges");
  fs.writeFileSync(file, BYTES.subarray(0, 100));
  server.fault = (_path, count) => (count === 2 ? "wrong-range" : "none");
  await download(url, dir, { path: file, resume: true, pauseMs: 1 });
  t.equal(sum(), right, "a server that sends other bytes");
  fs.writeFileSync(file, Buffer.alloc(400_000));
  await download(url, dir, { path: file, resume: true, size: BYTES.length });
  t.equal(sum(), right, "more than there may be");
});
