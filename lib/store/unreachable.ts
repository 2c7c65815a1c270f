// Why no answer came at all, with what to do about it: by the codes that Node.js, its resolver and its TLS have for it. Control plane.

import type { ClientRequest } from "node:http";
import net, { type Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import type { BurrowError, ErrorClass } from "../base/error.ts";
import { backendError } from "./store.ts";

interface Reason {
  readonly advice: string;
  /** Permanent: asking again soon is of no use. */
  readonly class?: ErrorClass;
}

const UNKNOWN_AUTHORITY: Reason = {
  advice:
    "its certificate is signed by an authority that this machine doesn't know: name its certificate by NODE_EXTRA_CA_CERTS=FILE, for the daemon, too",
  class: "permanent",
};
const NO_TLS: Reason = {
  advice: "no TLS is spoken there: is it http:// in place of https://, or another port?",
  class: "permanent",
};

/** getaddrinfo(3), connect(2), and nodejs.org/api/tls.html, "X509 certificate error codes". */
const REASONS: Readonly<Record<string, Reason>> = {
  ENOTFOUND: {
    advice:
      "its name doesn't resolve: check the address, and this machine's DNS (/etc/resolv.conf)",
  },
  EAI_AGAIN: { advice: "this machine's DNS doesn't answer: check /etc/resolv.conf" },
  ECONNREFUSED: { advice: "nothing listens there: is it up, and the port right?" },
  ECONNRESET: { advice: "it ended the connection" },
  EPIPE: { advice: "it ended the connection" },
  ETIMEDOUT: { advice: "it doesn't answer: is it up, or a firewall between?" },
  ENETUNREACH: { advice: "no way leads there: check this machine's network" },
  EHOSTUNREACH: { advice: "no way leads there: check this machine's network" },
  EMFILE: { advice: "this process may open no more files: raise its limit (ulimit -n)" },
  CERT_HAS_EXPIRED: {
    advice: "its certificate has expired: have it renewed there, or is this machine's clock wrong?",
    class: "permanent",
  },
  CERT_NOT_YET_VALID: {
    advice: "its certificate isn't valid yet: is this machine's clock wrong?",
    class: "permanent",
  },
  ERR_TLS_CERT_ALTNAME_INVALID: {
    advice: "its certificate is another name's: check the address",
    class: "permanent",
  },
  CERT_REVOKED: { advice: "its certificate was revoked", class: "permanent" },
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNKNOWN_AUTHORITY,
  UNABLE_TO_GET_ISSUER_CERT: UNKNOWN_AUTHORITY,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNKNOWN_AUTHORITY,
  SELF_SIGNED_CERT_IN_CHAIN: UNKNOWN_AUTHORITY,
  DEPTH_ZERO_SELF_SIGNED_CERT: UNKNOWN_AUTHORITY,
  // What a peer's alert raises, too, which may be of one moment.
  EPROTO: { advice: NO_TLS.advice },
  ERR_SSL_WRONG_VERSION_NUMBER: NO_TLS,
  ERR_SSL_PACKET_LENGTH_TOO_LONG: NO_TLS,
};

/** The error of a request that ended before any answer. */
export function unreachable(
  cause: unknown,
  facts: Readonly<Record<string, string | number>>,
): BurrowError {
  const reason = reasonOf(cause);
  const what = `the origin can't be reached${reason.text}`;
  return backendError(reason.class, what, facts, reason.cause);
}

export interface Unreached {
  /** The end of a sentence: the codes in brackets, and what to do; "" where nothing is known. */
  readonly text: string;
  readonly class: ErrorClass;
  /** What has a text. */
  readonly cause: unknown;
}

/** Why a connection failed, by what Node.js raised for it. */
export function reasonOf(cause: unknown): Unreached {
  const each = cause instanceof AggregateError ? (cause.errors as unknown[]) : [cause];
  const codes = [...new Set(each.map(codeOf).filter((code) => code !== ""))];
  const reasons = codes.flatMap((code) => REASONS[code] ?? []);
  const named = codes.length === 0 ? "" : ` (${codes.join(", ")})`;
  const advice = [...new Set(reasons.map((reason) => reason.advice))].join("; ");
  const isHopeless = reasons.length > 0 && reasons.every((reason) => reason.class === "permanent");
  return {
    text: `${named}${advice === "" ? "" : `: ${advice}`}`,
    class: isHopeless ? "permanent" : "transient",
    cause: flat(cause),
  };
}

/** Whether the other end has ended a connection. */
export function isHangUp(cause: unknown): boolean {
  return ["ECONNRESET", "EPIPE"].includes(codeOf(cause));
}

/** Watches a request: gives what says, as the end of a sentence, how far it has come. */
export function watchStage(request: ClientRequest): () => string {
  let isResolved = net.isIP(request.host.replace(/^\[(.*)\]$/, "$1")) !== 0;
  request.once("socket", (socket) => {
    // One that stood open has nothing to look up, and would keep the listener.
    if (isResolved || !socket.connecting) return;
    // Of a name with several addresses Node.js says nothing but that it tries one.
    for (const event of ["lookup", "connectionAttempt"])
      socket.once(event, () => {
        isResolved = true;
      });
  });
  return () => {
    const socket = request.socket as (Socket & Partial<TLSSocket>) | null;
    if (socket === null) return ": all connections are in use";
    if (socket.connecting && !isResolved)
      return ": this machine's DNS doesn't answer: check /etc/resolv.conf";
    if (socket.connecting) return ": no connection: is it up, or a firewall between?";
    const isGreeting = socket.encrypted === true && socket.getProtocol?.() === null;
    return isGreeting ? ": no TLS is spoken there, or too late" : "";
  };
}

function codeOf(error: unknown): string {
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === "string" ? code : "";
}

/** One cause of several addresses that were tried: Node.js' own has no text. */
function flat(cause: unknown): unknown {
  if (!(cause instanceof AggregateError)) return cause;
  const each = (cause.errors as unknown[]).map((error) =>
    error instanceof Error ? error.message : String(error),
  );
  return new Error([...new Set(each)].join("; "));
}
