// A small S3 on loopback over a directory, for tests that can't have a large one: signatures (AWS's version 4) and body hashes are
// checked, buckets and prefixes kept apart, objects written whole, lists cut into pages, errors said in XML. It lies and fails as
// its OriginServer is told to. Tests against Ceph's are in test/store/s3-radosgw.long.test.ts.

import { createHash, createHmac } from "node:crypto";
import fs from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Test } from "tap";
import { type Front, OriginServer } from "./origin-server.ts";

export interface S3Keys {
  secret: string;
  /** Session token that requests must carry. */
  token?: string;
  isExpired?: boolean;
}

export class S3Server {
  readonly files: OriginServer;
  /** By access key. */
  readonly keys = new Map<string, S3Keys>([["AKIDTEST", { secret: "SECRETTEST" }]]);
  /** Buckets that need no signature to be read. */
  readonly open = new Set<string>();
  /** Keys in a page of a list. */
  pageKeys = 1000;
  /** Where the buckets are: requests signed for another region are sent there. */
  region: string | undefined;
  /** In place of a list: XML. */
  listed: string | undefined;
  /** Buckets that keep versions: what is put there by requests, or by put(). */
  readonly versioned = new Set<string>();
  /** By bucket: objects that a list has beside the files, such as those whose keys are no paths. */
  readonly beside = new Map<string, Beside[]>();
  /** Whether conditions of a read are heeded. */
  isHeeding = true;
  /** In place of the MD5 of an object's bytes, by bucket and key. */
  tagOf: (path: string, bytes: Uint8Array) => string = (_, bytes) => tagOf(bytes);
  /** How far its clock is ahead of this machine's, ms. */
  clockMs = 0;
  /** Why a request is refused that is signed well, by bucket and key. */
  refusalOf: (path: string, url: URL) => { status: number; code: string } | undefined = () =>
    undefined;
  /** Headers of the requests, as they came. */
  readonly seen: IncomingMessage["headers"][] = [];
  readonly root: string;
  /** By bucket and key: the number of the latest version. */
  readonly #versions = new Map<string, number>();
  #version = 0;

  private constructor(root: string, files: OriginServer) {
    this.root = root;
    this.files = files;
  }

  /** Serves the folders of `root` as buckets. */
  static async start(root: string): Promise<S3Server> {
    const front: Front = (request, response) => server.#front(request, response);
    const server = new S3Server(root, await OriginServer.start(root, front));
    return server;
  }

  /** An address of something in a bucket, with the settings that lead here. */
  address(path: string): string {
    return `s3://${path}?endpoint=${this.files.url}`;
  }

  /** What a process needs to get in. */
  get environment(): Record<string, string> {
    const [[id, { secret }] = ["", { secret: "" }]] = this.keys;
    return {
      AWS_ACCESS_KEY_ID: id,
      AWS_SECRET_ACCESS_KEY: secret,
      AWS_ENDPOINT_URL_S3: this.files.url,
      AWS_REGION: "eu-central-1",
      AWS_EC2_METADATA_DISABLED: "true",
    };
  }

  async close(): Promise<void> {
    await this.files.close();
  }

  async #front(request: IncomingMessage, response: ServerResponse) {
    this.seen.push(request.headers);
    const url = new URL(request.url ?? "/", this.files.url);
    const [bucket = "", ...rest] = url.pathname.slice(1).split("/").map(decodeURIComponent);
    const key = rest.join("/");
    const body = await bodyOf(request);
    if (body === undefined) return;
    const refusal = this.#refusal(request, url, bucket, body);
    const folder = join(this.root, bucket);
    const asked = /\/\d{8}\/([\w-]+)\/s3\//.exec(request.headers.authorization ?? "")?.[1];
    if (this.region !== undefined && asked !== this.region) {
      response.setHeader("x-amz-bucket-region", this.region);
      return void sendError(request, response, 301, "PermanentRedirect");
    }
    const nowMs = Date.now() + this.clockMs;
    response.setHeader("date", new Date(nowMs).toUTCString());
    const fail = (status: number, code: string) => void sendError(request, response, status, code);
    if (refusal === undefined && isSkewed(request, nowMs)) return fail(403, "RequestTimeTooSkewed");
    if (refusal !== undefined) return fail(refusal === "ExpiredToken" ? 400 : 403, refusal);
    if (!fs.existsSync(folder)) return fail(404, "NoSuchBucket");
    const refused = this.refusalOf(`${bucket}/${key}`, url);
    if (refused !== undefined) return fail(refused.status, refused.code);
    if (request.method === "PUT") {
      this.put(`${bucket}/${key}`, body);
      return void response.writeHead(200, { etag: tagOf(body) }).end();
    }
    if (request.method === "DELETE") {
      this.remove(`${bucket}/${key}`);
      return void response.writeHead(204).end();
    }
    const query = url.searchParams;
    if (query.has("versioning")) return void this.#versioning(response, bucket);
    if (query.has("versions")) return void this.#listVersions(response, bucket, query);
    if (query.get("list-type") === "2") return void this.#list(response, bucket, query);
    return this.#object(request, response, `${bucket}/${key}`, query.get("versionId"));
  }

  #object(
    request: IncomingMessage,
    response: ServerResponse,
    path: string,
    versionId: string | null,
  ) {
    const fail = (status: number, code: string) => void sendError(request, response, status, code);
    const file = versionId === null ? path : `.versions/${path}/${versionId}`;
    const isThere = fs.statSync(join(this.root, file), { throwIfNoEntry: false })?.isFile();
    if (!isThere) return fail(404, versionId === null ? "NoSuchKey" : "NoSuchVersion");
    const etag = this.tagOf(path, fs.readFileSync(join(this.root, file)));
    const { "if-none-match": ifNone, "if-match": ifMatch } = request.headers;
    if (ifNone === etag) return void response.writeHead(304, { etag }).end();
    if (this.isHeeding && ifMatch !== undefined && ifMatch !== etag)
      return fail(412, "PreconditionFailed");
    return { path: file, headers: { etag } };
  }

  /** Puts an object, by bucket and key: a new version where the bucket keeps them. */
  put(path: string, body: Uint8Array): void {
    if (this.versioned.has(bucketOf(path))) {
      this.#versions.set(path, ++this.#version);
      write(join(this.root, ".versions", path, `v${this.#version}`), body);
    }
    write(join(this.root, path), body);
  }

  remove(path: string): void {
    this.#versions.delete(path);
    fs.rmSync(join(this.root, path), { force: true });
  }

  #versioning(response: ServerResponse, bucket: string): void {
    const status = this.versioned.has(bucket) ? "<Status>Enabled</Status>" : "";
    sendXml(response, `<VersioningConfiguration>${status}</VersioningConfiguration>`);
  }

  /** All versions of the latest state, and one of before of each, as a list has it. */
  #listVersions(response: ServerResponse, bucket: string, query: URLSearchParams): void {
    const after = query.get("key-marker") ?? "";
    const all = this.#listed(bucket, query).filter(({ key }) => key > after);
    const page = all.slice(0, Math.min(this.pageKeys, Number(query.get("max-keys") ?? 1000)));
    const isCut = page.length < all.length;
    const shown = (key: string) => encoded(key, query);
    const rows = page.map((one) => {
      const version = this.#versions.get(`${bucket}/${one.key}`);
      const id = version === undefined ? "null" : `v${version}`;
      const row = (latest: boolean, name: string) =>
        `<Version>${contentsOf({ ...one, key: shown(one.key) })}<VersionId>${name}</VersionId><IsLatest>${latest}</IsLatest></Version>`;
      return row(true, id) + row(false, "older");
    });
    const marker = isCut
      ? `<NextKeyMarker>${shown(page.at(-1)!.key)}</NextKeyMarker><NextVersionIdMarker>older</NextVersionIdMarker>`
      : "";
    const encoding = query.has("encoding-type") ? "<EncodingType>url</EncodingType>" : "";
    const xml = `<ListVersionsResult><IsTruncated>${isCut}</IsTruncated>${encoding}${rows.join("")}${marker}</ListVersionsResult>`;
    sendXml(response, this.listed ?? xml);
  }

  /** Objects of a bucket below a prefix, by key. */
  #listed(bucket: string, query: URLSearchParams): Beside[] {
    const folder = join(this.root, bucket);
    const files = fs
      .readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
      .map((key) => {
        const { size, mtime } = fs.statSync(join(folder, key));
        const etag = this.tagOf(`${bucket}/${key}`, fs.readFileSync(join(folder, key)));
        return { key, size, mtime, etag };
      });
    const prefix = query.get("prefix") ?? "";
    return [...files, ...(this.beside.get(bucket) ?? [])]
      .filter(({ key }) => key.startsWith(prefix))
      .sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  /** Why a request is not let in, as S3 calls it. */
  #refusal(request: IncomingMessage, url: URL, bucket: string, body: Buffer): string | undefined {
    const { authorization } = request.headers;
    const isRead = request.method === "GET" || request.method === "HEAD";
    if (authorization === undefined)
      return isRead && this.open.has(bucket) ? undefined : "AccessDenied";
    const match =
      /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8}\/[\w-]+\/s3\/aws4_request), ?SignedHeaders=([\w;-]+), ?Signature=([0-9a-f]{64})$/.exec(
        authorization,
      );
    const [, id = "", scope = "", signed = "", signature = ""] = match ?? [];
    const keys = this.keys.get(id);
    if (keys === undefined) return "InvalidAccessKeyId";
    if (keys.isExpired) return "ExpiredToken";
    if (request.headers["x-amz-security-token"] !== keys.token) return "InvalidToken";
    if (signatureOf(request, url, scope, signed, keys.secret) !== signature)
      return "SignatureDoesNotMatch";
    const hash = request.headers["x-amz-content-sha256"];
    const isRight = hash === createHash("sha256").update(body).digest("hex");
    return isRight ? undefined : "XAmzContentSHA256Mismatch";
  }

  #list(response: ServerResponse, bucket: string, query: URLSearchParams): void {
    const after = Buffer.from(query.get("continuation-token") ?? "", "base64").toString();
    const all = this.#listed(bucket, query).filter(({ key }) => key > after);
    const page = all.slice(0, this.pageKeys);
    const isCut = page.length < all.length;
    const next = Buffer.from(page.at(-1)?.key ?? "").toString("base64");
    const rows = page.map(
      (one) => `<Contents>${contentsOf({ ...one, key: encoded(one.key, query) })}</Contents>`,
    );
    const xml = [
      `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>${isCut}</IsTruncated>`,
      query.has("encoding-type") ? "<EncodingType>url</EncodingType>" : "",
      ...rows,
      isCut ? `<NextContinuationToken>${next}</NextContinuationToken>` : "",
      "</ListBucketResult>",
    ];
    sendXml(response, this.listed ?? xml.join(""));
  }
}

/** An object as a list has it. */
export interface Beside {
  readonly key: string;
  readonly size: number;
  readonly mtime: Date;
  readonly etag: string;
  readonly storageClass?: string;
}

function bucketOf(path: string): string {
  return path.slice(0, path.indexOf("/"));
}

function contentsOf({ key, size, mtime, etag, storageClass = "STANDARD" }: Beside): string {
  const modified = mtime.toISOString().replace(/\.\d+Z/, ".000Z");
  return `<Key>${escapeXml(key)}</Key><Size>${size}</Size><LastModified>${modified}</LastModified><ETag>${escapeXml(etag)}</ETag><StorageClass>${storageClass}</StorageClass>`;
}

/** A key as a list writes it that was asked to encode them: as forms do. */
function encoded(key: string, query: URLSearchParams): string {
  if (query.get("encoding-type") !== "url") return key;
  return encodeURIComponent(key).replaceAll("%20", "+").replaceAll("%2F", "/");
}

function sendXml(response: ServerResponse, body: string): void {
  const text = `<?xml version="1.0" encoding="UTF-8"?>${body}`;
  response.writeHead(200, { "content-type": "application/xml" }).end(text);
}

/** Whether a request was signed more than a quarter of an hour from now. docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html */
function isSkewed({ headers }: IncomingMessage, nowMs: number): boolean {
  const signed = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(String(headers["x-amz-date"]));
  if (signed === null) return false;
  const [year, month, day, hour, minute, second] = signed.slice(1).map(Number);
  const atMs = Date.UTC(year!, month! - 1, day, hour, minute, second);
  return Math.abs(atMs - nowMs) > 15 * 60_000;
}

/** A service with the empty bucket "box", and what a process needs to get in in the environment. */
export async function service(t: Test): Promise<S3Server> {
  const root = fs.mkdtempSync(`${tmpdir()}/burrow-s3-`);
  fs.mkdirSync(`${root}/box`);
  const server = await S3Server.start(root);
  setEnvironment(t, server.environment);
  t.teardown(async () => {
    await server.close();
    fs.rmSync(root, { recursive: true, force: true });
  });
  return server;
}

/** Variables of this process for one test. */
export function setEnvironment(t: Test, values: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(values)) {
    const before = process.env[name];
    process.env[name] = value;
    t.teardown(() => {
      if (before === undefined) delete process.env[name];
      else process.env[name] = before;
    });
  }
}

/** undefined when the client hung up in the middle: nothing comes of its request, as on S3. */
async function bodyOf(request: IncomingMessage): Promise<Buffer | undefined> {
  const pieces: Buffer[] = [];
  try {
    for await (const piece of request) pieces.push(piece as Buffer);
  } catch (error) {
    if (request.destroyed) return undefined;
    throw error;
  }
  return Buffer.concat(pieces);
}

/** Seen whole or not at all, as on S3. */
function write(path: string, bytes: Uint8Array): void {
  fs.mkdirSync(dirname(path), { recursive: true });
  fs.writeFileSync(`${path}.aside`, bytes);
  fs.renameSync(`${path}.aside`, path);
}

function tagOf(bytes: Uint8Array): string {
  return `"${createHash("md5").update(bytes).digest("hex")}"`;
}

function sendError(
  request: IncomingMessage,
  response: ServerResponse,
  status: number,
  code: string,
): void {
  const secret = "<StringToSign>of the request</StringToSign><Message>do not show</Message>";
  const xml = `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code>${secret}</Error>`;
  const isHead = request.method === "HEAD";
  response.writeHead(status, { "content-type": "application/xml" }).end(isHead ? "" : xml);
}

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html */
function signatureOf(
  request: IncomingMessage,
  url: URL,
  scope: string,
  signed: string,
  secret: string,
): string {
  const { headers } = request;
  const query = [...url.search.slice(1).split("&")].filter(Boolean).map((pair) => {
    const [name, value = ""] = pair.split("=");
    return `${name}=${value}`;
  });
  const canonical = [
    request.method,
    url.pathname,
    query.sort().join("&"),
    ...signed.split(";").map((name) => `${name}:${String(headers[name] ?? "").trim()}`),
    "",
    signed,
    headers["x-amz-content-sha256"],
  ].join("\n");
  const hash = createHash("sha256").update(canonical).digest("hex");
  const text = ["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, hash].join("\n");
  const hmac = (key: string | Buffer, data: string) =>
    createHmac("sha256", key).update(data).digest();
  const key = scope.split("/").reduce<string | Buffer>(hmac, `AWS4${secret}`);
  return createHmac("sha256", key).update(text).digest("hex");
}
