// That bodies which come all at once leave the loop its turns: counted in bytes, whatever a turn takes.

import { once } from "node:events";
import http, { type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { PassThrough } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import { test } from "tap";
import { BodyTurns } from "../../lib/store/body-turns.ts";
import { readObject } from "../../lib/store/exchange.ts";
import { noise } from "../suite/daemon-node.ts";

const MIB = 1024 * 1024;

test("bodies that are all here are taken over several turns of the loop, none of them left behind", async (t) => {
  const turns = new BodyTurns();
  const bodies = Array.from({ length: 4 }, () => new PassThrough({ highWaterMark: 8 * MIB }));
  const taken = bodies.map(() => 0);
  let ofTurn = 0;
  let most = 0;
  for (const [i, body] of bodies.entries()) {
    for (let k = 0; k < 64; k++) body.write(Buffer.alloc(64 * 1024));
    body.end();
    body.on("data", (piece: Buffer) => {
      taken[i]! += piece.length;
      ofTurn += piece.length;
      turns.took(body, piece.length);
    });
  }
  const ended = Promise.all(bodies.map((body) => once(body, "end")));
  let isOver = false;
  void ended.then(() => {
    isOver = true;
  });
  while (!isOver) {
    await turn();
    most = Math.max(most, ofTurn);
    ofTurn = 0;
  }
  t.same(taken, [4 * MIB, 4 * MIB, 4 * MIB, 4 * MIB]);
  t.ok(most <= 2 * MIB, `${most} bytes in one turn`);
});

test("a body that pauses between turns comes whole", async (t) => {
  const content = noise(9 * MIB + 17);
  const server = http.createServer((_, response) => {
    response.writeHead(200, { "content-length": content.length }).end(content);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.teardown(() => server.close());
  const { port } = server.address() as AddressInfo;
  const read = async () => {
    const request = http.get({ host: "127.0.0.1", port, agent: false });
    const [response] = (await once(request, "response")) as [IncomingMessage];
    const facts = { path: "/" };
    const rest = { range: undefined, signal: undefined, facts };
    return await readObject(response, { maxBytes: 16 * MIB, stallMs: 60_000, ...rest });
  };
  for (const got of await Promise.all([read(), read(), read()])) t.ok(got.equals(content));
});
