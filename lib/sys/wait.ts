// The one wait of a gofer: every channel's futex word and every socket, in one native call on the data-plane thread.
// Once a process. Any thread can end the wait by ring(). native/addon/channel.c does the work; its header says how.

import { assert } from "../base/assert.ts";
import { native } from "./native.ts";

/** What next() returns besides a channel's slot (0 to 126): add the slot to SOCKET and CLOSED. -ETIMEDOUT is < 0. */
export const WaitEvent = { socket: 1000, closed: 2000, ring: 3000 } as const;

// Linux's: sys/epoll.h.
const EPOLLIN = 1;
const EPOLLOUT = 4;
const EPOLLONESHOT = 1 << 30;

/** [1] is the native side's own. */
const events = new Int32Array(2);
let isCreated = false;

/**
 * Starts the wait; later calls do nothing. `isAlone`: there will be no channels, and nobody rings, so that it needs no helper thread and
 * a socket's news comes without a detour.
 */
export function createWait(isAlone = false): void {
  if (isCreated) return;
  const result = native.waitCreate(events, isAlone);
  assert(result === 0, "the wait starts");
  isCreated = true;
}

/**
 * Answers the channel `replySlot` with `replyBytes` of datagram (-1: none), then blocks until there is work: a
 * channel's slot, WaitEvent + slot, or -ETIMEDOUT after timeoutMs (-1: no limit).
 */
export const nextEvent: (replySlot: number, replyBytes: number, timeoutMs: number) => number =
  native.waitNext;

/** Datagram bytes of the channel that nextEvent just returned; -1 when the client's count was out of bounds. */
export function requestBytes(): number {
  return events[0]!;
}

/** Answers a channel outside nextEvent: 0, or -EPIPE when the client shut it down. */
export const replyTo: (slot: number, bytes: number) => number = native.waitReply;
/**
 * Watches a window (the caller keeps it and the journal mapped until dropChannel): a slot or -ENOMEM. isResumed: another server had
 * the channel. An empty journal is none.
 */
export const addChannel: (window: Uint8Array, journal: Uint8Array, isResumed: boolean) => number =
  native.waitAddChannel;
/** Shuts a channel down, or leaves it as it is to another server, and forgets its window. */
export const dropChannel: (slot: number, isLeft: boolean) => number = native.waitDropChannel;
/** Watches a socket, armed for one input event: a slot or -errno. The caller owns the FD. */
export const addSocket: (fd: number) => number = native.waitAddSocket;
/** Arms one more event, input or output. */
export function armSocket(slot: number, forOutput: boolean): number {
  return native.waitArmSocket(slot, (forOutput ? EPOLLOUT : EPOLLIN) | EPOLLONESHOT);
}
/** Has an event come as long as there is input, until the socket is armed again. Only of a wait that is alone. */
export function watchSocket(slot: number): number {
  return native.waitArmSocket(slot, EPOLLIN);
}
/** Forgets a socket; call it before closing the FD. */
export const dropSocket: (slot: number) => number = native.waitDropSocket;
/** Ends the wait from any thread. */
export const ring: () => number = native.waitRing;
