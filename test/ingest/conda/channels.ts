// Owns: conda channels made for tests, true and lying: directories of packages with repodata, and a server that answers with
// ETag and Last-Modified. Plane: control.

import { createHash } from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import os from "node:os";
import path from "node:path";
import type { Test } from "tap";
import type { Channel } from "../../../lib/ingest/conda/channel.ts";
import { conda, zst } from "./packages.ts";

export type Json = Record<string, unknown>;

/** A package as a channel lists it. */
export interface Listed {
  readonly name: string;
  readonly version?: string;
  readonly depends?: readonly string[];
  readonly constrains?: readonly string[];
  /** Further fields of the record, also wrong ones. */
  readonly fields?: Json;
}

const hash = (kind: "md5" | "sha256", bytes: Buffer | string) =>
  createHash(kind).update(bytes).digest("hex");

/** A record of a package that nobody fetches. */
export function recordOf(one: Listed, subdir = "linux-64"): Json {
  const { name, version = "1.0", depends = [], constrains = [], fields = {} } = one;
  const build = "h0_0";
  const md5 = hash("md5", name);
  const sha256 = hash("sha256", name);
  const own = { name, version, build, build_number: 0, depends, constrains };
  return { ...own, subdir, md5, sha256, size: 1000, ...fields };
}

/** Repodata as text. A key of `lies` takes the place of a record, or adds one. */
export function repodataOf(
  packages: readonly Listed[],
  subdir = "linux-64",
  lies: Json = {},
): string {
  const records = Object.fromEntries(
    packages.map((one) => [
      `${one.name}-${one.version ?? "1.0"}-h0_0.conda`,
      recordOf(one, subdir),
    ]),
  );
  return JSON.stringify({
    info: { subdir },
    packages: {},
    "packages.conda": { ...records, ...lies },
    repodata_version: 1,
  });
}

/** A folder that goes with the test. */
export function folderOf(t: Test): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "burrow-channel-"));
  t.teardown(() => fs.rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A local channel of these packages, without their archives. */
export function listing(t: Test, packages: readonly Listed[], lies: Json = {}): Channel {
  return channelOf(t, { "linux-64/repodata.json": repodataOf(packages, "linux-64", lies) });
}

/** A local channel of these files. */
export function channelOf(t: Test, files: Readonly<Record<string, string | Buffer>>): Channel {
  const folder = folderOf(t);
  for (const [name, content] of Object.entries(files)) write(path.join(folder, name), content);
  return { url: `file://${folder}/`, path: folder, name: path.basename(folder) };
}

function write(file: string, content: string | Buffer): void {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, content);
}

/** Writes a channel with real archives into a folder: each package has one file, share/NAME. */
export async function writeChannel(folder: string, packages: readonly Listed[]): Promise<void> {
  const lies: Json = {};
  for (const one of packages) {
    const record = recordOf(one);
    const fileName = `${one.name}-${String(record["version"])}-h0_0.conda`;
    const bytes = await conda({
      index: { ...record, name: one.name, build: "h0_0" },
      files: [{ name: `share/${one.name}`, content: String(record["version"]) }],
    });
    write(path.join(folder, "linux-64", fileName), bytes);
    const facts = { md5: hash("md5", bytes), sha256: hash("sha256", bytes), size: bytes.length };
    lies[fileName] = { ...record, ...facts, ...one.fields };
  }
  write(path.join(folder, "linux-64/repodata.json"), repodataOf([], "linux-64", lies));
  write(path.join(folder, "noarch/repodata.json"), repodataOf([], "noarch"));
}

/** Writes the compressed twin of a repodata.json, and removes the plain one. */
export function compress(folder: string): void {
  const file = path.join(folder, "linux-64/repodata.json");
  fs.writeFileSync(`${file}.zst`, zst(fs.readFileSync(file)));
  fs.rmSync(file);
}

/** A web server over a folder that knows ETag or Last-Modified. */
export class ChannelServer {
  readonly requests: { path: string; status: number; authorization?: string }[] = [];
  /** What files are revalidated by. */
  by: "etag" | "date" | "nothing" = "etag";
  /** Instead of a file. */
  answer: (file: string) => { status: number; body?: string } | undefined = () => undefined;
  readonly url: string;

  private constructor(server: http.Server, root: string) {
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on("request", (request, response) => {
      const file = decodeURIComponent(request.url!.slice(1));
      const done = (status: number, body?: string | Buffer, headers = {}) => {
        const { authorization } = request.headers;
        const secret = authorization === undefined ? {} : { authorization };
        this.requests.push({ path: file, status, ...secret });
        response.writeHead(status, headers).end(body);
      };
      const told = this.answer(file);
      if (told !== undefined) return done(told.status, told.body);
      let bytes: Buffer;
      try {
        bytes = fs.readFileSync(path.join(root, file));
      } catch {
        return done(404);
      }
      const etag = `"${hash("md5", bytes)}"`;
      const date = new Date(fs.statSync(path.join(root, file)).mtimeMs).toUTCString();
      const headers =
        this.by === "etag" ? { etag } : this.by === "date" ? { "last-modified": date } : {};
      const { "if-none-match": match, "if-modified-since": since } = request.headers;
      const isFresh = this.by === "etag" ? match === etag : this.by === "date" && since === date;
      return isFresh ? done(304, undefined, headers) : done(200, bytes, headers);
    });
  }

  static async start(t: Test, root: string): Promise<ChannelServer> {
    const server = http.createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    t.teardown(
      () =>
        new Promise((resolve) => {
          server.close(resolve);
          server.closeAllConnections();
        }),
    );
    return new ChannelServer(server, root);
  }

  /** "STATUS PATH" of each request since the last call. */
  take(): string[] {
    return this.requests.splice(0).map(({ path: file, status }) => `${status} ${file}`);
  }
}
