// The frames of the mailbox between gofer and daemon: docs/protocol/mailbox.md is the normative text. Encoders write into a
// buffer of the caller, decoders read from one; neither keeps it. Little-endian. Pure; data-plane rules.

import { latin1At, viewOf } from "../base/bytes.ts";
import { Errno } from "../base/errno.ts";
import { TOUCH_WORDS, TOUCHES_PER_FRAME } from "../base/limits.ts";
import { LOCAL_TOUCH } from "./touches.ts";

export const MAILBOX_VERSION = 1;
/** u32 length of what follows it, u16 type, u16 flags (zero but in a HELLO), u32 id. */
export const FRAME_BYTES = 12;
/** A whole frame, its length field included. */
export const FRAME_MAX_BYTES = 65_536;
/** A whole frame to the daemon: a HELLO with the longest mount id has 146. */
export const REQUEST_MAX_BYTES = 256;
/** The same from who was told that its touches are wanted. */
export const TOUCHES_MAX_BYTES = FRAME_BYTES + 4 * TOUCH_WORDS * TOUCHES_PER_FRAME;

export const Frame = {
  hello: 1,
  welcome: 2,
  askBlob: 3,
  askBlocks: 4,
  answer: 5,
  cancel: 6,
  status: 7,
  statusReply: 8,
  stop: 9,
  askLazy: 10,
  look: 11,
  touches: 12,
  trace: 13,
  traced: 14,
  working: 15,
  askDirect: 16,
} as const;

/** State in an ANSWER with errno 0. Of those that end in "Here" the file comes along as a descriptor. */
export const AnswerState = {
  complete: 1,
  partial: 2,
  completeHere: 3,
  lazy: 4,
  partialHere: 5,
} as const;

/** Flag of a HELLO: its sender takes descriptors with answers. */
const TAKES_FILES = 1;
/** Flag of a HELLO: its sender waits for as long as it hears that its asks are worked on. */
const HEARS_WORK = 2;
/** Flag of a WELCOME: its sender takes touches. */
const TAKES_TOUCHES = 1;

const LENGTH_BYTES = 4;
const MOUNT_ID_MAX_BYTES = 128;

/** Scratch for decodeAsk: reused by its owner. */
export interface AskFields {
  snapshot: number;
  row: number;
  /** First block and count; count 0 asks for the whole blob. */
  first: number;
  count: number;
}

/** Scratch for decodeAnswer. */
export interface AnswerFields {
  errno: number;
  state: number;
  /** File below partial/ or lazy/, or what a partial file that is brought along is called; or "". */
  name: string;
}

/** Writes a frame's head over `bodyBytes` that stand behind it: bytes of the frame, or -ENOBUFS. */
function head(out: Uint8Array, type: number, id: number, bodyBytes: number): number {
  const bytes = FRAME_BYTES + bodyBytes;
  if (bytes > out.length || bytes > FRAME_MAX_BYTES) return -Errno.ENOBUFS;
  const view = viewOf(out);
  view.setUint32(0, bytes - LENGTH_BYTES, true);
  view.setUint16(4, type, true);
  view.setUint16(6, 0, true);
  view.setUint32(8, id, true);
  return bytes;
}

function writeLatin1(out: Uint8Array, at: number, text: string): void {
  for (let i = 0; i < text.length; i++) out[at + i] = text.charCodeAt(i);
}

/**
 * Bytes of the frame that starts at `start`, 0 while `end` cuts it off, or -EIO when its length can't be (past `max`, too):
 * then the connection is closed.
 */
export function frameBytes(
  bytes: Uint8Array,
  start: number,
  end: number,
  max: number = FRAME_MAX_BYTES,
): number {
  if (end - start < LENGTH_BYTES) return 0;
  const length = viewOf(bytes).getUint32(start, true) + LENGTH_BYTES;
  if (length < FRAME_BYTES || length > max) return -Errno.EIO;
  return end - start < length ? 0 : length;
}

/** Type of a whole frame at `start`. */
export function frameType(bytes: Uint8Array, start: number): number {
  return viewOf(bytes).getUint16(start + 4, true);
}

/** Id of a whole frame at `start`. */
export function frameId(bytes: Uint8Array, start: number): number {
  return viewOf(bytes).getUint32(start + 8, true);
}

export function encodeHello(
  out: Uint8Array,
  id: number,
  mountId: string,
  hearsWork = false,
): number {
  const bytes = head(out, Frame.hello, id, 6 + mountId.length);
  if (bytes < 0) return bytes;
  const view = viewOf(out);
  view.setUint16(6, TAKES_FILES | (hearsWork ? HEARS_WORK : 0), true);
  view.setUint32(FRAME_BYTES, MAILBOX_VERSION, true);
  view.setUint16(FRAME_BYTES + 4, mountId.length, true);
  writeLatin1(out, FRAME_BYTES + 6, mountId);
  return bytes;
}

/** The mount id of a whole HELLO: "" when the frame is short or its id too long or empty. */
export function helloMountId(bytes: Uint8Array, start: number, length: number): string {
  if (length < FRAME_BYTES + 6) return "";
  const count = viewOf(bytes).getUint16(start + FRAME_BYTES + 4, true);
  if (count > MOUNT_ID_MAX_BYTES || count !== length - FRAME_BYTES - 6) return "";
  const at = start + FRAME_BYTES + 6;
  return latin1At(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), at, at + count);
}

/** Whether the sender of a whole HELLO takes descriptors with answers. */
export function helloTakesFiles(bytes: Uint8Array, start: number): boolean {
  return (viewOf(bytes).getUint16(start + 6, true) & TAKES_FILES) !== 0;
}

/** Whether the sender of a whole HELLO is to hear that its asks are worked on. */
export function helloHearsWork(bytes: Uint8Array, start: number): boolean {
  return (viewOf(bytes).getUint16(start + 6, true) & HEARS_WORK) !== 0;
}

/** Whether an answer brings its file along. */
export function bringsFile(answer: AnswerFields): boolean {
  const { errno, state } = answer;
  return errno === 0 && (state === AnswerState.completeHere || state === AnswerState.partialHere);
}

/** The version of a whole HELLO, or -EIO. */
export function helloVersion(bytes: Uint8Array, start: number, length: number): number {
  if (length < FRAME_BYTES + 4) return -Errno.EIO;
  return viewOf(bytes).getUint32(start + FRAME_BYTES, true);
}

export function encodeWelcome(
  out: Uint8Array,
  id: number,
  errno: number,
  snapshots: number,
  takesTouches = false,
): number {
  const bytes = head(out, Frame.welcome, id, 8);
  if (bytes < 0) return bytes;
  const view = viewOf(out);
  view.setUint16(6, takesTouches ? TAKES_TOUCHES : 0, true);
  view.setUint32(FRAME_BYTES, errno, true);
  view.setUint32(FRAME_BYTES + 4, snapshots, true);
  return bytes;
}

/** 0 or a positive errno of a whole WELCOME, or -EIO. */
export function welcomeErrno(bytes: Uint8Array, start: number, length: number): number {
  if (length !== FRAME_BYTES + 8) return -Errno.EIO;
  return viewOf(bytes).getUint32(start + FRAME_BYTES, true);
}

/** Whether the sender of a whole WELCOME takes touches. */
export function welcomeTakesTouches(bytes: Uint8Array, start: number): boolean {
  return (viewOf(bytes).getUint16(start + 6, true) & TAKES_TOUCHES) !== 0;
}

/** The first `count` touches of a table's words. */
export function encodeTouches(out: Uint8Array, words: Uint32Array, count: number): number {
  const bytes = head(out, Frame.touches, 0, 4 * TOUCH_WORDS * count);
  if (bytes < 0) return bytes;
  const view = viewOf(out);
  for (let i = 0; i < TOUCH_WORDS * count; i++)
    view.setUint32(FRAME_BYTES + 4 * i, words[i]!, true);
  return bytes;
}

/** What a gofer first read: blocks [first, first + count) of a row's blob, or all of it when count is 0. */
export interface Touch {
  readonly snapshot: number;
  readonly row: number;
  readonly first: number;
  readonly count: number;
  /** It was on this node by then. */
  readonly isLocal: boolean;
  /** Since the gofer opened the view. */
  readonly atMs: number;
}

/** The touches of a whole TOUCHES; undefined of a frame that isn't one: all of a blob has no first block, so of a row there is one such touch. */
export function decodeTouches(
  bytes: Uint8Array,
  start: number,
  length: number,
): Touch[] | undefined {
  const body = length - FRAME_BYTES;
  if (body === 0 || body % (4 * TOUCH_WORDS) !== 0) return undefined;
  const view = viewOf(bytes);
  const touches: Touch[] = [];
  for (let at = start + FRAME_BYTES; at < start + length; at += 4 * TOUCH_WORDS) {
    const snapshot = view.getUint32(at, true);
    const first = view.getUint32(at + 8, true);
    const count = view.getUint32(at + 12, true);
    // Each of them would be taken for all blocks of the row that are known.
    if (count === 0 && first !== 0) return undefined;
    touches.push({
      snapshot: (snapshot & ~LOCAL_TOUCH) >>> 0,
      isLocal: (snapshot & LOCAL_TOUCH) !== 0,
      row: view.getUint32(at + 4, true),
      first,
      count,
      atMs: view.getUint32(at + 16, true),
    });
  }
  return touches;
}

export function encodeAskBlob(out: Uint8Array, id: number, snapshot: number, row: number): number {
  return encodeAskRow(out, Frame.askBlob, id, snapshot, row);
}

/** Asks for a file that can be read before it is whole. */
export function encodeAskLazy(out: Uint8Array, id: number, snapshot: number, row: number): number {
  return encodeAskRow(out, Frame.askLazy, id, snapshot, row);
}

function encodeAskRow(
  out: Uint8Array,
  type: number,
  id: number,
  snapshot: number,
  row: number,
): number {
  const bytes = head(out, type, id, 8);
  if (bytes < 0) return bytes;
  const view = viewOf(out);
  view.setUint32(FRAME_BYTES, snapshot, true);
  view.setUint32(FRAME_BYTES + 4, row, true);
  return bytes;
}

/** `ask.count` > 0 blocks from `ask.first`. */
export function encodeAskBlocks(out: Uint8Array, id: number, ask: AskFields): number {
  const bytes = head(out, Frame.askBlocks, id, 16);
  if (bytes < 0) return bytes;
  const view = viewOf(out);
  view.setUint32(FRAME_BYTES, ask.snapshot, true);
  view.setUint32(FRAME_BYTES + 4, ask.row, true);
  view.setUint32(FRAME_BYTES + 8, ask.first, true);
  view.setUint32(FRAME_BYTES + 12, ask.count, true);
  return bytes;
}

/** Reads a whole ASK_BLOB, ASK_LAZY or ASK_BLOCKS into `ask`: 0 or -EIO. */
export function decodeAsk(
  bytes: Uint8Array,
  start: number,
  length: number,
  ask: AskFields,
): number {
  const isBlob = frameType(bytes, start) !== Frame.askBlocks;
  if (length !== FRAME_BYTES + (isBlob ? 8 : 16)) return -Errno.EIO;
  const view = viewOf(bytes);
  ask.snapshot = view.getUint32(start + FRAME_BYTES, true);
  ask.row = view.getUint32(start + FRAME_BYTES + 4, true);
  ask.first = isBlob ? 0 : view.getUint32(start + FRAME_BYTES + 8, true);
  ask.count = isBlob ? 0 : view.getUint32(start + FRAME_BYTES + 12, true);
  return isBlob || ask.count > 0 ? 0 : -Errno.EIO;
}

export function encodeAnswer(out: Uint8Array, id: number, answer: AnswerFields): number {
  const bytes = head(out, Frame.answer, id, 10 + answer.name.length);
  if (bytes < 0) return bytes;
  const view = viewOf(out);
  view.setUint32(FRAME_BYTES, answer.errno, true);
  view.setUint32(FRAME_BYTES + 4, answer.state, true);
  view.setUint16(FRAME_BYTES + 8, answer.name.length, true);
  writeLatin1(out, FRAME_BYTES + 10, answer.name);
  return bytes;
}

/** Reads a whole ANSWER into `answer`: 0 or -EIO. The name is checked to be one file name. */
export function decodeAnswer(
  bytes: Uint8Array,
  start: number,
  length: number,
  answer: AnswerFields,
): number {
  if (length < FRAME_BYTES + 10) return -Errno.EIO;
  const view = viewOf(bytes);
  const count = view.getUint16(start + FRAME_BYTES + 8, true);
  if (count !== length - FRAME_BYTES - 10) return -Errno.EIO;
  const at = start + FRAME_BYTES + 10;
  const name = latin1At(
    Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
    at,
    at + count,
  );
  if (name.includes("/") || name.includes("\0") || name.startsWith(".")) return -Errno.EIO;
  answer.errno = view.getUint32(start + FRAME_BYTES, true);
  answer.state = view.getUint32(start + FRAME_BYTES + 4, true);
  answer.name = name;
  return 0;
}

/** CANCEL, STATUS, WORKING, STOP and ASK_DIRECT have no body. */
export function encodeBare(out: Uint8Array, type: number, id: number): number {
  return head(out, type, id, 0);
}

/** STATUS_REPLY around a JSON body. */
export function encodeStatusReply(out: Uint8Array, id: number, json: Uint8Array): number {
  return encodeJson(out, Frame.statusReply, id, json);
}

/** TRACED around a JSON body. */
export function encodeTraced(out: Uint8Array, id: number, json: Uint8Array): number {
  return encodeJson(out, Frame.traced, id, json);
}

function encodeJson(out: Uint8Array, type: number, id: number, json: Uint8Array): number {
  const bytes = head(out, type, id, json.length);
  if (bytes >= 0) out.set(json, FRAME_BYTES);
  return bytes;
}
