// Agents: the connections to an origin, kept open from request to request. Control plane.

import http from "node:http";
import https from "node:https";
import { ATTEMPT_MS, lookup } from "./addresses.ts";

/** What node:http takes connections from. */
export function openAgent(isSecure: boolean, sockets: number): http.Agent {
  const autoSelectFamilyAttemptTimeout = ATTEMPT_MS;
  const settings = { keepAlive: true, maxSockets: sockets, lookup, autoSelectFamilyAttemptTimeout };
  return isSecure ? new https.Agent(settings) : new http.Agent(settings);
}

/**
 * Ends the connections that nobody uses now: the other end of one is gone without a word, so those that stood idle beside it lead nowhere
 * either, and each would be waited for in vain.
 */
export function dropIdle(agent: http.Agent): void {
  for (const sockets of Object.values(agent.freeSockets))
    for (const socket of sockets ?? []) socket.destroy();
}
