// Trace: what one gofer was asked, when, and how long it took, in a mapped file of fixed size that whoever asked for the trace made:
// docs/format/trace.md. Off, which is how it is, it costs a comparison a request. Data plane (write), any (read).

import { MISS } from "../base/errno.ts";

const TRACE_HEADER_BYTES = 64;
const TRACE_RECORD_BYTES = 32;
/** A start has some thousand requests; what comes after so many is counted. */
export const TRACE_RECORDS_MAX = 131_072;
export const TRACE_BYTES: number = TRACE_HEADER_BYTES + TRACE_RECORD_BYTES * TRACE_RECORDS_MAX;
/** In the place of a message's id: a request that waited for bytes, from its ask to the answer. */
export const TRACED_MISS = 255;

/** "BRT1", little-endian. */
const MAGIC = 0x3154_5242;
const COUNT = 4;
const DROPPED = 8;

/** One record. */
export interface Traced {
  /** A message's id, or TRACED_MISS. */
  readonly kind: number;
  /** Position among the sandbox's mounts. */
  readonly mount: number;
  /** 0 or a positive errno. */
  readonly errno: number;
  /** By CLOCK_MONOTONIC. */
  readonly startMs: number;
  readonly durationMs: number;
  /** The inode that it is about, of a view; of a miss Mailbox.lastPlace; 0: none that is known. */
  readonly subject: number;
  /** Of a PRead: offset in pages, and bytes; of a Walk: names. */
  readonly offset: number;
  readonly count: number;
}

export class Trace {
  readonly #view: DataView;
  readonly #originMs: number;

  /** A home of TRACE_BYTES, zeroed or with what a predecessor has noted. `originMs`: performance.now()'s, by CLOCK_MONOTONIC. */
  constructor(home: ArrayBuffer, originMs: number) {
    this.#view = new DataView(home, 0, TRACE_BYTES);
    this.#view.setUint32(0, MAGIC, true);
    this.#originMs = originMs;
  }

  /** Notes what began at `startMs` of performance.now() and has ended now. */
  note(
    kind: number,
    mount: number,
    outcome: number,
    startMs: number,
    subject: number,
    offset: number,
    count: number,
  ): void {
    const view = this.#view;
    const nth = view.getUint32(COUNT, true);
    if (nth >= TRACE_RECORDS_MAX) {
      view.setUint32(DROPPED, view.getUint32(DROPPED, true) + 1, true);
      return;
    }
    const at = TRACE_HEADER_BYTES + nth * TRACE_RECORD_BYTES;
    view.setFloat64(at, this.#originMs + startMs, true);
    view.setFloat32(at + 8, performance.now() - startMs, true);
    view.setUint8(at + 12, kind);
    view.setUint8(at + 13, mount);
    view.setUint16(at + 14, outcome < 0 && outcome !== MISS ? -outcome : 0, true);
    view.setFloat64(at + 16, subject, true);
    view.setUint32(at + 24, offset, true);
    view.setUint32(at + 28, count, true);
    view.setUint32(COUNT, nth + 1, true);
  }
}

/** Where requests of this process are noted; undefined: nowhere. */
export let trace: Trace | undefined;

export function useTrace(to: Trace): void {
  trace = to;
}

/** The gofer's file may say anything. */
function finite(value: number): number {
  return Number.isFinite(value) ? value : 0;
}

/** What a trace's file holds, in its order, and how many found no room. A file that is none has nothing. */
export function readTrace(bytes: Uint8Array): { records: Traced[]; dropped: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < TRACE_BYTES || view.getUint32(0, true) !== MAGIC)
    return { records: [], dropped: 0 };
  const records: Traced[] = [];
  const count = Math.min(TRACE_RECORDS_MAX, view.getUint32(COUNT, true));
  for (let nth = 0; nth < count; nth++) {
    const at = TRACE_HEADER_BYTES + nth * TRACE_RECORD_BYTES;
    records.push({
      startMs: finite(view.getFloat64(at, true)),
      durationMs: finite(view.getFloat32(at + 8, true)),
      kind: view.getUint8(at + 12),
      mount: view.getUint8(at + 13),
      errno: view.getUint16(at + 14, true),
      subject: finite(view.getFloat64(at + 16, true)),
      offset: view.getUint32(at + 24, true),
      count: view.getUint32(at + 28, true),
    });
  }
  return { records, dropped: view.getUint32(DROPPED, true) };
}
