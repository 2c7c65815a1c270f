// Where something lies on S3: "s3://BUCKET/PREFIX?SETTING=VALUE&…" as a bucket, a prefix and how to get there. What an address doesn't
// say comes from the environment; what neither says is the SDK's to find (profiles, the machine's role). Pure but for the
// environment. Control plane.

import { BurrowError } from "../base/error.ts";
import { checkPath } from "./store.ts";

export interface S3Settings {
  /** Of a service that isn't AWS: its URL. */
  readonly endpoint?: string;
  readonly region?: string;
  /** Of ~/.aws/config and credentials. */
  readonly profile?: string;
  /** http://HOST/BUCKET/KEY in place of http://BUCKET.HOST/KEY: where nobody says, for an endpoint that isn't AWS's. */
  readonly isPathStyle: boolean;
  /** Says with each request that its costs are the requester's. */
  readonly isRequesterPays: boolean;
  /** Signs nothing: for buckets that anybody may read. */
  readonly isAnonymous: boolean;
}

export interface S3Place {
  readonly bucket: string;
  /** Without slashes around it; may be empty. */
  readonly prefix: string;
  readonly settings: S3Settings;
}

const ADDRESS = /^s3:\/\/([^/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/;
/** Wider than AWS's own rule, since older buckets and other services have capitals and underscores. */
const BUCKET = /^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$/;
const SETTINGS = ["endpoint", "region", "profile", "path-style", "requester-pays", "anonymous"];

/** Whether a text is meant as an address on S3. */
export function isS3(text: string): boolean {
  return text.startsWith("s3://");
}

/** What an address means, percent-decoded. BURROW_USAGE for what is none; the text itself is not shown, since it may hold a secret. */
export function parseS3(text: string): S3Place {
  const [, bucket = "", path = "", query = ""] = ADDRESS.exec(text) ?? [];
  if (bucket.includes("@")) {
    throw usage("credentials don't go into an s3:// address: set AWS_PROFILE or AWS_ACCESS_KEY_ID");
  }
  if (!BUCKET.test(bucket)) throw usage("an address on S3 is s3://BUCKET or s3://BUCKET/PREFIX");
  return { bucket, prefix: prefixOf(path), settings: settingsOf(query) };
}

function prefixOf(path: string): string {
  const bare = path.replace(/^\/+|\/+$/g, "");
  if (bare === "") return "";
  try {
    const prefix = decodeURIComponent(bare);
    checkPath(prefix);
    return prefix;
  } catch {
    throw usage("the prefix of an s3:// address has an empty part, a dot part or a bad escape");
  }
}

function settingsOf(query: string): S3Settings {
  const given = new URLSearchParams(query);
  for (const name of given.keys()) {
    if (SETTINGS.includes(name)) continue;
    throw usage(`an s3:// address has the settings ${SETTINGS.join(", ")}, and no other`);
  }
  const { env } = process;
  const endpoint =
    given.get("endpoint") || env["AWS_ENDPOINT_URL_S3"] || env["AWS_ENDPOINT_URL"] || undefined;
  if (endpoint !== undefined) checkEndpoint(endpoint);
  const region = given.get("region") || env["AWS_REGION"] || env["AWS_DEFAULT_REGION"] || undefined;
  const profile = given.get("profile") || undefined;
  const flag = (name: string, variable: string) => {
    const text = given.get(name) ?? env[variable];
    return text === undefined || text === "" ? undefined : isTrue(text, name);
  };
  return {
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(region === undefined ? {} : { region }),
    ...(profile === undefined ? {} : { profile }),
    isPathStyle: flag("path-style", "BURROW_S3_PATH_STYLE") ?? endpoint !== undefined,
    isRequesterPays: flag("requester-pays", "BURROW_S3_REQUESTER_PAYS") ?? false,
    isAnonymous: flag("anonymous", "BURROW_S3_ANONYMOUS") ?? false,
  };
}

function isTrue(text: string, name: string): boolean {
  if (/^(1|true|yes)$/i.test(text)) return true;
  if (/^(0|false|no)$/i.test(text)) return false;
  throw usage(`${name} of an s3:// address is true or false`);
}

function checkEndpoint(text: string): void {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isPlain = url?.username === "" && url.password === "" && url.search === "";
  if (isPlain && /^https?:$/.test(url.protocol)) return;
  throw usage("the endpoint of S3 is an http or https URL without a user, password or query");
}

function usage(message: string): BurrowError {
  return new BurrowError("BURROW_USAGE", message);
}
