// What is in a file of a layer, straight from its store: for records that commands read. Control plane.

import { S_IFMT, S_IFREG } from "../base/file-types.ts";
import { openPiece, pieceAt, pieceCount, pieceOfChunk } from "../cache/pieces.ts";
import { Inode } from "../layer/format.ts";
import type { Index } from "../layer/index.ts";
import { baseOfChunk } from "../store/codec.ts";
import type { Locator } from "../store/locator.ts";
import type { Backend } from "../store/store.ts";

/** The content of a file of a layer, verified; undefined where there is none. */
export async function contentAt(
  store: Backend,
  index: Index,
  locator: Locator,
  path: string,
): Promise<Buffer | undefined> {
  let ino = 1;
  for (const name of path.split("/")) {
    ino = index.lookup(index.row(ino), name);
    if (ino < 0) return undefined;
  }
  const row = index.row(ino);
  if ((index.field(row, Inode.mode) & S_IFMT) !== S_IFREG) return undefined;
  const blob = index.field(row, Inode.a);
  const digest = index.blobDigest(blob);
  const size = index.blobSize(blob);
  const read = (at: string, offset: number, length: number) =>
    store.get(at, { range: { offset, length } });
  const parts: Uint8Array[] = [];
  const sender = { name: store.origin, blame: () => undefined };
  for (let k = 0; size > 0 && k < pieceCount(size); k++) {
    const piece = pieceAt(locator, digest, size, k);
    const stored = await read(piece.path, piece.offset, piece.stored);
    const near = baseOfChunk(piece.codec, stored);
    const found = near === undefined ? -1 : locator.find(near);
    const base = found < 0 ? undefined : pieceOfChunk(locator.chunkAt(found, k));
    const got = base && { piece: base, stored: await read(base.path, base.offset, base.stored) };
    const block = index.blockCount(blob) === 0 ? digest : index.blockDigest(blob, k);
    parts.push(openPiece(piece, { stored, sender, ...(got ? { base: got } : {}) }, block));
  }
  return Buffer.concat(parts);
}
