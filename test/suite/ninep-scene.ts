// NinepScene: a 9P server in this process, whose loop is stepped by the clients that wait for it: a view of a cache made by hand, and
// an upper where mounts can be made. Tests only.

import { Errno } from "../../lib/base/errno.ts";
import { NinepLoop } from "../../lib/gofer/ninep-loop.ts";
import { openTree } from "../../lib/gofer/trees.ts";
import { LockTable } from "../../lib/serve/ninep/lock-table.ts";
import type { ServedView } from "../../lib/serve/ninep/view.ts";
import { native } from "../../lib/sys/native.ts";
import { createWait } from "../../lib/sys/wait.ts";
import { NO_SPECIAL_FILES } from "../../lib/tree/host-special.ts";
import type { Tree } from "../../lib/tree/tree.ts";
import { createUpper } from "../../lib/tree/upper.ts";
import { NinepClient } from "./ninep-client.ts";
import { noUpper, type Teardown, temporary } from "./served.ts";
import { type Files, makeView } from "./view-cache.ts";

const SOCK_STREAM = 1;

export interface SceneOptions {
  readonly files?: Files;
  readonly missing?: readonly string[];
  readonly missDeadlineMs?: number;
  readonly helloMs?: number;
  readonly fdLimit?: number;
  readonly upper?: { readonly sizeBytes: number; readonly inodes: number };
}

export class NinepScene {
  readonly loop: NinepLoop;
  readonly logged: string[] = [];
  readonly views: ServedView[];
  /** BURROW_STATE, with the cache in it. */
  readonly directory: string;
  readonly #clients: NinepClient[] = [];

  constructor(t: Teardown, options: SceneOptions = {}) {
    createWait(true);
    this.directory = temporary(t);
    const source = makeView(this.directory, options.files ?? {}, options.missing);
    const { tree, mailbox } = openTree(
      { destination: "/", source, isReadOnly: true },
      this.directory,
      NO_SPECIAL_FILES,
    );
    this.views = [{ name: "view", tree, isReadOnly: true, mailbox, locks: new LockTable() }];
    if (!noUpper) this.#addUpper(options.upper ?? { sizeBytes: 16 << 20, inodes: 4096 });
    this.loop = new NinepLoop({
      views: this.views,
      log: (line) => this.logged.push(line),
      missDeadlineMs: options.missDeadlineMs ?? 30_000,
      helloMs: options.helloMs ?? 30_000,
      fdLimit: options.fdLimit ?? native.setNoFile(1_048_576),
      refusalOf: () => undefined,
    });
    t.teardown(() => {
      for (const client of this.#clients) client.close();
      this.loop.dispose();
      const bugs = this.logged.filter((line) => line.includes("bug in"));
      if (bugs.length > 0) throw new Error(bugs.join("\n"));
    });
  }

  #addUpper(size: { sizeBytes: number; inodes: number }): void {
    const tree = createUpper({ ...size, mode: 0o1777 });
    if (typeof tree === "number") throw new Error(`no upper: ${tree}`);
    this.add("tmp", tree);
  }

  add(name: string, tree: Tree): void {
    const { isReadOnly } = tree;
    this.views.push({ name, tree, isReadOnly, mailbox: undefined, locks: new LockTable() });
  }

  /** Lets the server do what there is to do, as long as it doesn't have to wait for it. */
  readonly pump = (): void => this.loop.step(0);

  /** A client that has said nothing yet. */
  connect(refusal?: string): NinepClient {
    const ends = new Int32Array(2);
    native.socketPair(SOCK_STREAM, ends);
    const failed = this.loop.add(ends[0]!, refusal);
    const client = new NinepClient(ends[1]!, this.pump);
    this.#clients.push(client);
    if (failed < 0 && failed !== -Errno.EMFILE) throw new Error(`not served: ${failed}`);
    return client;
  }

  /** One that has attached to a view: its root's fid is `root`. */
  client(aname = "view", msize?: number): { client: NinepClient; root: number } {
    const client = this.connect();
    client.version(msize);
    const root = client.attach(aname);
    if (root < 0) throw new Error(`not attached: ${root}`);
    return { client, root };
  }
}
