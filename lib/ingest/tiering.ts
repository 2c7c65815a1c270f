// When V8 optimizes a function: by how much it ran, counted in bytes of bytecode. Optimizing what runs for seconds costs more than it
// gives: a quarter of an ingest's CPU time went there, beside it on other threads. docs/benchmarks.md, "Ingest". Control plane.

import { setFlagsFromString } from "node:v8";

/** Of many functions that are each warm for seconds. native/bundle.mjs has the same for the gofer's start. */
const LATE_BYTES = 1_000_000;
/** V8's own, as `node --v8-options` of Node.js 20 has it: for long loops. */
const USUAL_BYTES = 67_584;
/** V8 12 has no such flag, and says so on stderr: Node.js 22 optimizes in another way. */
const HAS_BUDGET = Number.parseInt(process.versions.v8, 10) < 12;

/** Has functions of this process optimized later than usual. */
export function optimizeLate(): void {
  if (HAS_BUDGET) setFlagsFromString(`--interrupt-budget=${LATE_BYTES}`);
}

/** Has functions that run from now on optimized as usual. */
export function optimizeSoon(): void {
  if (HAS_BUDGET) setFlagsFromString(`--interrupt-budget=${USUAL_BYTES}`);
}
