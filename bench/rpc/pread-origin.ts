// An origin of benches: `node pread-origin.js DIR MBIT [LATENCY_MS]` serves the files of a directory by ranges over HTTP on loopback, no
// faster than a link of so many Mbit/s, each answer so much later, and prints its port.

import fs from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

const [folder, mbit] = [process.argv[2]!, Number(process.argv[3])];
const latencyMs = Number(process.argv[4] ?? 0);
const PIECE_BYTES = 64 * 1024;
const bytesPerMs = (mbit * 1e6) / 8 / 1000;
let freeAtMs = 0;

/** Takes a piece's time on the link, which all requests share. */
async function transmit(bytes: number): Promise<void> {
  const nowMs = performance.now();
  freeAtMs = Math.max(freeAtMs, nowMs) + bytes / bytesPerMs;
  if (freeAtMs - nowMs > 2) await sleep(freeAtMs - nowMs);
}

const server = http.createServer(async (request, response) => {
  try {
    if (latencyMs > 0) await sleep(latencyMs);
    const fd = fs.openSync(`${folder}${decodeURIComponent(request.url ?? "/")}`, "r");
    const { size } = fs.fstatSync(fd);
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
    const start = Number(from ?? 0);
    const end = to === undefined ? size : Math.min(size, Number(to) + 1);
    const range = { "content-range": `bytes ${start}-${end - 1}/${size}` };
    response.writeHead(from === undefined ? 200 : 206, {
      "content-length": end - start,
      ...(from === undefined ? {} : range),
    });
    for (let at = start; at < end; at += PIECE_BYTES) {
      const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, end - at));
      fs.readSync(fd, piece, 0, piece.length, at);
      await transmit(piece.length);
      response.write(piece);
    }
    fs.closeSync(fd);
    response.end();
  } catch {
    response.writeHead(404).end();
  }
});
server.listen(0, "127.0.0.1", () => {
  process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
});
