// MemoryClient: a client in the test's own process: each call is a request that is dispatched and answered in memory. Tests only.

import type { Test } from "tap";
import { errnoName } from "../../lib/base/errno.ts";
import { LISAFS_MESSAGE_MAX_BYTES } from "../../lib/base/limits.ts";
import { dispatch } from "../../lib/serve/dispatch.ts";
import { Connection, type ConnectionHost } from "../../lib/serve/lisafs/connection.ts";
import type { Communicator } from "../../lib/transport/communicator.ts";
import { type HostOptions, HostTree } from "../../lib/tree/host.ts";
import type { Tree } from "../../lib/tree/tree.ts";
import { Cursor } from "../../lib/wire/cursor.ts";
import { encodeRequest } from "../../lib/wire/lisafs/encode.ts";
import { Request } from "../../lib/wire/lisafs/message.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";

/** A connection's, that has no loop. */
const ALONE: ConnectionHost = {
  windowsOf: () => 1,
  channelsOf: () => 1,
  dispatch() {},
  addChannel() {},
  keepChannel() {},
  ended() {},
};

class MemoryCommunicator implements Communicator {
  readonly requestTag = 0;
  readonly payloadStart = 8;
  readonly payloadCapacity = LISAFS_MESSAGE_MAX_BYTES;
  readonly bytes = Buffer.alloc(this.payloadStart + this.payloadCapacity);
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

export class MemoryClient {
  readonly connection: Connection;
  /** FDID of the root. */
  readonly root: number;
  readonly #communicator = new MemoryCommunicator();

  constructor(tree: Tree) {
    this.connection = new Connection(0, tree, false, ALONE);
    this.root = fdidIn(this.call(Mid.Mount));
  }

  /** The payload of the reply, until the next call, or its errno. A bug throws. */
  call(mid: number, fields: Partial<Request> = {}, data?: Uint8Array): Buffer | number {
    const { bytes, payloadStart } = this.#communicator;
    const request = Object.assign(new Request(), fields);
    if (fields.names !== undefined) request.nameCount = fields.names.length;
    if (fields.fds !== undefined) request.fdCount = fields.fds.length;
    const to = new Cursor(bytes).seek(payloadStart, bytes.length);
    encodeRequest(mid, request, to, data);
    dispatch(this.connection, this.#communicator, mid, to.offset - payloadStart, (line) => {
      throw new Error(line);
    });
    const { payload } = this.#communicator;
    return this.#communicator.mid === mid ? payload : payload.readUInt32LE(0);
  }
}

/** A tree of a directory of the host that may be written to, and a client of it until `t` ends. */
export function hostClient(t: Test, directory: string, options: Partial<HostOptions> = {}) {
  const tree = HostTree.open(directory, { isReadOnly: false, ...options });
  if (typeof tree === "number") throw new Error(`not opened: ${errnoName(tree)}`);
  const client = new MemoryClient(tree);
  t.teardown(() => client.connection.end());
  return { tree, client };
}

/** The FDID that stands at `at` bytes of a reply. */
export function fdidIn(reply: Buffer | number, at = 0): number {
  if (typeof reply === "number") throw new Error(`refused: ${errnoName(reply)}`);
  return Number(reply.readBigUInt64LE(at));
}
