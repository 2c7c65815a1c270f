// A store in a directory. Takes the `fs` it works on, so that memory.ts is this file over memfs. An object is
// written aside, fsynced and renamed, its folder fsynced: it is there whole or not at all. Control plane.

import nodeFs from "node:fs";
import { BurrowError } from "../base/error.ts";
import { asideName, TMP } from "./aside.ts";
import { makeFolderBy } from "./folder.ts";
import { errnoOf, ioCode } from "./node-error.ts";
import {
  backendError,
  checkPath,
  type GetOptions,
  type SizedObject,
  throwIfAborted,
  tooShort,
  WHOLE_MAX_BYTES,
  type WritableBackend,
} from "./store.ts";

/** What local.ts needs of a file handle. */
export interface FileLike {
  read(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ bytesRead: number }>;
  write(buffer: Uint8Array, offset: number, length: number): Promise<{ bytesWritten: number }>;
  sync(): Promise<void>;
  stat(): Promise<{ readonly size: number | bigint; isFile(): boolean }>;
  close(): Promise<void>;
}

/** What local.ts needs of an fs: the promise half of node:fs, or of memfs. */
export interface FsLike {
  open(path: string, flags: string | number, mode?: number): Promise<FileLike>;
  mkdir(path: string): Promise<unknown>;
  rename(source: string, target: string): Promise<void>;
  unlink(path: string): Promise<void>;
  readdir(path: string): Promise<unknown[]>;
  stat(path: string): Promise<{
    readonly size: number | bigint;
    readonly mtimeMs: number | bigint;
    isFile(): boolean;
    isDirectory(): boolean;
  }>;
}

/** A FIFO that stands for an object would be waited for, by one of few threads, for good: it is opened, seen and refused. */
const READ = nodeFs.constants.O_RDONLY | nodeFs.constants.O_NONBLOCK;

/** A backend over the directory `root`, which need not exist before the first put. */
export function localBackend(
  root: string,
  fs: FsLike = nodeFs.promises as unknown as FsLike,
): WritableBackend {
  return new LocalBackend(root, fs);
}

class LocalBackend implements WritableBackend {
  readonly origin: string;
  readonly #fs: FsLike;
  readonly #madeFolders = new Set<string>();

  constructor(root: string, fs: FsLike) {
    this.origin = root;
    this.#fs = fs;
  }

  async get(path: string, options: GetOptions = {}): Promise<Buffer> {
    checkPath(path);
    throwIfAborted(options.signal, path, this.origin);
    const file = await this.#open(path);
    try {
      const stat = await file.stat();
      if (!stat.isFile()) throw this.#error("notFound", "not a regular file", path);
      const size = Number(stat.size);
      const range = options.range ?? { offset: 0, length: size };
      const maxBytes = options.range ? range.length : (options.maxBytes ?? WHOLE_MAX_BYTES);
      if (range.length > maxBytes) throw this.#error("permanent", `larger than ${maxBytes}`, path);
      if (range.offset + range.length > size) {
        throw tooShort(size, { path, origin: this.origin });
      }
      return await this.#readFully(file, range.offset, range.length, path);
    } catch (error) {
      throw this.#systemError(error, "can't read", path);
    } finally {
      await file.close();
    }
  }

  async has(path: string, signal?: AbortSignal): Promise<boolean> {
    checkPath(path);
    throwIfAborted(signal, path, this.origin);
    try {
      return (await this.#fs.stat(this.#full(path))).isFile();
    } catch (error) {
      const { code } = errnoOf(error);
      if (code === "ENOENT" || code === "ENOTDIR") return false;
      throw this.#systemError(error, "can't look for an object", path);
    }
  }

  async put(path: string, bytes: Uint8Array): Promise<void> {
    checkPath(path);
    try {
      await this.#putNow(path, bytes).catch(async (error: unknown) => {
        if (errnoOf(error).code !== "ENOENT") throw error;
        // Somebody has emptied the directory: a tier, say, which others may do at any time.
        this.#madeFolders.clear();
        await this.#putNow(path, bytes);
      });
    } catch (error) {
      const { errno } = errnoOf(error);
      throw new BurrowError(ioCode(errno), "can't write to the store", {
        errno,
        cause: error,
        context: { path, origin: this.origin },
      });
    }
  }

  /** Leaves nothing aside when it fails. Throws the system's error. */
  async #putNow(path: string, bytes: Uint8Array): Promise<void> {
    const folder = path.slice(0, Math.max(0, path.lastIndexOf("/")));
    const aside = this.#full(`${TMP}/${asideName()}`);
    try {
      await this.#makeFolder(TMP);
      if (folder !== "") await this.#makeFolder(folder);
      const file = await this.#fs.open(aside, "wx", 0o644);
      try {
        await writeFully(file, bytes);
        await file.sync();
      } finally {
        await file.close();
      }
      await this.#fs.rename(aside, this.#full(path));
      await this.#syncFolder(folder);
    } catch (error) {
      await this.#fs.unlink(aside).catch(() => undefined);
      throw error;
    }
  }

  async *list(folder: string): AsyncIterable<string> {
    for await (const { path } of this.sizes(folder)) yield path;
  }

  async *sizes(folder: string): AsyncIterable<SizedObject> {
    checkPath(folder);
    for (const name of await this.#names(folder)) {
      const path = `${folder}/${name}`;
      const stat = await this.#statOf(path);
      if (stat?.isDirectory()) yield* this.sizes(path);
      else if (stat?.isFile())
        yield { path, bytes: Number(stat.size), modifiedMs: Number(stat.mtimeMs) };
    }
  }

  async remove(path: string): Promise<void> {
    checkPath(path);
    try {
      await this.#fs.unlink(this.#full(path));
      // Durable: what is removed next may be what this object led to.
      await this.#syncFolder(path.slice(0, Math.max(0, path.lastIndexOf("/"))));
    } catch (error) {
      const { errno, code } = errnoOf(error);
      if (code === "ENOENT" || code === "ENOTDIR") return;
      const context = { path, origin: this.origin };
      const options = { errno, cause: error, context };
      throw new BurrowError("BURROW_IO", "can't remove an object of the store", options);
    }
  }

  close(): void {}

  #full(path: string): string {
    return `${this.origin}/${path}`;
  }

  async #open(path: string): Promise<FileLike> {
    try {
      return await this.#fs.open(this.#full(path), READ);
    } catch (error) {
      throw this.#systemError(error, "can't open", path);
    }
  }

  async #readFully(file: FileLike, offset: number, length: number, path: string): Promise<Buffer> {
    const bytes = Buffer.allocUnsafeSlow(length);
    let done = 0;
    while (done < length) {
      const { bytesRead } = await file.read(bytes, done, length - done, offset + done);
      if (bytesRead === 0)
        throw this.#error("transient", "the file shrank while it was read", path);
      done += bytesRead;
    }
    return bytes;
  }

  async #makeFolder(folder: string): Promise<void> {
    if (this.#madeFolders.has(folder)) return;
    await makeFolderBy(this.#fs, this.#full(folder));
    const above = folder.lastIndexOf("/");
    await this.#syncFolder(above < 0 ? "" : folder.slice(0, above));
    this.#madeFolders.add(folder);
  }

  /** A rename is durable only once its folder is: man fsync(2). */
  async #syncFolder(folder: string): Promise<void> {
    // memfs can't open folders; what it holds is not durable anyway.
    const file = await this.#fs
      .open(folder === "" ? this.origin : this.#full(folder), "r")
      .catch((error: unknown) => {
        if (errnoOf(error).code === "EISDIR") return undefined;
        throw error;
      });
    if (file === undefined) return;
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  }

  /** undefined for what another one has removed since its folder was read. */
  async #statOf(path: string) {
    try {
      return await this.#fs.stat(this.#full(path));
    } catch (error) {
      if (errnoOf(error).code === "ENOENT") return undefined;
      throw this.#systemError(error, "can't list", path);
    }
  }

  async #names(folder: string): Promise<string[]> {
    try {
      return (await this.#fs.readdir(this.#full(folder))).map(String);
    } catch (error) {
      if (errnoOf(error).code === "ENOENT") return [];
      throw this.#systemError(error, "can't list", folder);
    }
  }

  /** Of a failed system call; what is ours already as it is. */
  #systemError(error: unknown, message: string, path: string): BurrowError {
    if (error instanceof BurrowError) return error;
    return this.#error(classOfErrno(errnoOf(error).code), message, path, error);
  }

  #error(
    errorClass: "notFound" | "permanent" | "transient",
    message: string,
    path: string,
    cause?: unknown,
  ): BurrowError {
    return backendError(errorClass, message, { path, origin: this.origin }, cause);
  }
}

/** These pass, those of network mounts too: ESTALE is said of an object that another node has written anew. */
const TRANSIENT = ["EMFILE", "ENFILE", "EAGAIN", "ENOMEM", "EIO", "ESTALE", "ETIMEDOUT"];

function classOfErrno(code: string): "notFound" | "permanent" | "transient" {
  if (code === "ENOENT" || code === "ENOTDIR") return "notFound";
  return TRANSIENT.includes(code) ? "transient" : "permanent";
}

async function writeFully(file: FileLike, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done);
    done += bytesWritten;
  }
}
