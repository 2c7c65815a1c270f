// The objects below a prefix as they are now, each with what pins it: the id of its version where the bucket keeps versions and says so to
// these credentials, its ETag else. One pass over the list; no request per object. Control plane.

import type {
  ListObjectsV2CommandOutput,
  ListObjectVersionsCommandOutput,
} from "@aws-sdk/client-s3";
import { BurrowError } from "../base/error.ts";
import { type ExchangeOptions, HEADER_MS, lie, STALL_MS } from "./exchange.ts";
import { type RetryOptions, tries } from "./retry.ts";
import { nextOf, type S3Call, type S3Client, s3Client } from "./s3-client.ts";
import { bareTag } from "./s3-pins.ts";
import { parseS3, type S3Place } from "./s3-place.ts";
import { backendError, classOf, type ObjectPin } from "./store.ts";

/** An object of a list. */
export interface ListedObject {
  /** Below the prefix, as the service has it: it may be no path ("a//b", "folder/"). */
  readonly key: string;
  readonly pin: ObjectPin;
  /** Ms since 1970, by the service's clock; 0 when it doesn't say. */
  readonly modifiedMs: number;
  /** STANDARD, GLACIER and the like; "" when it isn't said. */
  readonly storageClass: string;
}

/** Pages of 1,000: all versions of a million objects may be far more. A service that has more goes round in circles. */
const PAGES_MAX = 50_000;
/** Storage classes whose objects must be restored before they can be read. docs.aws.amazon.com/AmazonS3/latest/userguide/storage-class-intro.html */
const ARCHIVED = ["GLACIER", "DEEP_ARCHIVE"];

/** Whether a storage class can't be read as it stands; the intelligent tiers don't say. */
export function isArchived({ storageClass }: ListedObject): boolean {
  return ARCHIVED.includes(storageClass);
}

interface Page {
  readonly objects: readonly ListedObject[];
  /** What the next page is asked by; undefined on the last. */
  readonly next: Marker | undefined;
}

type Marker = Readonly<Record<string, string>>;

/** The objects below "s3://BUCKET/PREFIX", page by page, as the service orders them. BURROW_ORIGIN, BURROW_TIMEOUT, BURROW_USAGE. */
export async function* listObjects(
  origin: string,
  options: ExchangeOptions & RetryOptions = {},
): AsyncGenerator<readonly ListedObject[]> {
  const list = new List(parseS3(origin), options);
  const isVersioned = await list.isVersioned();
  let marker: Marker = {};
  for (let count = 0; count < PAGES_MAX; count++) {
    const { objects, next } = isVersioned ? await list.versions(marker) : await list.latest(marker);
    yield objects;
    if (next === undefined) return;
    if (JSON.stringify(next) === JSON.stringify(marker)) break;
    marker = next;
  }
  throw backendError("permanent", "the list has no end", list.call.facts);
}

class List {
  readonly call: S3Call;
  readonly #place: S3Place;
  readonly #prefix: string;
  readonly #client: S3Client;
  readonly #options: ExchangeOptions & RetryOptions;

  constructor(place: S3Place, options: ExchangeOptions & RetryOptions) {
    const { bucket, prefix, settings } = place;
    this.#place = place;
    this.#prefix = prefix === "" ? "" : `${prefix}/`;
    this.#client = s3Client(settings);
    this.#options = options;
    const { endpoint } = settings;
    const facts = { bucket, key: this.#prefix, ...(endpoint === undefined ? {} : { endpoint }) };
    const { headerMs = HEADER_MS, stallMs = STALL_MS } = options;
    this.call = { headerMs, stallMs, signal: undefined, facts };
  }

  /** Whether versions can be listed: who may not, or can't, pins by ETag. */
  async isVersioned(): Promise<boolean> {
    try {
      const status = await this.#ask((loaded, _, options) =>
        loaded.sdk
          .send(new loaded.commands.GetBucketVersioningCommand({ Bucket: this.#bucket }), options)
          .then(({ Status }) => Status),
      );
      // Once suspended, objects of before still have versions.
      if (status !== "Enabled" && status !== "Suspended") return false;
      await this.versions({ "max-keys": "1" });
      return true;
    } catch (error) {
      // Services without versions say so by 501.
      const isUnknown = error instanceof BurrowError && error.context["status"] === 501;
      if (classOf(error) === "transient" && !isUnknown) throw error;
      return false;
    }
  }

  async latest(marker: Marker): Promise<Page> {
    const { next } = marker;
    const found = await this.#ask((loaded, payer, options) => {
      const given = next === undefined ? {} : { ContinuationToken: next };
      const asked = { ...this.#asked, ...given, ...payer };
      const command = new loaded.commands.ListObjectsV2Command(asked);
      return loaded.sdk.send(command, options) as Promise<ListObjectsV2CommandOutput>;
    });
    const isEncoded = found.EncodingType === "url";
    const objects = (found.Contents ?? []).map((one) => this.#object(one, undefined, isEncoded));
    const token = nextOf(found.IsTruncated, found.NextContinuationToken, this.call.facts);
    return { objects, next: token === undefined ? undefined : { next: token } };
  }

  async versions(marker: Marker): Promise<Page> {
    const { key, version, "max-keys": most } = marker;
    const found = await this.#ask((loaded, payer, options) => {
      const asked = {
        ...this.#asked,
        ...(key === undefined ? {} : { KeyMarker: key }),
        ...(version === undefined ? {} : { VersionIdMarker: version }),
        ...(most === undefined ? {} : { MaxKeys: Number(most) }),
        ...payer,
      };
      const command = new loaded.commands.ListObjectVersionsCommand(asked);
      return loaded.sdk.send(command, options) as Promise<ListObjectVersionsCommandOutput>;
    });
    const isEncoded = found.EncodingType === "url";
    const latest = (found.Versions ?? []).filter(({ IsLatest }) => IsLatest === true);
    const objects = latest.map((one) => {
      // The version "null" is of a time without versions: the next upload may replace it.
      const id = one.VersionId === "null" ? undefined : one.VersionId;
      return this.#object(one, id, isEncoded);
    });
    const nextKey = nextOf(found.IsTruncated, found.NextKeyMarker, this.call.facts);
    if (nextKey === undefined) return { objects, next: undefined };
    const next = {
      key: decoded(nextKey, isEncoded) ?? "",
      ...(found.NextVersionIdMarker ? { version: found.NextVersionIdMarker } : {}),
    };
    return { objects, next };
  }

  get #bucket(): string {
    return this.#place.bucket;
  }

  /** Keys are asked for percent-encoded: XML has no way to write some of what they may hold. */
  get #asked() {
    return { Bucket: this.#bucket, Prefix: this.#prefix, EncodingType: "url" } as const;
  }

  #ask<T>(send: Parameters<typeof S3Client.prototype.ask<T>>[1]): Promise<T> {
    return tries(() => this.#client.ask(this.call, send), this.#options);
  }

  #object(listed: Listed, versionId: string | undefined, isEncoded: boolean): ListedObject {
    const { Key, Size, ETag, LastModified, StorageClass = "" } = listed;
    const { facts } = this.call;
    if (Key === undefined || Size === undefined) throw lie("a list without keys or sizes", facts);
    const key = decoded(Key, isEncoded);
    if (key === undefined) throw lie("a key that is no UTF-8 in a list", facts);
    if (!key.startsWith(this.#prefix)) throw lie("the key of another prefix in a list", facts);
    if (ETag === undefined || ETag === "") {
      const what = "the list has no ETag for an object, so it can't be pinned";
      throw backendError("permanent", what, { ...facts, key });
    }
    return {
      key: key.slice(this.#prefix.length),
      pin: { versionId, etag: bareTag(ETag), size: Size },
      modifiedMs: LastModified?.getTime() ?? 0,
      storageClass: StorageClass,
    };
  }
}

interface Listed {
  readonly Key?: string | undefined;
  readonly Size?: number | undefined;
  readonly ETag?: string | undefined;
  readonly LastModified?: Date | undefined;
  readonly StorageClass?: string | undefined;
}

/** A key as it is, of one that is written as forms are; undefined for one that can't be. */
function decoded(text: string, isEncoded: boolean): string | undefined {
  if (!isEncoded) return text;
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return undefined;
  }
}
