// When V8 optimizes a function: by how much it ran, counted in bytes of bytecode. Optimizing what runs for seconds costs more than it
// gives: a quarter of an ingest's CPU time went there, beside it on other threads. docs/benchmarks.md, "Ingest". Control plane.

import { setFlagsFromString } from "node:v8";

/** Of many functions that are each warm for seconds. native/bundle.mjs has the same for the gofer's start. */
const LATE_BYTES = 1_000_000;
/** V8's own, as Node.js 20 has it: for long loops. */
const USUAL_BYTES = 135_168;

/** Has functions of this process optimized later than usual. A V8 that knows no such flag passes over it. */
export function optimizeLate(): void {
  setFlagsFromString(`--interrupt-budget=${LATE_BYTES}`);
}

/** Has functions that run from now on optimized as usual. */
export function optimizeSoon(): void {
  setFlagsFromString(`--interrupt-budget=${USUAL_BYTES}`);
}
