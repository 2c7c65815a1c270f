// Counting before parsing: "{},{},…" of some MiB becomes GiB of objects in a parser. Pure.

/** Whether bytes have more than `max` of these ASCII characters in all. */
export function hasOver(max: number, bytes: Uint8Array, ...marks: readonly string[]): boolean {
  let count = 0;
  for (const mark of marks) {
    const code = mark.charCodeAt(0);
    for (let at = bytes.indexOf(code); at >= 0; at = bytes.indexOf(code, at + 1)) {
      if (++count > max) return true;
    }
  }
  return false;
}
