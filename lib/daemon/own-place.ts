// OwnPlace: what makes a cache this daemon's: its lock, its socket, and the folders that all is written to. Whoever empties the cache, or a
// cleaner of old files, takes them away under a daemon that lives: then they are made anew, unless another daemon was faster. Control
// plane.

import fs from "node:fs";
import type { Log } from "../cache/counters.ts";
import type { CacheDirectory } from "../cache/directory.ts";
import { makeCache } from "../cache/ground.ts";
import { CACHE_FOLDERS, CACHE_MARKER, DAEMON_LOCK, DAEMON_SOCKET } from "../cache/layout.ts";
import { errnoOf } from "../store/node-error.ts";
import { takeLock } from "./lock.ts";
import { OwnSocket } from "./own-socket.ts";

/** Looks for which a socket alone may be missing: a service manager takes it away, and binds its own there. */
const SOCKET_LOOKS = 30;
const GROUND: readonly string[] = [...CACHE_FOLDERS, CACHE_MARKER];

/** Of the place: whether it is as it was, was made anew, or is another daemon's by now. */
export type Standing = "kept" | "restored" | "lost";

export class OwnPlace {
  readonly #cache: CacheDirectory;
  readonly #listen: (path: string) => Promise<void>;
  readonly #log: Log;
  #lock: number;
  #socket: OwnSocket | undefined;
  #isLooking = false;
  /** Looks, one after the other, that found no socket. */
  #missed = 0;
  #isLeft = false;

  /** Takes the FD of the cache's lock; `listen` binds a name of its socket, and forgets the one before. */
  constructor(
    cache: CacheDirectory,
    lock: number,
    listen: (path: string) => Promise<void>,
    log: Log,
  ) {
    this.#cache = cache;
    this.#lock = lock;
    this.#listen = listen;
    this.#log = log;
  }

  /** Listens on the cache's socket, where no manager has handed it over. Throws the system's errors. */
  async listen(): Promise<void> {
    const before = this.#socket;
    this.#socket = await OwnSocket.open(this.#cache.root, this.#listen);
    before?.close();
  }

  /** Called about once a second: makes anew what somebody has removed. Never rejects: what can't be made now is tried again. */
  async look(): Promise<Standing> {
    if (this.#isLooking || this.#isLeft) return "kept";
    this.#isLooking = true;
    try {
      const { disk } = this.#cache;
      const found = await disk.run("look", () => findIn(this.#cache.root, this.#lock));
      if (this.#isLeft || found === undefined) return "kept";
      return await this.#restore(found);
    } catch {
      return "kept";
    } finally {
      this.#isLooking = false;
    }
  }

  async #restore({ names, isLocked }: Found): Promise<Standing> {
    const { root } = this.#cache;
    const isSound = GROUND.every((name) => names.has(name));
    const hasSocket = names.has(DAEMON_SOCKET);
    this.#missed = hasSocket ? 0 : this.#missed + 1;
    const isPatient = isLocked && isSound && this.#missed < SOCKET_LOOKS;
    if (isPatient) return "kept";
    if (!isSound) makeCache(root);
    if (!isLocked) {
      const lock = takeLock(root);
      if (lock === undefined) return "lost";
      fs.closeSync(this.#lock);
      this.#lock = lock;
    }
    if (!hasSocket) await this.listen();
    this.#log("cache was removed", {
      cache: root,
      note: "what the daemon needs of it is there again",
    });
    return "restored";
  }

  /** Takes the socket's name away. The socket goes before the lock: whoever gets the lock next makes its own. */
  leave(): void {
    this.#isLeft = true;
    this.#socket?.remove();
  }

  /** Once the socket was closed. */
  close(): void {
    this.#isLeft = true;
    this.#socket?.close();
    fs.closeSync(this.#lock);
  }
}

interface Found {
  readonly names: ReadonlySet<string>;
  /** Whether the lock that we hold is the one that others would take. */
  readonly isLocked: boolean;
}

/** What is in a cache, but for folders that look like one. undefined: that isn't our cache, whose disk was taken away, say. */
async function findIn(root: string, lock: number): Promise<Found | undefined> {
  const { ino, dev, nlink } = await fstat(lock);
  const names = new Set(await fs.promises.readdir(root).catch(noneIfGone));
  const there = names.has(DAEMON_LOCK)
    ? await fs.promises.lstat(`${root}/${DAEMON_LOCK}`, { bigint: true })
    : undefined;
  const isLocked = there?.ino === ino && there.dev === dev;
  return isLocked || nlink === 0n ? { names, isLocked } : undefined;
}

function noneIfGone(error: unknown): string[] {
  if (errnoOf(error).code === "ENOENT") return [];
  throw error;
}

function fstat(fd: number): Promise<fs.BigIntStats> {
  return new Promise((resolve, reject) => {
    fs.fstat(fd, { bigint: true }, (error, stats) => (error ? reject(error) : resolve(stats)));
  });
}
