// Doubts: who sent content with another digest, while one piece is fetched. Where a piece lies only a locator says, which may lie itself or be
// out of date, and then every honest place sends something else. So nobody is blamed before the same piece has come right: that proves the
// locator, and who sent other bytes did so. Control plane.

import type { Digest } from "../base/digest.ts";
import type { Sender } from "../store/store.ts";
import { openPiece, type Piece, type StoredPiece } from "./pieces.ts";

const WHY = "an origin sent content with another digest";

interface Suspect {
  readonly piece: Piece;
  readonly sender: Sender;
}

export class Doubts {
  readonly #suspects: Suspect[] = [];
  readonly #avoid = new Set<string>();

  /** Places to be asked after all others; undefined while there are none. */
  get avoid(): ReadonlySet<string> | undefined {
    return this.#avoid.size > 0 ? this.#avoid : undefined;
  }

  /** The content of a piece, verified. Throws BURROW_DIGEST_MISMATCH for anything else. */
  open(piece: Piece, got: StoredPiece, digest: Digest): Uint8Array {
    let content: Uint8Array;
    try {
      content = openPiece(piece, got, digest);
    } catch (error) {
      this.#note(piece, got);
      throw error;
    }
    for (const { piece: wrong, sender } of this.#suspects) {
      if (isSamePlace(wrong, piece)) sender.blame(WHY);
    }
    return content;
  }

  #note(piece: Piece, { sender, base }: StoredPiece): void {
    this.#avoid.add(sender.name);
    const baseSender = base?.sender ?? sender;
    this.#avoid.add(baseSender.name);
    // Of two who sent a delta and its base, either may have been wrong.
    if (baseSender.name === sender.name) this.#suspects.push({ piece, sender });
  }
}

function isSamePlace(a: Piece, b: Piece): boolean {
  const isSameRange = a.path === b.path && a.offset === b.offset && a.stored === b.stored;
  return isSameRange && a.length === b.length && a.codec === b.codec;
}
