// Clock: milliseconds of CLOCK_MONOTONIC, which processes of one boot share, so that what they note can be put side by side. Any plane.

/** What performance.now() counts from, by CLOCK_MONOTONIC. man clock_gettime(2). */
export const CLOCK_ORIGIN_MS: number = originMs();

function originMs(): number {
  const [seconds, ns] = process.hrtime();
  return seconds * 1e3 + ns / 1e6 - performance.now();
}

/** Now, by CLOCK_MONOTONIC, in milliseconds with what the clock has below them. */
export function monotonicMs(): number {
  return CLOCK_ORIGIN_MS + performance.now();
}
