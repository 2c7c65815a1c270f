// That requests which are made together begin a few in each turn of the loop: counted by what Node.js says of them, whatever a turn takes.

import diagnostics from "node:diagnostics_channel";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { setImmediate as turn } from "node:timers/promises";
import { type Test, test } from "tap";
import { httpBackend } from "../../lib/store/http.ts";

/** Said of each request as it begins: docs of node:diagnostics_channel. */
const BEGINS = "http.client.request.start";

/** A store whose objects are all "here", and how many requests began so far. */
async function scene(t: Test) {
  const server = http.createServer((_, response) => void response.end("here"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const backend = httpBackend(`http://127.0.0.1:${port}`);
  const facts = { backend, begun: 0 };
  const count = () => {
    facts.begun++;
  };
  diagnostics.subscribe(BEGINS, count);
  t.teardown(() => {
    diagnostics.unsubscribe(BEGINS, count);
    backend.close();
    server.close();
  });
  return facts;
}

test("requests that are made together begin a few in a turn of the loop", async (t) => {
  const facts = await scene(t);
  const options = { maxBytes: 100 };
  const all = Array.from({ length: 9 }, (_, i) => facts.backend.get(`object-${i}`, options));
  let seen = 0;
  for (let turns = 0; facts.begun < all.length && turns < 100; turns++) {
    await turn();
    t.ok(facts.begun - seen <= 4, "those of a turn, and where this one begins between two");
    seen = facts.begun;
  }
  for (const body of await Promise.all(all)) t.equal(String(body), "here");
  t.equal(facts.begun, 9);
});

test("one that is given up while it stands in line is never sent", async (t) => {
  const facts = await scene(t);
  const control = new AbortController();
  const options = { maxBytes: 100, signal: control.signal };
  const others = Array.from({ length: 4 }, (_, i) =>
    facts.backend.get(`object-${i}`, { maxBytes: 100 }),
  );
  const late = facts.backend.get("object-late", options);
  control.abort();
  await t.rejects(late, { code: "BURROW_TIMEOUT" });
  await Promise.all(others);
  t.equal(facts.begun, 4);
});
