// The lease on the store as a worker thread has it: its holder, who started the worker, is asked. Control plane.

import type { HeldLease } from "../store/garbage.ts";
import { type Answer, type Ask, type Shown, thrownError } from "./work.ts";

interface Waiting {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export class JoinedLease implements HeldLease {
  readonly #hidden: Set<string>;
  readonly #say: (report: Ask | Shown) => void;
  readonly #waiting = new Map<number, Waiting>();
  #id = 0;

  constructor(hidden: readonly string[], say: (report: Ask | Shown) => void) {
    this.#hidden = new Set(hidden);
    this.#say = say;
  }

  get hidden(): ReadonlySet<string> {
    return this.#hidden;
  }

  check(): Promise<void> {
    return this.#ask("check");
  }

  confirm(): Promise<void> {
    return this.#ask("confirm");
  }

  keep(path: string): Promise<void> {
    return this.#ask("keep", path);
  }

  show(path: string): void {
    this.hear(path);
    this.#say({ kind: "shown", path });
  }

  /** Another has put it. */
  hear(path: string): void {
    this.#hidden.delete(path);
  }

  /** What the holder says. */
  take({ id, error }: Answer): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error === undefined) waiting?.resolve();
    else waiting?.reject(thrownError(error));
  }

  #ask(what: Ask["what"], path = ""): Promise<void> {
    return new Promise((resolve, reject) => {
      const id = this.#id++;
      this.#waiting.set(id, { resolve, reject });
      this.#say({ kind: "ask", id, what, path });
    });
  }
}
