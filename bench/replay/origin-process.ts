// OriginProcess: an origin far away, as benches that start many processes need it: one that answers while this process starts them, and
// that has a CPU whenever it wants one, as a machine of its own would. One in the bench's own process was silent for half a minute while
// 60 sandboxes were started, and the node rightly gave it up.

import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import os from "node:os";
import { fileURLToPath } from "node:url";
import type { Sent } from "./origin.ts";

const PROGRAM = fileURLToPath(new URL("origin-program.js", import.meta.url));
/** More than any process of the node has. */
const NICE = -15;

export type OriginOrder =
  | { readonly kind: "begin"; readonly delayMs: number; readonly bitsPerSecond: number }
  | { readonly kind: "facts" };

/** Since the last begin(). */
export interface OriginFacts {
  readonly requests: number;
  readonly sent: readonly Sent[];
}

export class OriginProcess {
  readonly url: string;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, url: string) {
    this.#child = child;
    this.url = url;
  }

  /** Over folders by the first part of a path, as Origin. */
  static async start(folders: Readonly<Record<string, string>>): Promise<OriginProcess> {
    const child = fork(PROGRAM, [JSON.stringify(folders)]);
    const [url] = (await once(child, "message")) as [string];
    // Only root may; without it is as busy as the rest.
    if (process.geteuid?.() === 0) os.setPriority(child.pid!, NICE);
    return new OriginProcess(child, url);
  }

  async begin(delayMs: number, bitsPerSecond = 0): Promise<void> {
    await this.#tell({ kind: "begin", delayMs, bitsPerSecond });
  }

  facts(): Promise<OriginFacts> {
    return this.#tell({ kind: "facts" });
  }

  close(): void {
    this.#child.disconnect();
  }

  async #tell(order: OriginOrder): Promise<OriginFacts> {
    const answered = once(this.#child, "message");
    this.#child.send(order);
    return ((await answered) as [OriginFacts])[0];
  }
}
