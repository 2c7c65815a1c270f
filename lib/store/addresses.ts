// Addresses: what a name resolves to, for sockets to origins. A name is asked for once however many connections want it: each question
// has a thread to itself for as long as a resolver that doesn't answer is waited for, and there are few. What a name was before holds
// while the resolver fails (pitfalls D12). Control plane.

import dns, { type LookupAddress, type LookupOptions } from "node:dns";
import type { LookupFunction } from "node:net";
import { LRUCache } from "lru-cache";

/** How long an earlier answer isn't used while a new one may come. */
const PATIENCE_MS = 1_000;
/** How long after it was given an answer may stand for one that doesn't come. */
const KNOWN_MS = 60 * 60 * 1000;
const NAMES_MAX = 1_024;

type Addresses = readonly LookupAddress[];

interface Asking {
  readonly sinceMs: number;
  readonly answer: Promise<Addresses>;
}

/** By name, families and flags that are asked for. */
const known = new LRUCache<string, Addresses>({ max: NAMES_MAX, ttl: KNOWN_MS });
const asking = new Map<string, Asking>();

/** dns.lookup for net.connect: the addresses of a name, as this machine resolves it. */
export const lookup: LookupFunction = (name, options, callback) => {
  addressesOf(name, options).then(
    (found) => {
      const first = found[0];
      if (options.all === true) callback(null, [...found]);
      else callback(null, first?.address ?? "", first?.family ?? 0);
    },
    (error: NodeJS.ErrnoException) => callback(error, options.all === true ? [] : ""),
  );
};

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
