// MemoryCommunicator: requests are run in the test's own process, and their replies stay in memory. Tests only.

import type { ConnectionHost } from "../../lib/serve/lisafs/connection.ts";
import type { Communicator } from "../../lib/transport/communicator.ts";

/** A connection's, that has no loop. */
export const ALONE: ConnectionHost = {
  windowsOf: () => 1,
  channelsOf: () => 1,
  dispatch() {},
  addChannel() {},
  keepChannel() {},
  ended() {},
};

export class MemoryCommunicator implements Communicator {
  readonly requestTag = 0;
  readonly bytes = Buffer.alloc(64 * 1024);
  readonly payloadStart = 8;
  readonly payloadCapacity = 60_000;
  mid = -1;
  payload: Buffer = Buffer.alloc(0);

  donate(): number {
    return 0;
  }

  reply(mid: number, payloadBytes: number): void {
    this.mid = mid;
    this.payload = this.bytes.subarray(this.payloadStart, this.payloadStart + payloadBytes);
  }
}
