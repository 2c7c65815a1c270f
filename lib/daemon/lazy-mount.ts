// LazyMount: a FUSE mount of the daemon's own, `lazy/` in the cache directory, with the large blobs that are on their way. A gofer
// donates an FD from it, so that a file that isn't here yet is mapped, cached and shared by the kernel like one that is; what is
// read first is fetched first. docs/design/0010-lazy-mount.md, docs/format/cache.md. Control plane.

import fs from "node:fs";
import { LRUCache } from "lru-cache";
import { Errno } from "../base/errno.ts";
import { explain } from "../base/error.ts";
import type { Log } from "../cache/counters.ts";
import type { CacheDirectory } from "../cache/directory.ts";
import type { Fetcher } from "../cache/fetcher.ts";
import { lazyFolder, lazyStatePath } from "../cache/layout.ts";
import { type AnswerFields, AnswerState } from "../cache/mailbox-wire.ts";
import type { Source } from "../cache/pieces.ts";
import { native } from "../sys/native.ts";
import { isMounted, mountFuse, readAhead, unmount } from "./fuse-mount.ts";
import { FuseSession } from "./fuse-session.ts";
import { LazyFiles, type OpenSource } from "./lazy-files.ts";
import { endHolder, type Held, type HeldFile, Holder, takeHeld } from "./lazy-holder.ts";

/**
 * Files that are kept open by us: as long as one is, the kernel knows its name and attributes, and who opens it waits for nobody.
 * A gofer opens what it is told of at once.
 */
const OPEN_MAX = 512;
/** Closing such an FD asks nobody, or our own end would wait for us. man open(2). */
const O_PATH = 0o10000000;

/** A pause before another holder is started: whatever ends them all must not keep the daemon busy. */
const HOLD_AGAIN_MS = 100;

/** What a lazy mount needs of its daemon. */
export interface LazyContext {
  readonly cache: CacheDirectory;
  readonly fetcher: Fetcher;
  readonly open: OpenSource;
  readonly log: Log;
}

export class LazyMount {
  readonly #folder: string;
  readonly #cache: CacheDirectory;
  readonly #device: number;
  readonly #files: LazyFiles;
  readonly #session: FuseSession;
  readonly #log: Log;
  #holder: Holder | undefined;
  readonly #open = new LRUCache<string, fs.promises.FileHandle>({
    max: OPEN_MAX,
    dispose: (handle) => void handle.close().catch(() => undefined),
  });
  #isClosed = false;

  private constructor({ cache, fetcher, open, log }: LazyContext, device: number, held?: Held) {
    this.#folder = lazyFolder(cache.root);
    this.#cache = cache;
    this.#device = device;
    this.#log = log;
    this.#files = new LazyFiles(cache, fetcher, open);
    if (held !== undefined) this.#files.takeOver(held);
    this.#session = new FuseSession(device, this.#files, log, () => this.#hold());
    // Who ends while a thread waits for the device would wait for that thread.
    const onExit = (code: number) => native.exitNow(code);
    process.once("exit", onExit);
    void this.#session.ended.then(() => {
      process.removeListener("exit", onExit);
      fs.closeSync(device);
    });
  }

  /**
   * Takes over the mount that another daemon left to a holder, wanted or not: sandboxes read from it. Otherwise mounts anew in the place
   * of what is there, or only removes that when none is wanted. Throws BURROW_DAEMON where the kernel or our rights don't allow it.
   */
  static async mount(context: LazyContext, isWanted: boolean): Promise<LazyMount | undefined> {
    const { root } = context.cache;
    const folder = lazyFolder(root);
    const isThere = isMounted(folder);
    const held = isThere ? takeHeld(lazyStatePath(root)) : undefined;
    if (held !== undefined) {
      const mount = new LazyMount(context, held.device, held);
      if (mount.#session.resume()) {
        mount.#hold();
        endHolder(held);
        context.log("lazy mount taken over", { files: held.files.length });
        return mount;
      }
      await mount.close();
    }
    if (!isWanted) {
      if (isThere) await unmount(folder);
      return undefined;
    }
    const device = await mountFuse(folder);
    const mount = new LazyMount(context, device);
    await readAhead(folder); // the kernel knows the root's attributes then, too
    return mount;
  }

  /** The same; undefined, and the log says why, where that can't be: large files are read by block there. */
  static async tryMount(context: LazyContext, isWanted: boolean): Promise<LazyMount | undefined> {
    try {
      return await LazyMount.mount(context, isWanted);
    } catch (error) {
      context.log("no lazy mount", { error: explain(error) });
      return undefined;
    }
  }

  /** Has somebody hold the mount from now on. Without it a daemon that ends takes the mount along. */
  #hold(): void {
    try {
      const given = { suffix: this.#files.suffix, files: this.#files.held() };
      const path = lazyStatePath(this.#cache.root);
      this.#holder = new Holder(path, this.#device, given, () => this.#holdAgain());
    } catch (error) {
      this.#log("lazy mount not held", { error: explain(error) });
    }
  }

  /** The holder was killed: another takes its place, before the daemon is, too. */
  #holdAgain(): void {
    this.#log("lazy mount's holder lost", {});
    const again = () => {
      if (!this.#isClosed) this.#hold();
    };
    setTimeout(again, HOLD_AGAIN_MS).unref();
  }

  /** Counters and what there is now, for STATUS. */
  status(): Record<string, number> {
    return { ...this.#files.counters, known: this.#files.size, underWay: this.#session.reads };
  }

  /** Answers an ask for a lazy file: its name, or that the blob is whole. Doesn't reject. */
  async ask(source: Source, row: number): Promise<AnswerFields> {
    const nothing = { errno: 0, state: AnswerState.lazy, name: "" };
    if (row >= source.table.count) return { ...nothing, errno: Errno.EINVAL };
    const digest = source.table.digestAt(row);
    if ((await this.#cache.look("blobs", digest, source.table.sizeOf(row))) === "sealed") {
      return { errno: 0, state: AnswerState.complete, name: "" };
    }
    if (this.#isClosed) return nothing;
    const note = (file: HeldFile) => this.#holder?.note(file);
    try {
      const name = this.#files.nameOf(source, row) ?? this.#files.add(source, row, note);
      if (this.#open.get(name) === undefined) {
        const handle = await fs.promises.open(`${this.#folder}/${name}`, O_PATH);
        const isThere = await handle.stat().catch(() => undefined);
        const isKept = isThere !== undefined && !this.#isClosed && !this.#open.has(name);
        if (isKept) this.#open.set(name, handle);
        else await handle.close();
        if (isThere === undefined || this.#isClosed) return nothing;
      }
      return { errno: 0, state: AnswerState.lazy, name };
    } catch {
      return nothing; // it is read by blocks
    }
  }

  /** Leaves it to its holder, for the next daemon: false if there is none, or nothing to leave. Who reads waits for that daemon. */
  leave(): boolean {
    if (this.#holder === undefined || this.#isClosed || this.#files.size === 0) return false;
    this.#isClosed = true;
    this.#session.abandon();
    return true;
  }

  /** Unmounts it. Files that sandboxes have open can't be read any further, but for what the kernel keeps of them. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#open.clear();
    this.#holder?.end();
    await unmount(this.#folder).catch(() => undefined);
    await this.#session.ended;
    this.#files.close();
  }
}
