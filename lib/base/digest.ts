// Digest: the sha256 of immutable bytes as 64 lower-case hex digits. People see "sha256:<hex>", so
// that the algorithm stays a field of every format. Any plane.

export type Digest = string & { readonly __brand: "Digest" };

export const DIGEST_BYTES = 32;

const HEX = /^[0-9a-f]{64}$/;

/** The Digest in "sha256:<64 hex>" or bare hex, in either case; undefined when it is none. */
export function parseDigest(text: string): Digest | undefined {
  const hex = (text.startsWith("sha256:") ? text.slice(7) : text).toLowerCase();
  return isDigest(hex) ? hex : undefined;
}

/** Whether a text is a Digest as it stands, such as a file's name. */
export function isDigest(text: string): text is Digest {
  return HEX.test(text);
}

interface HexBuffer {
  hexSlice(this: Uint8Array, start: number, end: number): string;
}

/** Buffer.toString without its option handling, and without a Buffer of its own for each digest. */
const { hexSlice } = Buffer.prototype as unknown as HexBuffer;

/** The Digest whose 32 bytes start at offset. */
export function digestAt(bytes: Uint8Array, offset: number): Digest {
  return hexSlice.call(bytes, offset, offset + DIGEST_BYTES) as Digest;
}

/** "sha256:<hex>", as shown to people and written in files. */
export function showDigest(digest: Digest): string {
  return `sha256:${digest}`;
}
