// Assertions for programmer errors, on every plane. A failed one is a bug of ours, never bad input:
// dispatch catches it, answers EREMOTEIO (as gVisor does) and the connection lives.

class AssertionError extends Error {
  override readonly name = "AssertionError";
}

/** Throws AssertionError unless the condition holds. One condition a call. */
export function assert(condition: boolean, claim: string): asserts condition {
  if (!condition) throw new AssertionError(claim);
}
