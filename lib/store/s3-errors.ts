// What went wrong on S3, as errors that name the bucket, the key, the service's own code and what to do. The service's messages and
// the SDK's are left out: they quote signatures, key ids and commands. Control plane.

import type { IncomingMessage } from "node:http";
import { BurrowError, type ErrorClass } from "../base/error.ts";
import { classOfStatus, type Facts, retryAfter } from "./exchange.ts";
import { backendError } from "./store.ts";

/** By the service's code. docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html */
const ADVICE: Readonly<Record<string, string>> = {
  NoSuchBucket: "there is no such bucket: check its name, the region and the endpoint",
  AccessDenied:
    "these credentials may not do that: reading needs s3:GetObject and s3:ListBucket, writing s3:PutObject and s3:DeleteObject",
  InvalidAccessKeyId: "the service doesn't know this access key: check the credentials",
  SignatureDoesNotMatch: "the secret key is not that of the access key: check the credentials",
  ExpiredToken: "the credentials have expired: renew them",
  InvalidToken: "the session token is not that of the access key: renew the credentials",
  RequestTimeTooSkewed: "this machine's clock is wrong",
  PermanentRedirect: "the bucket lies in another region: set AWS_REGION",
  AuthorizationHeaderMalformed: "the bucket lies in another region: set AWS_REGION",
  InvalidObjectState: "the object is archived: restore it first",
};
const BY_STATUS: Readonly<Record<number, string>> = { 403: ADVICE["AccessDenied"]! };
/** What S3 takes; the answer's Date may itself be a minute old. */
const SKEW_MAX_MS = 14 * 60_000;
const CODE = /^[A-Za-z][A-Za-z0-9]{0,63}$/;
/** What the credential chain says that holds no secret. */
const SAFE = /^(Could not (load|resolve) credentials|Profile |The SSO session|Token is expired)/;

/** Codes that new credentials can mend: the chain is asked anew for them. */
export const STALE_CREDENTIALS: readonly string[] = [
  "ExpiredToken",
  "InvalidToken",
  "InvalidAccessKeyId",
  "TokenRefreshRequired",
];
/** Other codes that another try can mend. */
const TRANSIENT: readonly string[] = [
  ...STALE_CREDENTIALS,
  // The SDK has put its clock right by the answer.
  "RequestTimeTooSkewed",
  "RequestTimeout",
  "SlowDown",
  // Others write the same object: the same bytes.
  "OperationAborted",
  "ConditionalRequestConflict",
  // What the way did to an upload.
  "BadDigest",
  "IncompleteBody",
  "XAmzContentSHA256Mismatch",
];

/** The service's own code of an error that the SDK made; "" when it has none. */
export function codeOf(error: unknown): string {
  const { name } = (error ?? {}) as { name?: unknown };
  return typeof name === "string" && CODE.test(name) && !/Error$|^Unknown$/.test(name) ? name : "";
}

/** An answer that is not what was hoped for. */
export function answerError(answer: IncomingMessage, code: string, facts: Facts): BurrowError {
  const status = answer.statusCode ?? 0;
  const skew = skewOf(answer, code);
  const advice = skew ?? ADVICE[code] ?? BY_STATUS[status];
  const region = answer.headers["x-amz-bucket-region"];
  const wait = retryAfter(answer);
  const known = {
    ...facts,
    status,
    ...(code === "" ? {} : { code }),
    ...(typeof region === "string" && /^[a-z0-9-]{1,40}$/.test(region) ? { region } : {}),
    ...(wait > 0 ? { retryAfterMs: wait } : {}),
  };
  const what = `S3 answered ${status}${code === "" ? "" : ` ${code}`}`;
  const message = advice === undefined ? what : `${what}: ${advice}`;
  const isSkew = code === "" && skew !== undefined;
  return backendError(isSkew ? "transient" : classOfAnswer(status, code), message, known);
}

/**
 * How far this machine's clock is from the service's, where that is why a request was refused: the answer to a HEAD has no code. The next
 * request is signed by the service's clock, which the SDK has taken from the answer.
 */
function skewOf({ statusCode, headers }: IncomingMessage, code: string): string | undefined {
  if (statusCode !== 403 || (code !== "" && code !== "RequestTimeTooSkewed")) return undefined;
  const aheadMs = Date.now() - Date.parse(headers.date ?? "");
  if (!(Math.abs(aheadMs) > SKEW_MAX_MS)) return undefined;
  const minutes = Math.round(Math.abs(aheadMs) / 60_000);
  return `this machine's clock is ${minutes} minutes ${aheadMs > 0 ? "ahead of" : "behind"} that of the service: set it`;
}

/** 404 of a bucket is no missing object, and a retry mends stale credentials and clocks. */
function classOfAnswer(status: number, code: string): ErrorClass {
  if (code === "NoSuchBucket") return "permanent";
  if (TRANSIENT.includes(code)) return "transient";
  return status >= 300 && status < 400 ? "permanent" : classOfStatus(status);
}

/**
 * What failed before a request was made, or in reading its answer. `hadCredentials`: there were some before, so those that can't be had now
 * are a matter of time.
 */
export function sdkError(error: unknown, facts: Facts, hadCredentials = false): BurrowError {
  if (error instanceof BurrowError) return error;
  const { name = "", message = "" } = error instanceof Error ? error : {};
  if (/CredentialsProviderError|TokenProviderError|^ProviderError/.test(name)) {
    const why = SAFE.test(message) ? ` (${message.split("\n")[0]!.slice(0, 160)})` : "";
    const advice =
      "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; for a public bucket BURROW_S3_ANONYMOUS=1";
    const text = `no credentials for S3${why}: ${advice}`;
    return backendError(hadCredentials ? "transient" : "permanent", text, facts);
  }
  return backendError("transient", `the answer of S3 can't be read (${name})`, facts);
}
