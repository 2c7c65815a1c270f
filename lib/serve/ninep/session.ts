// Session: one 9P client on its stream: negotiates, keeps tags and fids, answers requests in the order in which they can be, and parks
// those that wait for bytes. All of it belongs to the data-plane thread. 9P2000 intro(5), flush(5). Data plane.

import { Errno, MISS } from "../../base/errno.ts";
import {
  NINEP_MESSAGE_MAX_BYTES,
  NINEP_MESSAGE_MIN_BYTES,
  NINEP_PARKED_BYTES_MAX,
  NINEP_PARKED_MAX,
  NINEP_TURN_MESSAGES,
  NINEP_TURN_MS,
} from "../../base/limits.ts";
import type { Stream } from "../../transport/stream.ts";
import { Cursor } from "../../wire/cursor.ts";
import type { Request } from "../../wire/ninep/message.ts";
import {
  HEADER_BYTES,
  NOTAG,
  RLERROR,
  Type,
  UNKNOWN_VERSION,
  VERSION,
} from "../../wire/ninep/type.ts";
import { Count, counters } from "../counters.ts";
import type { Waiting } from "../park.ts";
import { dispatch, type LogLine, lastFid } from "./dispatch.ts";
import { type FidLimits, FidTable } from "./fid-table.ts";
import type { ServedView } from "./view.ts";

/** A request that waits for bytes. */
export interface ParkedRequest extends Waiting {
  readonly connection: Session;
  readonly tag: number;
  readonly type: number;
  /** Its body, copied: the stream's buffer goes on. */
  readonly body: Uint8Array;
  readonly view: ServedView;
  /** How often its bytes had come and were gone again. */
  reruns: number;
  /** When it is ready: 0 to run it again, or the errno that its bytes came to. */
  errno: number;
}

/** What a session needs of the process that it lives in. */
export interface SessionHost {
  readonly log: LogLine;
  /** The view that an aname picks. */
  viewOf(aname: string): ServedView | undefined;
  /** The ticket of `parked.view`'s last miss is what it waits for. */
  park(parked: ParkedRequest): void;
  /** Nobody waits for it any more. */
  unpark(parked: ParkedRequest): void;
  /** Since when a request waits that is parked now, and until when. */
  wait(): Pick<Waiting, "sinceMs" | "deadlineMs">;
  /** The session ended and freed all it held. */
  ended(session: Session): void;
}

/** How often a request may find its bytes gone again between answer and run. */
const RERUNS_MAX = 64;

/** The versions that are known by name and not spoken. */
const LEGACY: readonly string[] = ["9P2000", "9P2000.u"];

export class Session {
  readonly stream: Stream;
  readonly fids: FidTable;
  /** Positive errno that every request of this client is answered with; 0: it is served. */
  readonly refusal: number;
  isOpen = true;
  /** Tversion was agreed upon. */
  isVersioned = false;
  /** Over the bytes that the request under way was decoded from. */
  requests: Cursor;
  /** Over the stream's two buffers. */
  #incoming: Cursor;
  #outgoing: Cursor;
  readonly #host: SessionHost;
  /** By tag. */
  readonly #parked = new Map<number, ParkedRequest>();
  readonly #ready: ParkedRequest[] = [];
  /** The next message would have to be parked and there is no place: until one is free it stays where it is. */
  #isStalled = false;
  #hasNoted = false;
  /** msize that holds after the reply under way; 0: no change. */
  #nextMessageMax = 0;

  constructor(stream: Stream, limits: FidLimits, refusal: number, host: SessionHost) {
    this.stream = stream;
    this.fids = new FidTable(limits);
    this.refusal = refusal;
    this.#incoming = new Cursor(stream.incoming);
    this.#outgoing = new Cursor(stream.outgoing);
    this.requests = this.#incoming;
    this.#host = host;
  }

  get parkedCount(): number {
    return this.#parked.size;
  }

  viewOf(aname: string): ServedView | undefined {
    return this.#host.viewOf(aname);
  }

  /**
   * Goes on with what is under way, for some requests and some time at most: whether there is more to do at once. Else an event on the socket, or
   * wake(), is to be waited for.
   */
  turn(): boolean {
    let end = 0;
    for (let run = 0; run < NINEP_TURN_MESSAGES && this.isOpen; ) {
      if (this.stream.room() < 0 && !this.#send()) return false;
      const isReady = this.#ready.length > 0;
      if (!isReady && this.#isStalled) {
        if (this.#send()) this.stream.rest();
        return false;
      }
      const bytes = isReady ? 0 : this.stream.next();
      if (bytes < 0) return this.#breach();
      if (!isReady && bytes === 0) {
        if (!this.#receive()) return false;
        continue;
      }
      // The clock isn't asked for one request alone, which is what most turns are of.
      if (run === 1) end = performance.now() + NINEP_TURN_MS;
      else if (run > 1 && performance.now() >= end) break;
      if (isReady) this.#rerun(this.#ready.shift()!);
      else this.#handle(bytes);
      run++;
    }
    return this.isOpen && this.#send();
  }

  /** Sends what there is: false when the client doesn't take it now, or is gone. */
  #send(): boolean {
    const outcome = this.stream.flush();
    if (outcome === 0) return true;
    if (outcome === -Errno.EAGAIN) this.stream.arm(true);
    else this.end();
    return false;
  }

  /** Replies go out before more is waited for. False: nothing more came. */
  #receive(): boolean {
    if (!this.#send()) return false;
    const got = this.stream.receive();
    if (got > 0) return true;
    if (got === -Errno.EAGAIN) this.stream.arm(false);
    else this.end();
    return false;
  }

  /** A size that no message may have: the stream can't be followed any more. */
  #breach(): false {
    this.#host.log(
      "a client is disconnected: it sent a message of a size that was not agreed upon",
    );
    this.#putError(NOTAG, Errno.EPROTO);
    this.stream.flush();
    this.end();
    return false;
  }

  /** Runs the next message, which is here whole. */
  #handle(bytes: number): void {
    const { stream } = this;
    const start = stream.messageStart;
    const { view } = this.#incoming;
    const type = view.getUint8(start + 4);
    const tag = view.getUint16(start + 5, true);
    this.requests = this.#incoming.seek(start + HEADER_BYTES, start + bytes);
    const isDuplicate = this.#parked.has(tag) || (tag === NOTAG && type !== Type.version);
    if (this.refusal !== 0) this.#putError(tag, this.refusal);
    else if (isDuplicate) this.#putError(tag, Errno.EINVAL);
    else if (this.#run(type, tag) === MISS && !this.#park(type, tag, start, bytes)) return;
    stream.take(bytes);
    if (this.refusal !== 0) {
      stream.flush();
      this.end();
    }
    if (this.#nextMessageMax === 0 || !this.isOpen) return;
    stream.resize(this.#nextMessageMax);
    this.#nextMessageMax = 0;
    this.#incoming = new Cursor(stream.incoming);
    this.#outgoing = new Cursor(stream.outgoing);
  }

  /** Parks the message that missed: false when there is no place for it now. */
  #park(type: number, tag: number, start: number, bytes: number): boolean {
    const view = this.fids.get(lastFid())?.view;
    if (view?.mailbox === undefined || bytes > NINEP_PARKED_BYTES_MAX) {
      this.#putError(tag, Errno.EIO);
      return true;
    }
    if (this.#parked.size >= NINEP_PARKED_MAX) {
      this.#isStalled = true;
      return false;
    }
    const body = this.stream.incoming.subarray(start + HEADER_BYTES, start + bytes);
    const parked: ParkedRequest = {
      connection: this,
      tag,
      type,
      body: Uint8Array.from(body),
      view,
      ...this.#host.wait(),
      reruns: 0,
      errno: 0,
    };
    this.#parked.set(tag, parked);
    this.#host.park(parked);
    return true;
  }

  /** The cursor at the place of the next reply, which turn() has seen to. */
  #reply(): Cursor {
    const start = this.stream.room();
    return this.#outgoing.seek(start, start + this.stream.messageMax);
  }

  /** Runs the request at `requests` and puts its reply: 0, or MISS when it has none yet. */
  #run(type: number, tag: number): number {
    const reply = this.#reply();
    const start = reply.offset;
    reply.skip(HEADER_BYTES);
    const outcome = dispatch(this, type, this.requests, reply, this.#host.log);
    if (outcome === MISS) {
      counters[Count.misses]!++;
      return MISS;
    }
    if (outcome < 0) {
      this.#putError(tag, -outcome);
      return 0;
    }
    this.#put(type + 1, tag, start, reply.offset - start);
    return 0;
  }

  #put(type: number, tag: number, start: number, bytes: number): void {
    const { view } = this.#outgoing;
    view.setUint32(start, bytes, true);
    view.setUint8(start + 4, type);
    view.setUint16(start + 5, tag, true);
    this.stream.put(bytes);
  }

  /** Answers with Rlerror and a positive errno. */
  #putError(tag: number, errno: number): void {
    counters[Count.errors]!++;
    if (this.stream.room() < 0) return;
    const reply = this.#reply();
    const start = reply.offset;
    reply.skip(HEADER_BYTES);
    reply.putU32(errno);
    this.#put(RLERROR, tag, start, HEADER_BYTES + 4);
  }

  /** What a parked request waits for has come (0), or won't (a positive errno): turn() answers it. */
  wake(parked: ParkedRequest, errno: number): void {
    parked.errno = errno;
    this.#ready.push(parked);
  }

  #rerun(parked: ParkedRequest): void {
    const { tag, type, body } = parked;
    this.#isStalled = false;
    if (parked.errno !== 0) {
      this.#parked.delete(tag);
      this.#putError(tag, parked.errno);
      return;
    }
    this.requests = new Cursor(body);
    if (this.#run(type, tag) !== MISS) {
      this.#parked.delete(tag);
    } else if (++parked.reruns > RERUNS_MAX) {
      this.#parked.delete(tag);
      this.#putError(tag, Errno.EIO);
    } else {
      this.#host.park(parked);
    }
  }

  /**
   * Tversion: whatever was under way or open is no more. The version is ours or "unknown", which is all that clients of 9P2000 and
   * 9P2000.u hear. 9P2000 version(5).
   */
  version(request: Request, reply: Cursor): number {
    this.#abandon();
    this.isVersioned = false;
    if (request.name !== VERSION) {
      this.#noteVersion(request.name);
      reply.putU32(Math.min(request.count, NINEP_MESSAGE_MAX_BYTES));
      reply.putSizedText(UNKNOWN_VERSION);
      return 0;
    }
    if (request.count < NINEP_MESSAGE_MIN_BYTES) return -Errno.EINVAL;
    this.#nextMessageMax = Math.min(request.count, NINEP_MESSAGE_MAX_BYTES);
    this.isVersioned = true;
    reply.putU32(this.#nextMessageMax);
    reply.putSizedText(VERSION);
    return 0;
  }

  /** Says once which version a client speaks: it may ask as often as it likes. */
  #noteVersion(version: string): void {
    if (this.#hasNoted) return;
    this.#hasNoted = true;
    const hex = Buffer.from(version.slice(0, 32), "latin1").toString("hex");
    const shown = LEGACY.includes(version) ? version : `what in hex is "${hex}"`;
    this.#host.log(`a client speaks ${shown}, this server ${VERSION} alone`);
  }

  /** Tflush: the request of a tag is answered no more, if it wasn't yet; its tag may be used again after Rflush. 9P2000 flush(5). */
  flush(tag: number): number {
    const parked = this.#parked.get(tag);
    if (parked === undefined) return 0;
    this.#forget(parked);
    return 0;
  }

  #forget(parked: ParkedRequest): void {
    this.#parked.delete(parked.tag);
    const at = this.#ready.indexOf(parked);
    if (at >= 0) this.#ready.splice(at, 1);
    else this.#host.unpark(parked);
    this.#isStalled = false;
  }

  /** Drops all requests under way and all fids. */
  #abandon(): void {
    for (const parked of [...this.#parked.values()]) this.#forget(parked);
    this.fids.clear();
  }

  /** Frees all it holds. Idempotent. */
  end(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.#abandon();
    this.stream.close();
    this.#host.ended(this);
  }
}
