// What names files of stages that aren't named by their content alone: an object of a bucket, whose bytes nobody has read yet, and a file
// that is one tenant's. A digest of whose it is, and of where it lies and which state of it is meant, or of its content, under a key that
// the node keeps to itself. So no content, and no index that others make, can have such a name by design; two tenants have none in common;
// and a locator that leads elsewhere can be told from a right one. docs/design/0011-s3-stages.md. Control plane.

import { createHmac } from "node:crypto";
import type { Digest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import type { S3Place } from "./s3-place.ts";
import type { ObjectPin } from "./store.ts";

/** The tenant of who names none. */
export const NO_TENANT = "";

const TENANT = /^[A-Za-z0-9._@-]{1,128}$/;

/** A tenant's name as people give it. BURROW_USAGE. */
export function checkTenant(text: string): string {
  if (TENANT.test(text)) return text;
  throw new BurrowError(
    "BURROW_USAGE",
    `"${text}" is no tenant: up to 128 letters, digits and . _ @ -`,
  );
}

/** Names the state `pin` of the object at `path` below a place, for a tenant and on the node whose key it is. */
export function pinnedDigest(
  nodeKey: Uint8Array,
  tenant: string,
  { bucket, prefix, settings }: S3Place,
  path: string,
  { versionId, etag, size }: ObjectPin,
): Digest {
  const key = prefix === "" ? path : `${prefix}/${path}`;
  const { endpoint = "" } = settings;
  return named(nodeKey, ["object 1", tenant, endpoint, bucket, key, versionId ?? null, etag, size]);
}

/** Names a tenant's file of known content. */
export function tenantDigest(
  nodeKey: Uint8Array,
  tenant: string,
  content: Digest,
  size: number,
): Digest {
  return named(nodeKey, ["content 1", tenant, content, size]);
}

function named(nodeKey: Uint8Array, facts: readonly unknown[]): Digest {
  return createHmac("sha256", nodeKey).update(JSON.stringify(facts)).digest("hex") as Digest;
}
