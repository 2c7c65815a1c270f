// The one client of S3, for stores and channels alike: AWS's SDK finds credentials, region and endpoint, signs, and reads lists; the
// request itself goes through exchange.ts, so that all deadlines and what is taken as an answer are ours. The SDK retries nothing.
// Control plane.

import type http from "node:http";
import type { IncomingMessage } from "node:http";
import { Readable } from "node:stream";
import type { S3Client as Sdk } from "@aws-sdk/client-s3";
import { BurrowError } from "../base/error.ts";
import { dropIdle, openAgent } from "./agents.ts";
import { exchange, type Facts, lie, readBody, SOCKETS } from "./exchange.ts";
import { answerError, codeOf, STALE_CREDENTIALS, sdkError } from "./s3-errors.ts";
import type { S3Settings } from "./s3-place.ts";
import { timeoutError } from "./store.ts";

/** How a request is made, beside what it asks for. */
export interface S3Call {
  readonly headerMs: number;
  readonly stallMs: number;
  readonly signal?: AbortSignal | undefined;
  /** What errors say of it. */
  readonly facts: Facts;
  /** Sockets to use; those of the client when missing. */
  readonly agents?: Agents | undefined;
}

export interface S3Object {
  readonly bucket: string;
  readonly key: string;
}

/** Conditions of a read, as HTTP has them. */
export interface S3Read extends S3Object {
  readonly range?: string | undefined;
  readonly ifNoneMatch?: string | undefined;
  readonly ifMatch?: string | undefined;
  readonly versionId?: string | undefined;
}

export interface S3Page {
  readonly objects: readonly {
    readonly key: string;
    readonly bytes: number;
    /** Ms since 1970, in whole seconds. */
    readonly modifiedMs: number;
  }[];
  /** Where the next page begins; undefined on the last. */
  readonly next: string | undefined;
}

/** What came: the message, its body not yet read when `isOpen`; `error` when the status is no success. */
export interface S3Answer {
  readonly message: IncomingMessage;
  readonly isOpen: boolean;
  readonly error: BurrowError | undefined;
}

/** Bodies that aren't objects: errors, a page of a list (1,000 keys of 1,024 bytes, escaped). */
const REPLY_MAX_BYTES = 8 * 1024 * 1024;
/** For credentials that a machine's role, a container or a command gives; retries of theirs included. */
const CREDENTIALS_MS = 30_000;

/** Where the SDK finds no region: AWS's default, and what other services take. A bucket elsewhere says so and is followed there. */
const DEFAULT_REGION = "us-east-1";

/** Sockets for http and https, kept open. */
export class Agents {
  readonly #http: http.Agent;
  readonly #https: http.Agent;

  constructor(sockets: number = SOCKETS) {
    this.#http = openAgent(false, sockets);
    this.#https = openAgent(true, sockets);
  }

  /** Ends connections that nobody uses. */
  dropIdle(): void {
    dropIdle(this.#http);
    dropIdle(this.#https);
  }

  of(protocol: string): http.Agent {
    return protocol === "https:" ? this.#https : this.#http;
  }

  close(): void {
    this.#http.destroy();
    this.#https.destroy();
  }
}

/** Clients by their settings: credentials are found and refreshed once for all who use them. */
const clients = new Map<string, S3Client>();

/** The client for an address's settings. Nothing is loaded or asked before the first request. */
export function s3Client(settings: S3Settings): S3Client {
  const key = JSON.stringify(settings);
  const known = clients.get(key);
  if (known !== undefined) return known;
  const client = new S3Client(settings);
  clients.set(key, client);
  return client;
}

/** The next request of each client asks the credential chain anew: files of credentials, and of settings, may say something else now. */
export function renewCredentials(): void {
  for (const client of clients.values()) client.renew();
}

export class S3Client {
  readonly #settings: S3Settings;
  readonly #agents = new Agents();
  #sdk: Promise<Loaded> | undefined;
  /** Whether a request was ever signed. */
  #hadCredentials = false;

  constructor(settings: S3Settings) {
    this.#settings = settings;
  }

  renew(): void {
    this.#sdk = undefined;
  }

  /** Reads an object: its answer with the body open when it is 200 or 206. Throws when there is no answer. */
  async read(read: S3Read, call: S3Call): Promise<S3Answer> {
    const { bucket, key, range, ifNoneMatch, ifMatch, versionId } = read;
    const asked = {
      Bucket: bucket,
      Key: key,
      ...this.#payer(),
      ...(range === undefined ? {} : { Range: range }),
      ...(ifNoneMatch === undefined ? {} : { IfNoneMatch: ifNoneMatch }),
      ...(ifMatch === undefined ? {} : { IfMatch: ifMatch }),
      ...(versionId === undefined ? {} : { VersionId: versionId }),
    };
    const made = new Request(call, this.#agents, true);
    return await this.#send(made, async ({ sdk, commands }, options) => {
      await sdk.send(new commands.GetObjectCommand(asked), options);
    });
  }

  /** Asks whether there is an object. */
  async head({ bucket, key }: S3Object, call: S3Call): Promise<S3Answer> {
    const asked = { Bucket: bucket, Key: key, ...this.#payer() };
    const made = new Request(call, this.#agents, false);
    const answer = await this.#send(made, async ({ sdk, commands }, options) => {
      await sdk.send(new commands.HeadObjectCommand(asked), options);
    });
    if (answer.error === undefined || !isUnexplained(answer.error)) return answer;
    // The answer to a HEAD has no body that could say why: credentials that have expired look as those do that may not read.
    const read = await this.read({ bucket, key, range: "bytes=0-0" }, call);
    // What heeds no range would send all of the object.
    read.message.destroy();
    const isEmpty = read.error?.context["status"] === 416;
    return { ...read, isOpen: false, error: isEmpty ? undefined : read.error };
  }

  /** Writes an object: there whole when it resolves, or not at all. The service compares the bytes with the hash that is signed. */
  async write({ bucket, key }: S3Object, body: Uint8Array, call: S3Call): Promise<S3Answer> {
    const asked = {
      Bucket: bucket,
      Key: key,
      Body: body,
      ContentLength: body.length,
      ContentType: "application/octet-stream",
      ...this.#payer(),
    };
    const made = new Request(call, this.#agents, false);
    return await this.#send(made, async ({ sdk, commands }, options) => {
      await sdk.send(new commands.PutObjectCommand(asked), options);
    });
  }

  /** Removes an object; one that isn't there too. */
  async remove({ bucket, key }: S3Object, call: S3Call): Promise<S3Answer> {
    const asked = { Bucket: bucket, Key: key, ...this.#payer() };
    const made = new Request(call, this.#agents, false);
    return await this.#send(made, async ({ sdk, commands }, options) => {
      await sdk.send(new commands.DeleteObjectCommand(asked), options);
    });
  }

  /** Objects whose keys begin with `prefix`, a page at a time; `from` is the `next` of the page before. Throws what went wrong. */
  async list(
    bucket: string,
    prefix: string,
    from: string | undefined,
    call: S3Call,
  ): Promise<S3Page> {
    const asked = {
      Bucket: bucket,
      Prefix: prefix,
      ...this.#payer(),
      ...(from === undefined ? {} : { ContinuationToken: from }),
    };
    const made = new Request(call, this.#agents, false);
    let page: S3Page = { objects: [], next: undefined };
    const { error } = await this.#send(made, async ({ sdk, commands }, options) => {
      const found = await sdk.send(new commands.ListObjectsV2Command(asked), options);
      page = {
        objects: (found.Contents ?? []).flatMap(
          ({ Key: key, Size: bytes = 0, LastModified: at }) => {
            // Of what has no time nothing may be thought but that it is new.
            const modifiedMs = at?.getTime() ?? Number.POSITIVE_INFINITY;
            return key === undefined ? [] : [{ key, bytes, modifiedMs }];
          },
        ),
        next: nextOf(found.IsTruncated, found.NextContinuationToken, call.facts),
      };
    });
    if (error !== undefined) throw error;
    return page;
  }

  /** Makes any other request that is answered by a document: what `send` makes of it. Throws what went wrong. */
  async ask<T>(
    call: S3Call,
    send: (loaded: Loaded, payer: { RequestPayer?: "requester" }, options: object) => Promise<T>,
  ): Promise<T> {
    const made = new Request(call, this.#agents, false);
    let found: { readonly value: T } | undefined;
    const { error } = await this.#send(made, async (loaded, options) => {
      found = { value: await send(loaded, this.#payer(), options) };
    });
    if (error !== undefined || found === undefined) throw error;
    return found.value;
  }

  #payer(): { RequestPayer?: "requester" } {
    return this.#settings.isRequesterPays ? { RequestPayer: "requester" } : {};
  }

  /** Has the SDK make a request and judges what came. */
  async #send(
    made: Request,
    send: (loaded: Loaded, options: SendOptions) => Promise<void>,
  ): Promise<S3Answer> {
    const { facts } = made.call;
    const loaded = this.#load();
    // Who gave up before it was waited for is told so, and nothing else.
    loaded.catch(() => undefined);
    try {
      await made.bounded(async () => send(await loaded, { request: made }));
    } catch (cause) {
      const { message } = made;
      this.#hadCredentials ||= message !== undefined;
      const status = message?.statusCode ?? 0;
      if (message === undefined || cause instanceof BurrowError || status < 300) {
        message?.destroy();
        throw sdkError(cause, facts, this.#hadCredentials);
      }
      const code = codeOf(cause);
      // The next request asks the chain anew, and others that were refused with the same ones wait for it.
      if (STALE_CREDENTIALS.includes(code) && this.#sdk === loaded) this.#sdk = undefined;
      return { message, isOpen: false, error: answerError(message, code, facts) };
    }
    const { message } = made;
    this.#hadCredentials = true;
    if (message !== undefined) return { message, isOpen: made.isStream, error: undefined };
    throw sdkError(new Error("no request was made"), facts);
  }

  #load(): Promise<Loaded> {
    this.#sdk ??= load(this.#settings).catch((error: unknown) => {
      this.#sdk = undefined;
      throw error;
    });
    return this.#sdk;
  }
}

/** Where a list that is cut goes on. One that doesn't say so is no list: what it leaves out would be taken for missing. */
export function nextOf(
  isCut: boolean | undefined,
  marker: string | undefined,
  facts: Facts,
): string | undefined {
  if (isCut !== true) return undefined;
  if (marker !== undefined && marker !== "") return marker;
  throw lie("a list that is cut and doesn't say where it goes on", facts);
}

function isUnexplained({ class: errorClass, context }: BurrowError): boolean {
  const { status, code } = context;
  return errorClass === "permanent" && code === undefined && (status === 400 || status === 403);
}

/** What goes through the SDK with a request. */
interface SendOptions {
  readonly request: Request;
  /** One of the SDK's own, which its types want to see; never set. */
  readonly requestTimeout?: number;
}

/** A request as the SDK hands it out, signed. */
interface Signed {
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number | undefined;
  readonly method: string;
  readonly path: string;
  readonly query?: Readonly<Record<string, string | readonly string[] | null>> | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: unknown;
}

export interface Loaded {
  readonly sdk: Sdk;
  readonly commands: typeof import("./s3-sdk.ts");
}

async function load(settings: S3Settings): Promise<Loaded> {
  const commands = await import("./s3-sdk.ts");
  const { endpoint, profile, isPathStyle, isAnonymous } = settings;
  const make = (region: string | undefined) =>
    new commands.S3Client({
      forcePathStyle: isPathStyle,
      followRegionRedirects: true,
      maxAttempts: 1,
      // Checksums beyond the signature's: services that aren't AWS's store the body of such uploads wrong, or refuse them.
      requestChecksumCalculation: "WHEN_REQUIRED",
      responseChecksumValidation: "WHEN_REQUIRED",
      expectContinueHeader: false,
      requestHandler,
      ...(region === undefined ? {} : { region }),
      ...(endpoint === undefined ? {} : { endpoint }),
      ...(profile === undefined ? {} : { profile }),
      ...(isAnonymous ? UNSIGNED : FRESH),
    });
  const sdk = make(settings.region);
  const region = await sdk.config.region().catch(() => undefined);
  return { sdk: region === undefined ? make(DEFAULT_REGION) : sdk, commands };
}

/** For the credential chain: files are read again when it is asked again, since credentials in them may have been renewed. */
const FRESH = { ignoreCache: true };

const UNSIGNED = {
  credentials: async () => ({ accessKeyId: "", secretAccessKey: "" }),
  signer: { sign: async <T>(request: T): Promise<T> => request },
};

/** One request on its way through the SDK: it comes out at the other end with the SDK's options. */
class Request {
  readonly call: S3Call;
  /** Whether the body of a success is left to the caller. */
  readonly isStream: boolean;
  readonly #agents: Agents;
  /** The last answer: a bucket of another region is asked for twice. */
  message: IncomingMessage | undefined;
  #isSent = false;

  constructor(call: S3Call, agents: Agents, isStream: boolean) {
    this.call = call;
    this.isStream = isStream;
    this.#agents = call.agents ?? agents;
  }

  /** Ends with the caller's signal, or when the credentials don't come, whatever the SDK waits for. */
  bounded(work: () => Promise<void>): Promise<void> {
    const { signal, facts } = this.call;
    return new Promise((resolve, reject) => {
      const onAbort = () => settle(() => reject(timeoutError("gave up waiting for S3", facts)));
      const timer = setTimeout(() => {
        const what = `no credentials within ${CREDENTIALS_MS / 1000} s`;
        if (!this.#isSent) settle(() => reject(timeoutError(what, facts)));
      }, CREDENTIALS_MS);
      const settle = (then: () => void) => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", onAbort);
        then();
      };
      if (signal?.aborted) return onAbort();
      signal?.addEventListener("abort", onAbort, { once: true });
      work().then(
        () => settle(resolve),
        (error: unknown) => settle(() => reject(error)),
      );
    });
  }

  /** Sends what the SDK has signed. */
  async send(signed: Signed) {
    const { headerMs, stallMs, signal, facts } = this.call;
    this.#isSent = true;
    const { protocol, hostname, port, method, headers } = signed;
    const request = {
      protocol,
      hostname: hostname.replace(/^\[(.*)\]$/, "$1"),
      ...(port === undefined ? {} : { port }),
      path: pathOf(signed),
      method,
      headers,
      agent: this.#agents.of(protocol),
    };
    const { body } = signed;
    const message = await exchange({
      request,
      ...(body instanceof Uint8Array ? { body } : {}),
      headerMs,
      signal,
      facts,
    });
    this.message = message;
    const statusCode = message.statusCode ?? 0;
    const reply = { statusCode, headers: headersOf(message) };
    if (this.isStream && (statusCode === 200 || statusCode === 206)) {
      return { response: { ...reply, body: message } };
    }
    const plan = { exact: undefined, maxBytes: REPLY_MAX_BYTES };
    const bytes = await readBody(message, plan, stallMs, signal, facts);
    return { response: { ...reply, body: Readable.from([bytes]) } };
  }
}

/** What the SDK sends through: each request knows how it wants to be sent. */
const requestHandler = {
  metadata: { handlerProtocol: "http/1.1" },
  handle: (signed: Signed, options?: object) => (options as SendOptions).request.send(signed),
  updateHttpClientConfig() {},
  httpHandlerConfigs: () => ({}),
  destroy() {},
};

/** The path as it was signed, with its query. */
function pathOf({ path, query }: Signed): string {
  const words = Object.entries(query ?? {}).flatMap(([name, value]) => {
    const values = Array.isArray(value) ? value : [value];
    return values.map((one) =>
      one === null || one === undefined ? escaped(name) : `${escaped(name)}=${escaped(one)}`,
    );
  });
  return words.length === 0 ? path : `${path}?${words.sort().join("&")}`;
}

/** RFC 3986, as signatures have it. */
function escaped(text: string): string {
  const hex = (c: string) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`;
  return encodeURIComponent(text).replace(/[!'()*]/g, hex);
}

function headersOf({ headers }: IncomingMessage): Record<string, string> {
  const pairs = Object.entries(headers).map(([name, value]) => [name, String(value ?? "")]);
  return Object.fromEntries(pairs) as Record<string, string>;
}
