// Deadlines: signals that fire after a time, or when all work is stopped. Not by AbortSignal.any(): what it makes holds its sources by weak
// references alone, so that under Node.js 20 a timeout among them is collected, and never fires (nodejs/node#57736); and what lives long
// among them keeps all that was made of it (#54614). Control plane.

export class Deadlines {
  readonly #open = new Set<AbortController>();
  #isStopped = false;

  /** Fires after `ms`, or when stop() is called; at once after that. It keeps no process alive. */
  signal(ms: number): AbortSignal {
    const control = new AbortController();
    if (this.#isStopped) {
      control.abort();
      return control.signal;
    }
    this.#open.add(control);
    setTimeout(() => {
      this.#open.delete(control);
      control.abort();
    }, ms).unref();
    return control.signal;
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  stop(): void {
    this.#isStopped = true;
    for (const control of this.#open) control.abort();
    this.#open.clear();
  }
}
