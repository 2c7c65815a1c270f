// A daemon that a test plays: it welcomes every mount and answers each ask of a blob, or of a direct mount, as it is told. Tests only.

import { createServer, type Server } from "node:net";
import { join } from "node:path";
import {
  AnswerState,
  encodeAnswer,
  encodeWelcome,
  FRAME_MAX_BYTES,
  Frame,
  frameBytes,
  frameId,
  frameType,
} from "../../lib/cache/mailbox-wire.ts";

/** Listens at the cache of `directory` (a view-cache's), and answers every ask by `answer`: its errno. */
export function playDaemon(directory: string, answer: () => number): Promise<Server> {
  const out = Buffer.alloc(FRAME_MAX_BYTES);
  const server = createServer((socket) => {
    let rest = Buffer.alloc(0);
    socket.on("data", (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk]);
      for (;;) {
        const length = frameBytes(rest, 0, rest.length);
        if (length <= 0) return;
        const [type, id] = [frameType(rest, 0), frameId(rest, 0)];
        rest = rest.subarray(length);
        const fields = { errno: 0, state: AnswerState.complete, name: "" };
        const isHello = type === Frame.hello;
        if (!isHello && type !== Frame.askBlob && type !== Frame.askDirect) continue;
        if (!isHello) fields.errno = answer();
        const bytes = isHello ? encodeWelcome(out, id, 0, 1) : encodeAnswer(out, id, fields);
        socket.write(Buffer.from(out.subarray(0, bytes)));
      }
    });
    socket.on("error", () => {});
  });
  return new Promise((resolve) => {
    server.listen(join(directory, "cache/daemon.sock"), () => resolve(server));
  });
}
