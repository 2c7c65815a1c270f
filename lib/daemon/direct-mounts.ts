// DirectMounts: views as mounts of the kernel's that sandboxes work on themselves (runsc's directfs). Each is attached nowhere, has a FUSE
// server of its own, and is shared by all sandboxes of its tenant that see the same snapshots, so that what one has looked up or read the
// kernel knows for the next. docs/design/0033-directfs.md. Control plane.

import fs from "node:fs";
import { Errno, errnoName } from "../base/errno.ts";
import { explain } from "../base/error.ts";
import { DIRECT_IDLE_MS } from "../base/limits.ts";
import type { DirectStatus } from "../cache/client.ts";
import type { Log } from "../cache/counters.ts";
import { mountDirectory } from "../gofer/mount.ts";
import { native } from "../sys/native.ts";
import { newFuse } from "../sys/new-mount.ts";
import { DirectNotes, directId } from "./direct-notes.ts";
import { givesWay, refusalOf } from "./direct-places.ts";
import { DirectServer } from "./direct-server.ts";
import type { DescribedView } from "./sources.ts";

const DEVICE = "/dev/fuse";

/** What a sandbox has of a mount: an FD of its root, which is the taker's, and its part in who uses it. */
export interface DirectUse {
  readonly hostFd: number;
  release(): void;
}

interface DirectView {
  readonly key: string;
  readonly id: string;
  readonly tenant: string;
  /** Fails with an errno when it can't be had. */
  readonly mounting: Promise<Mounted | number>;
  users: number;
  idle: NodeJS.Timeout | undefined;
}

interface Mounted {
  /** The mount itself, and the device that its server answers on. */
  readonly mountFd: number;
  readonly device: number;
  readonly server: DirectServer;
}

export interface DirectContext {
  readonly cache: string;
  readonly state: string;
  /** Mounts at a time. */
  readonly most: number;
  readonly log: Log;
}

export class DirectMounts {
  readonly #context: DirectContext;
  /** By what they show and whose they are; the one that was let go of last comes last of those that nobody uses. */
  readonly #views = new Map<string, DirectView>();
  readonly #notes: DirectNotes;
  readonly #counted = { made: 0, shared: 0, refused: 0, restarts: 0 };
  #isEnded = false;

  constructor(context: DirectContext) {
    this.#context = context;
    this.#notes = new DirectNotes(context);
  }

  /** Removes what servers left that have ended. Those of a daemon before this one may live on. Never rejects. */
  async start(): Promise<void> {
    await this.#sweep();
  }

  /** Undefined where nobody has asked for one. */
  get figures(): DirectStatus | undefined {
    const { made, refused } = this.#counted;
    if (made + refused === 0) return undefined;
    let users = 0;
    for (const view of this.#views.values()) users += view.users;
    return { most: this.#context.most, views: this.#views.size, users, ...this.#counted };
  }

  /**
   * The mount of a view, made when there is none, or an errno: ENFILE and EDQUOT where there is no place for it (direct-places.ts), EPERM
   * and EIO where it can't be made, ECANCELED of a daemon that ends. Never rejects.
   */
  async use(view: DescribedView): Promise<DirectUse | number> {
    if (this.#isEnded) return Errno.ECANCELED;
    const key = this.#keyOf(view);
    const known = this.#views.get(key);
    const refusal = known !== undefined && known.users > 0 ? 0 : this.#refusal(view.tenant);
    if (refusal !== 0) return refusal;
    const found = known ?? this.#begin(key, view);
    if (known !== undefined) this.#counted.shared++;
    found.users++;
    clearTimeout(found.idle);
    const mounted = await found.mounting;
    const hostFd = typeof mounted === "number" ? -mounted : native.dupFd(mounted.mountFd);
    let isReleased = false;
    const release = () => {
      if (isReleased) return;
      isReleased = true;
      if (--found.users === 0) this.#rest(found);
    };
    if (hostFd >= 0) return { hostFd, release };
    release();
    return -hostFd;
  }

  /** Lets go of all. Sandboxes keep what they have: its servers end with them. */
  stop(): void {
    this.#isEnded = true;
    for (const view of this.#views.values()) this.#drop(view);
  }

  /** What makes two views one mount. */
  #keyOf({ tenant, snapshots, places }: DescribedView): string {
    return JSON.stringify([
      tenant,
      snapshots.map(({ snapshot, origin }, i) => [snapshot, origin, places[i]]),
    ]);
  }

  /** 0, or why a tenant gets no mount that none of its sandboxes has. */
  #refusal(tenant: string): number {
    const { most, log } = this.#context;
    const errno = refusalOf(this.#views.values(), tenant, most);
    if (errno === 0) return 0;
    this.#counted.refused++;
    const full = `all ${most} are in use`;
    const error = errno === Errno.ENFILE ? full : `its tenant has its share of ${most} in use`;
    log("no direct mount", { tenant, error });
    return errno;
  }

  #begin(key: string, view: DescribedView): DirectView {
    const { cache, most } = this.#context;
    const idle = this.#views.size < most ? undefined : givesWay(this.#views.values());
    if (idle !== undefined) this.#drop(idle);
    const id = directId(cache, key);
    const { tenant } = view;
    const mounting = this.#mount(id, view);
    const begun: DirectView = { key, id, tenant, mounting, users: 0, idle: undefined };
    this.#counted.made++;
    this.#views.set(key, begun);
    void begun.mounting.then((mounted) => {
      if (typeof mounted !== "number") return;
      if (this.#views.get(key) === begun) this.#views.delete(key); // the next who asks tries again
    });
    return begun;
  }

  async #mount(id: string, view: DescribedView): Promise<Mounted | number> {
    const { state, log } = this.#context;
    let device = -1;
    let mountFd = -1;
    try {
      await this.#notes.describe(id, view);
      device = fs.openSync(DEVICE, "r+");
      mountFd = newFuse(device);
      if (mountFd < 0) throw new Error(`can't mount: ${errnoName(mountFd)}`);
      const config = { state, source: mountDirectory(state, id), isReadOnly: true };
      const server = new DirectServer(config, device, {
        log: (what, why) => log(what, { mount: id, why }),
        onRestart: () => this.#counted.restarts++,
        onStart: (pid) => this.#notes.claim(id, pid),
        onEnd: () => void this.#sweep(),
        onLost: () => this.#lose(id),
      });
      await server.isReady;
      return { mountFd, device, server };
    } catch (error) {
      log("no direct mount", { mount: id, error: explain(error) });
      if (mountFd >= 0) native.closeFd(mountFd);
      if (device >= 0) native.closeFd(device);
      return mountFd === -Errno.EPERM ? Errno.EPERM : Errno.EIO;
    }
  }

  /** Nobody uses it: it is kept for a while, for who comes next. */
  #rest(view: DirectView): void {
    if (this.#views.get(view.key) !== view) return;
    this.#views.delete(view.key);
    this.#views.set(view.key, view);
    view.idle = setTimeout(() => this.#drop(view), DIRECT_IDLE_MS).unref();
  }

  async #sweep(): Promise<void> {
    if (this.#isEnded) return;
    await this.#notes.sweep((id) => [...this.#views.values()].some((view) => view.id === id));
  }

  /** Nobody answers for it any more. Who waits there gets an error, now that the device is closed; who comes next, another mount. */
  #lose(id: string): void {
    for (const view of this.#views.values()) if (view.id === id) this.#drop(view);
    void this.#sweep();
  }

  #drop(view: DirectView): void {
    clearTimeout(view.idle);
    if (this.#views.get(view.key) === view) this.#views.delete(view.key);
    void view.mounting.then((mounted) => {
      if (typeof mounted === "number") return;
      mounted.server.leave(this.#isEnded);
      native.closeFd(mounted.mountFd);
      native.closeFd(mounted.device);
    });
  }
}
