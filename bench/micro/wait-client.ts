// A client of bench/micro/wait.ts: asks and waits, one message of 40 bytes at a time, and prints what a round trip took.
// FDs: 3 is the channels' memory, 4 its end. Arguments: kind, offset of its window, rounds.

import { CHANNEL_WINDOW_BYTES } from "../../lib/base/limits.ts";
import { native } from "../../lib/sys/native.ts";
import { quantiles } from "../samples.ts";

const MEMORY_FD = 3;
const END_FD = 4;
/** A Walk of one short name has about this size. */
const MESSAGE_BYTES = 40;
const WARM_UP_ROUNDS = 2_000;
const TIMEOUT_MS = 10_000;

function check(result: number, wanted: number): void {
  if (result !== wanted) throw new Error(`got ${result}, not ${wanted}`);
}

/** A round trip over a channel whose handshake is done here. */
function overChannel(offset: number): () => void {
  const memory = native.map(MEMORY_FD, offset, CHANNEL_WINDOW_BYTES, true);
  if (typeof memory === "number") throw new Error(`can't map: ${memory}`);
  const window = new Uint8Array(memory);
  window.set(Buffer.from("{}\n"), 16);
  check(native.channelCall(window, 3, TIMEOUT_MS), 3);
  return () => check(native.channelCall(window, MESSAGE_BYTES, TIMEOUT_MS), MESSAGE_BYTES);
}

/** A round trip over a stream socket: header of 8 bytes, payload of 32. */
function overSocket(): () => void {
  const message = new Uint8Array(MESSAGE_BYTES);
  new DataView(message.buffer).setUint32(0, MESSAGE_BYTES - 8, true);
  const reply = new Uint8Array(MESSAGE_BYTES);
  return () => {
    check(native.writeFd(END_FD, message), MESSAGE_BYTES);
    check(native.readFd(END_FD, reply), MESSAGE_BYTES);
  };
}

const rounds = Number(process.argv[4]);
const trip = process.argv[2] === "channel" ? overChannel(Number(process.argv[3])) : overSocket();
for (let i = 0; i < Math.min(rounds, WARM_UP_ROUNDS); i++) trip();
const durationsMs = new Float64Array(rounds);
const startedMs = performance.now();
let lastMs = startedMs;
for (let i = 0; i < rounds; i++) {
  trip();
  const nowMs = performance.now();
  durationsMs[i] = nowMs - lastMs;
  lastMs = nowMs;
}
const perSecond = (rounds * 1000) / (lastMs - startedMs);
process.stdout.write(JSON.stringify({ ...quantiles(durationsMs), perSecond }));
