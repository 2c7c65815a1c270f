// What benches over a link have in common: what goes when they end, and the origin behind the link.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { Teardown } from "../../test/suite/served.ts";

const ORIGIN = fileURLToPath(new URL("./pread-origin.js", import.meta.url));

/** What is torn down when a bench ends, in reverse order. */
export class Ends implements Teardown {
  readonly #actions: (() => void | Promise<void>)[] = [];

  teardown(action: () => void | Promise<void>): void {
    this.#actions.push(action);
  }

  async run(): Promise<void> {
    for (const action of this.#actions.splice(0).reverse()) await action();
  }
}

/** Serves a directory over a paced link: its URL. */
export async function startOrigin(
  ends: Ends,
  folder: string,
  linkMbit: number,
  latencyMs = 0,
): Promise<string> {
  const words = [ORIGIN, folder, String(linkMbit), String(latencyMs)];
  const child: ChildProcess = spawn(process.execPath, words, {
    stdio: ["ignore", "pipe", "inherit"],
  });
  ends.teardown(() => void child.kill("SIGKILL"));
  const [port] = (await once(child.stdout!, "data")) as [Buffer];
  return `http://127.0.0.1:${String(port).trim()}`;
}
