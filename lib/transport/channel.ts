// Channel: the flipcall kind of communicator: a window of memory shared with the client and a socket for FDs.
// LISAFS: channel.go, flipcall, fdchannel; lisafs-wire section 2. The client owns the memory as much as we do. Data plane.

import { Errno } from "../base/errno.ts";
import {
  CHANNEL_JOURNAL_BYTES,
  CHANNEL_WINDOW_BYTES,
  LISAFS_MESSAGE_MAX_BYTES,
} from "../base/limits.ts";
import { native } from "../sys/native.ts";
import { addChannel, dropChannel, replyTo } from "../sys/wait.ts";
import { type Communicator, PATHWAYS } from "./communicator.ts";

/** Window header (connState, dataLen, reserved) and channel header (u16 MID, u8 FD count, u8 pad). */
const WINDOW_HEADER_BYTES = 16;
export const CHANNEL_HEADER_BYTES = 4;
const PAYLOAD_START = WINDOW_HEADER_BYTES + CHANNEL_HEADER_BYTES;
const SOCK_SEQPACKET = 5;
const MSG_DONTWAIT = 0x40;
/** FDs that may lie in a channel's FD socket: of one reply, were it not for a client that takes none. */
const STALE_FDS_MAX = 1_024;
const NO_JOURNAL = new Uint8Array(0);

/** What a successor needs of a channel. */
export interface ChannelJournal {
  /** The channel's number in its connection. */
  readonly number: number;
  /** Where the journal of what is under way lies in the memory, CHANNEL_JOURNAL_BYTES of it; -1: none. */
  readonly journalOffset: number;
  /** Another server had the channel. */
  readonly isResumed: boolean;
}
const NO_SUCCESSION: ChannelJournal = { number: 0, journalOffset: -1, isResumed: false };
/** Where the serial number of the request under way stands in a journal. */
const SERIAL_OFFSET = 4;
const NO_SERIAL = new Uint32Array(1);

export class Channel implements Communicator {
  readonly bytes: Uint8Array;
  readonly payloadStart = PAYLOAD_START;
  readonly payloadCapacity = LISAFS_MESSAGE_MAX_BYTES;
  readonly slot: number;
  /** Datagram bytes of the reply to be given back by the loop's next wait; -1 when there is none. */
  replyBytes = -1;
  readonly #view: DataView;
  readonly #socketFd: number;
  readonly #journal: ArrayBufferLike;
  readonly #number: number;
  readonly #serial: Uint32Array;
  #donatedCount = 0;

  private constructor(
    bytes: Uint8Array,
    slot: number,
    socketFd: number,
    journal: ArrayBufferLike,
    number: number,
  ) {
    this.#journal = journal;
    this.#number = number;
    this.#serial =
      journal.byteLength === 0 ? NO_SERIAL : new Uint32Array(journal, SERIAL_OFFSET, 1);
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.slot = slot;
    this.#socketFd = socketFd;
  }

  /** Maps the window at `offset` of a memfd and starts to watch it. Takes socketFd on success. */
  static open(
    memoryFd: number,
    offset: number,
    socketFd: number,
    { number, journalOffset, isResumed }: ChannelJournal = NO_SUCCESSION,
  ): Channel | number {
    const window = native.map(memoryFd, offset, CHANNEL_WINDOW_BYTES, true);
    if (typeof window === "number") return window;
    const journal =
      journalOffset < 0
        ? NO_JOURNAL.buffer
        : native.map(memoryFd, journalOffset, CHANNEL_JOURNAL_BYTES, true);
    if (typeof journal === "number") {
      native.unmap(window);
      return journal;
    }
    const bytes = new Uint8Array(window);
    const slot = addChannel(bytes, new Uint8Array(journal), isResumed);
    if (slot >= 0) return new Channel(bytes, slot, socketFd, journal, number);
    native.unmap(window);
    native.unmap(journal);
    return slot;
  }

  /**
   * The loop saw a request of `datagramBytes` (-1: out of bounds): its MID; its payload is CHANNEL_HEADER_BYTES shorter. -EIO for
   * one without a header, which is answered here. LISAFS: channel.go rcvMsg.
   */
  receive(datagramBytes: number): number {
    this.#donatedCount = 0;
    if (datagramBytes >= CHANNEL_HEADER_BYTES)
      return this.#view.getUint16(WINDOW_HEADER_BYTES, true);
    this.replyError(Errno.EIO);
    return -Errno.EIO;
  }

  /** Whether the client has given the channel to us, or ended it. */
  get isOurTurn(): boolean {
    return this.#view.getUint32(0, true) !== 0;
  }

  get requestTag(): number {
    return this.#serial[0]! * PATHWAYS + this.#number + 1;
  }

  donate(hostFd: number, isOwned: boolean): number {
    const result = native.channelDonate(this.#socketFd, hostFd);
    if (isOwned) native.closeFd(hostFd);
    if (result < 0) return result;
    this.#donatedCount++;
    return 0;
  }

  reply(mid: number, payloadBytes: number): void {
    this.#view.setUint32(WINDOW_HEADER_BYTES, mid | (this.#donatedCount << 16), true);
    this.replyBytes = CHANNEL_HEADER_BYTES + payloadBytes;
  }

  replyError(errno: number): void {
    this.#view.setUint32(PAYLOAD_START, errno, true);
    this.reply(0, 4);
  }

  /** Gives a reply back now, outside the loop's wait. */
  flush(): void {
    if (this.replyBytes < 0) return;
    replyTo(this.slot, this.replyBytes);
    this.replyBytes = -1;
  }

  /**
   * Shuts the channel down, or leaves it to another server, unmaps its window and gives its FD back. Nothing of it is used after. Called
   * once, by its owner.
   */
  close(isLeft = false): void {
    dropChannel(this.slot, isLeft);
    native.unmap(this.bytes.buffer);
    if (this.#journal !== NO_JOURNAL.buffer) native.unmap(this.#journal);
    native.closeFd(this.#socketFd);
  }
}

/** The two ends of a channel's FD socket (server's, client's) into `out`: 0 or -errno. Blocking, as the client needs. */
export function makeFdSocket(out: Int32Array): number {
  return native.socketPair(SOCK_SEQPACKET, out);
}

const staleFds = new Int32Array(8);
const noBytes = new Uint8Array(1);

/**
 * Takes FDs out of a channel's FD socket that a server sent with a reply which it never gave: the client, whose end this is, would take
 * them for those of the next reply. Only while it is the server's turn. True when it is empty.
 */
export function takeStaleFds(clientFd: number): boolean {
  for (let i = 0; i < STALE_FDS_MAX; i++) {
    const got = native.receiveMessage(clientFd, noBytes, staleFds, MSG_DONTWAIT);
    if (got < 0) return true;
    for (let at = 1; at <= staleFds[0]!; at++) native.closeFd(staleFds[at]!);
  }
  return false;
}
