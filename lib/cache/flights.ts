// Flights: small blobs that are on their way, by blob and origin. Who wants a blob waits for the flight that is under way, if it comes
// from the same origin: another's may hang, refuse or lie, and is none of theirs. Control plane.

import type { Digest } from "../base/digest.ts";
import type { Source } from "./pieces.ts";
import type { Claim, Neighbour } from "./small.ts";

/** A blob on its way. */
class Flight {
  /** Of which snapshot it was asked, so that a failure is final for who asks of the same; undefined: it only came along. */
  readonly snapshot: Digest | undefined;
  /** False: it came along and did not make it. */
  readonly done: Promise<boolean>;
  #isAhead: boolean;

  constructor(snapshot: Digest | undefined, done: Promise<boolean>, isAhead: boolean) {
    this.snapshot = snapshot;
    this.done = done;
    this.#isAhead = isAhead;
  }

  /** Whether nobody waits for it. */
  get isAhead(): boolean {
    return this.#isAhead;
  }

  /** Somebody waits for it from now on: whether nobody did before. */
  want(): boolean {
    const wasAhead = this.#isAhead;
    this.#isAhead = false;
    return wasAhead;
  }
}

interface Starting {
  adopted: Promise<boolean> | undefined;
}

export class Flights {
  readonly #flights = new Map<Digest, Map<string, Flight>>();
  /** Led flights that have sent no request yet, by blob and origin: a run that comes by takes them along. */
  readonly #starting = new Map<string, Starting>();

  get isEmpty(): boolean {
    return this.#flights.size === 0;
  }

  /** Whether a blob is on its way from anywhere. */
  has(digest: Digest): boolean {
    return this.#flights.has(digest);
  }

  get(origin: string, digest: Digest): Flight | undefined {
    return this.#flights.get(digest)?.get(origin);
  }

  /** Registers a led flight before anything else runs, in the place of any that there is. */
  lead({ origin, snapshot, isAhead }: Source, digest: Digest, work: Promise<void>): Flight {
    const done = work.then(() => true);
    const flight = new Flight(snapshot, done, isAhead === true);
    this.#add(origin, digest, flight);
    const end = () => this.#remove(origin, digest, flight);
    flight.done.then(end, end);
    return flight;
  }

  /** A led flight is about to send its request. */
  start({ origin }: Source, digest: Digest): { readonly claim: Claim; end(): void } {
    const key = keyOf(origin, digest);
    const starting: Starting = { adopted: undefined };
    this.#starting.set(key, starting);
    const end = () => {
      if (this.#starting.get(key) === starting) this.#starting.delete(key);
    };
    const claim = () => {
      end();
      return starting.adopted;
    };
    return { claim, end };
  }

  /** A place in a run for a blob that is about to be asked for by itself; undefined when it isn't. */
  adopt(origin: string, digest: Digest): Neighbour | undefined {
    const starting = this.#starting.get(keyOf(origin, digest));
    if (starting === undefined || starting.adopted !== undefined) return undefined;
    const { done, settle } = deferred();
    starting.adopted = done;
    return { digest, settle };
  }

  /** A place in a run for a blob that nobody asked for. */
  bring(origin: string, digest: Digest): Neighbour {
    const { done, settle } = deferred();
    const flight = new Flight(undefined, done, true);
    this.#add(origin, digest, flight);
    const land = (isHere: boolean) => {
      this.#remove(origin, digest, flight);
      settle(isHere);
    };
    return { digest, settle: land };
  }

  #add(origin: string, digest: Digest, flight: Flight): void {
    const flights = this.#flights.get(digest) ?? new Map<string, Flight>();
    this.#flights.set(digest, flights.set(origin, flight));
  }

  #remove(origin: string, digest: Digest, flight: Flight): void {
    const flights = this.#flights.get(digest);
    if (flights?.get(origin) !== flight) return;
    flights.delete(origin);
    if (flights.size === 0) this.#flights.delete(digest);
  }
}

function keyOf(origin: string, digest: Digest): string {
  return `${digest} ${origin}`;
}

function deferred(): { done: Promise<boolean>; settle: (isHere: boolean) => void } {
  let settle: (isHere: boolean) => void = () => undefined;
  const done = new Promise<boolean>((resolve) => {
    settle = resolve;
  });
  return { done, settle };
}
