// Addresses: what a name resolves to, for sockets to origins. A name is asked for once however many connections want it: each question
// has a thread to itself for as long as a resolver that doesn't answer is waited for, and there are few. What a name was before holds
// while the resolver fails (pitfalls D12). Of several addresses those come last to which no connection came about of late. Control plane.

import dns, { type LookupAddress, type LookupOptions } from "node:dns";
import type { ClientRequest } from "node:http";
import type { LookupFunction } from "node:net";
import { LRUCache } from "lru-cache";

/** How long an earlier answer isn't used while a new one may come. */
const PATIENCE_MS = 1_000;
/** How long after it was given an answer may stand for one that doesn't come. */
const KNOWN_MS = 60 * 60 * 1000;
const NAMES_MAX = 1_024;
/**
 * How long an address is tried before the next of its name is, and given up then: Node.js' own 250 ms is less than a connection takes to
 * the other side of the world, or after a packet was lost (1 s: RFC 6298).
 */
export const ATTEMPT_MS = 2_000;
/** An address that is given up sooner has failed no one: whoever asked had changed their mind. */
const TRIED_MS = 250;

type Addresses = readonly LookupAddress[];

interface Asking {
  readonly sinceMs: number;
  readonly answer: Promise<Addresses>;
}

/** By name, families and flags that are asked for. */
const known = new LRUCache<string, Addresses>({ max: NAMES_MAX, ttl: KNOWN_MS });
const failed = new LRUCache<string, true>({ max: NAMES_MAX, ttl: KNOWN_MS });
const asking = new Map<string, Asking>();

/** dns.lookup for net.connect: the addresses of a name, as this machine resolves it. */
export const lookup: LookupFunction = (name, options, callback) => {
  addressesOf(name, options).then(
    (found) => {
      const inOrder = [...found].sort((a, b) => rankOf(a) - rankOf(b));
      const first = inOrder[0];
      if (options.all === true) callback(null, inOrder);
      else callback(null, first?.address ?? "", first?.family ?? 0);
    },
    (error: NodeJS.ErrnoException) => callback(error, options.all === true ? [] : ""),
  );
};

const rankOf = ({ address }: LookupAddress) => (failed.has(address) ? 1 : 0);

/**
 * Has the addresses that a request's connection tries in vain come last from then on, until one comes about; so too the one that is tried
 * when the request is given up, since whose deadlines are shorter than ATTEMPT_MS would try no other ever.
 */
export function watchAttempts(request: ClientRequest): void {
  request.once("socket", (socket) => {
    if (!socket.connecting) return;
    let tried: { readonly address: string; readonly sinceMs: number } | undefined;
    const fail = (address: string) => {
      failed.set(address, true);
      tried = undefined;
    };
    socket.on("connectionAttempt", (address: string) => {
      tried = { address, sinceMs: performance.now() };
    });
    socket.on("connectionAttemptFailed", fail);
    socket.on("connectionAttemptTimeout", fail);
    socket.once("connect", () => {
      tried = undefined;
      failed.delete(socket.remoteAddress ?? "");
    });
    socket.once("close", () => {
      if (tried !== undefined && performance.now() - tried.sinceMs >= TRIED_MS) fail(tried.address);
    });
  });
}

async function addressesOf(name: string, options: LookupOptions): Promise<Addresses> {
  const key = `${options.family ?? 0} ${options.hints ?? 0} ${name}`;
  const { sinceMs, answer } = asking.get(key) ?? ask(key, name, options);
  const before = known.get(key);
  if (before === undefined) return await answer;
  let timer: NodeJS.Timeout | undefined;
  const patience = new Promise<Addresses>((resolve) => {
    const leftMs = Math.max(0, sinceMs + PATIENCE_MS - performance.now());
    timer = setTimeout(() => resolve(before), leftMs);
  });
  try {
    return await Promise.race([answer.catch(() => before), patience]);
  } finally {
    clearTimeout(timer);
  }
}

function ask(key: string, name: string, { family = 0, hints = 0 }: LookupOptions): Asking {
  const answer = dns.promises
    .lookup(name, { family, hints, all: true })
    .then((found) => {
      known.set(key, found);
      return found;
    })
    .finally(() => asking.delete(key));
  // Who waits hears of it; who has waited long enough doesn't.
  answer.catch(() => undefined);
  const made = { sinceMs: performance.now(), answer };
  asking.set(key, made);
  return made;
}
