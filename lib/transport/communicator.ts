// Communicator: one request and reply pathway of a LISAFS connection, at most one request in flight: the contract
// that socket.ts and channel.ts keep. LISAFS: communicator.go. Data plane.

/** A request's tag is its serial number on its pathway times this, and the pathway: 0 is the socket, then channels by number. */
export const PATHWAYS = 256;

export interface Communicator {
  /** The bytes that hold the request's payload and take the reply's: a reply overwrites its request. */
  readonly bytes: Uint8Array;
  /** Where payloads start in `bytes`, and how many bytes a payload may have. */
  readonly payloadStart: number;
  readonly payloadCapacity: number;
  /**
   * A number that the request under way has and no other of the connection's, however many servers try to answer it: how a successor
   * knows what was done for it.
   */
  readonly requestTag: number;
  /**
   * Gives a host FD to the client with the reply that follows; ours is closed after the send when `isOwned`, whatever
   * comes of it. 0 or -errno; after a failure the reply goes without it (best effort, as gVisor's).
   */
  donate(hostFd: number, isOwned: boolean): number;
  /** Sends the reply that stands in `bytes`, donated FDs with it. */
  reply(mid: number, payloadBytes: number): void;
}

/** What a connection does with requests: the front end. Called on the data-plane thread. */
export interface RequestSink {
  /** A request stands in the communicator's payload: `mid`, `payloadBytes`. Answer now or later by reply(). */
  handle(from: Communicator, mid: number, payloadBytes: number): void;
  /** The client is gone: free everything of this connection. */
  end(): void;
}
