// Owns: proof that of a name's addresses those are tried last to which no connection came about. Against networks that swallow packets:
// daemon/network.long. Plane: control.

import dns, { type LookupAddress } from "node:dns";
import { EventEmitter } from "node:events";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { type Test, test } from "tap";
import { lookup, watchAttempts } from "../../lib/store/addresses.ts";
import { httpBackend } from "../../lib/store/http.ts";
import { watchStage } from "../../lib/store/unreachable.ts";
import { sleep } from "../suite/wait.ts";

/** What a connection would try, in order. */
function triedFor(name: string): Promise<string[]> {
  return new Promise((resolve, reject) => {
    lookup(name, { all: true }, (error, found) => {
      if (error) reject(error);
      else resolve((found as LookupAddress[]).map(({ address }) => address));
    });
  });
}

/** Has all names resolve to `addresses`, as they are by then. */
function resolveTo(t: Test, addresses: readonly string[]): void {
  const { lookup: real } = dns.promises;
  const played = async () => addresses.map((address) => ({ address, family: 4 }));
  dns.promises.lookup = played as unknown as typeof real;
  t.teardown(() => {
    dns.promises.lookup = real;
  });
}

test("an address at which nothing listens is tried last from then on, until something does", async (t) => {
  const addresses = ["127.0.0.2", "127.0.0.1", "127.0.0.3"];
  resolveTo(t, addresses);
  const server = http.createServer((_, response) => void response.end("here"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  t.teardown(() => server.close());
  t.same(await triedFor("origin.test"), addresses, "as they were given");
  const read = async (at: number) => {
    const backend = httpBackend(`http://origin.test:${at}`);
    try {
      return String(await backend.get("x"));
    } finally {
      backend.close();
    }
  };
  t.equal(await read(port), "here");
  t.same(await triedFor("origin.test"), ["127.0.0.1", "127.0.0.3", "127.0.0.2"]);
  const other = http.createServer((_, response) => void response.end("there"));
  await new Promise<void>((resolve) => other.listen(port, "127.0.0.2", resolve));
  t.teardown(() => other.close());
  addresses.splice(0, 3, "127.0.0.2");
  t.equal(await read(port), "there");
  addresses.splice(0, 1, "127.0.0.2", "127.0.0.1");
  t.same(await triedFor("origin.test"), ["127.0.0.2", "127.0.0.1"], "it is as good as any again");
});

test("of a name with several addresses it can be told that it was resolved", async (t) => {
  resolveTo(t, ["127.0.0.2", "127.0.0.3"]);
  const request = http.get({ host: "several.test", port: 9, lookup, agent: false });
  const stage = watchStage(request);
  const failed = new Promise((resolve) => request.once("error", resolve));
  t.match(stage(), /all connections are in use/);
  await new Promise<void>((resolve) => {
    request.once("socket", (socket) =>
      socket.once("connectionAttempt", () => {
        t.match(stage(), /no connection: is it up/);
        resolve();
      }),
    );
  });
  await failed;
});

test("an address that swallows packets comes last though those who ask have less time than an attempt", async (t) => {
  resolveTo(t, ["127.0.0.4", "127.0.0.5"]);
  /** A request that is given up so long after its connection was tried at an address. */
  const giveUp = async (address: string, ms: number) => {
    const request = new EventEmitter();
    const socket = Object.assign(new EventEmitter(), { connecting: true });
    watchAttempts(request as http.ClientRequest);
    request.emit("socket", socket);
    socket.emit("connectionAttempt", address, 80, 4);
    if (ms > 0) await sleep(ms);
    socket.emit("close");
  };
  const begunMs = performance.now();
  await giveUp("127.0.0.4", 0);
  // On a machine that stood still meanwhile somebody did.
  if (performance.now() - begunMs < 200)
    t.same(await triedFor("swallowing.test"), ["127.0.0.4", "127.0.0.5"], "nobody waited for it");
  await giveUp("127.0.0.4", 300);
  t.same(await triedFor("swallowing.test"), ["127.0.0.5", "127.0.0.4"]);
});
