// The server of bench/micro/wait.ts: the gofer's wait and communicators, with an echo in the place of dispatch.
// FDs: 3 is the channels' memory, from 4 on the server's ends. Arguments: kind, how many ends.

import { CHANNEL_WINDOW_BYTES } from "../../lib/base/limits.ts";
import { native } from "../../lib/sys/native.ts";
import { createWait, nextEvent, requestBytes, WaitEvent } from "../../lib/sys/wait.ts";
import { CHANNEL_HEADER_BYTES, Channel } from "../../lib/transport/channel.ts";
import type { Communicator, RequestSink } from "../../lib/transport/communicator.ts";
import { Socket } from "../../lib/transport/socket.ts";

const MEMORY_FD = 3;
const FIRST_END_FD = 4;

const echo: RequestSink = {
  handle: (from: Communicator, mid: number, payloadBytes: number) => from.reply(mid, payloadBytes),
  // The bench kills this process: a client that ended is just not heard of again.
  end: () => {},
};

/** One socket and nothing else: block in read(2), write back. */
function serveDirect(fd: number): void {
  const bytes = new Uint8Array(4096);
  for (;;) {
    const got = native.readFd(fd, bytes);
    if (got <= 0) return;
    native.writeFd(fd, bytes.subarray(0, got));
  }
}

/** The loop of lib/gofer/loop.ts, less parking. */
function serveAll(channels: readonly Channel[], sockets: readonly Socket[]): void {
  const bySlot: Channel[] = [];
  for (const channel of channels) bySlot[channel.slot] = channel;
  const socketBySlot: Socket[] = [];
  for (const socket of sockets) socketBySlot[socket.slot] = socket;
  let channel: Channel | undefined;
  for (;;) {
    const replySlot = channel === undefined || channel.replyBytes < 0 ? -1 : channel.slot;
    const replyBytes = replySlot < 0 ? 0 : channel!.replyBytes;
    if (replySlot >= 0) channel!.replyBytes = -1;
    channel = undefined;
    const event = nextEvent(replySlot, replyBytes, -1);
    if (event < 0) return;
    if (event < WaitEvent.socket) {
      channel = bySlot[event]!;
      const mid = channel.receive(requestBytes());
      if (mid >= 0) channel.reply(mid, requestBytes() - CHANNEL_HEADER_BYTES);
    } else if (event < WaitEvent.closed) {
      socketBySlot[event - WaitEvent.socket]!.advance();
    }
  }
}

function opened<T>(result: T | number): T {
  if (typeof result === "number") throw new Error(`can't open: ${result}`);
  return result;
}

const kind = process.argv[2];
const ends = Array.from({ length: Number(process.argv[3]) }, (_, i) => FIRST_END_FD + i);
if (kind === "direct") serveDirect(FIRST_END_FD);
else {
  createWait();
  const channels =
    kind !== "channel"
      ? []
      : ends.map((fd, i) => opened(Channel.open(MEMORY_FD, i * CHANNEL_WINDOW_BYTES, fd)));
  const sockets = kind !== "socket" ? [] : ends.map((fd) => opened(Socket.open(fd, echo)));
  serveAll(channels, sockets);
}
process.exit(0);
