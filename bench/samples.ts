// Samples: durations of one case, and what is said of them. Sorting is after the clock has stopped.

/** Quantiles of `count` durations in milliseconds, as microseconds with two decimals. Sorts in place. */
export function quantiles(durationsMs: Float64Array): {
  p50Us: number;
  p99Us: number;
  p999Us: number;
} {
  durationsMs.sort();
  const at = (share: number) => {
    const index = Math.min(durationsMs.length - 1, Math.floor(durationsMs.length * share));
    return Math.round(durationsMs[index]! * 100_000) / 100;
  };
  return { p50Us: at(0.5), p99Us: at(0.99), p999Us: at(0.999) };
}

/** The median of a few figures. */
export function median(figures: readonly number[]): number {
  const sorted = [...figures].sort((a, b) => a - b);
  return sorted[sorted.length >> 1]!;
}
