// When V8 optimizes a function: by how much it ran, counted in bytes of bytecode; and how. Who owns work that lasts says what suits
// it: the pack writer, the merge, a standby. docs/design/0031-merge.md. Control plane.

import { setFlagsFromString } from "node:v8";

/** Of many functions that are each warm for seconds: optimizing them costs more than it gives, a quarter of an ingest's CPU time,
 * beside it on other threads. native/bundle.mjs has the same for the gofer's start. */
const LATE_BYTES = 1_000_000;
/** V8's own, as `node --v8-options` of Node.js 20 has it: for long loops. */
const USUAL_BYTES = 67_584;
/** V8 12 has no such flag, and says so on stderr: Node.js 22 optimizes in another way. */
const HAS_BUDGET = Number.parseInt(process.versions.v8, 10) < 12;

/** Has functions of this process optimized later than usual. */
export function optimizeLate(): void {
  if (HAS_BUDGET) setFlagsFromString(`--interrupt-budget=${LATE_BYTES}`);
}

/**
 * Has functions optimized as early as usual from now on, and while `run` lasts each by itself: inlined into each other they would be
 * optimized several times over, and be ready when a fraction of a second is over. Gives what it gives.
 */
export function optimizedSoon<T>(run: () => T): T {
  if (!HAS_BUDGET) return run();
  setFlagsFromString(`--interrupt-budget=${USUAL_BYTES}`);
  setFlagsFromString("--no-turbo-inlining");
  try {
    return run();
  } finally {
    setFlagsFromString("--turbo-inlining");
  }
}
