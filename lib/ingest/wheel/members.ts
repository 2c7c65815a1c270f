// The members of a wheel's zip, judged before any of their bytes is kept: plain files with plain paths, each once, none that shares
// its bytes with another, all of a believable size. Control plane.

import type { Entry, ZipFile } from "yauzl";
import { S_IFMT, S_IFREG } from "../../base/file-types.ts";
import { ARCHIVE_BYTES_MAX } from "../../base/limits.ts";
import { nameOf } from "../../base/name.ts";
import { badArchive } from "../conda/errors.ts";
import { plainPath, Refusal } from "../entry-tree.ts";
import { zipError } from "../zip.ts";

export interface Member {
  readonly entry: Entry;
  /** As in the zip, and as RECORD names it; UTF-8 text. */
  readonly name: string;
  readonly isExecutable: boolean;
}

export interface MemberLimits {
  readonly maxEntries?: number;
  readonly maxBytes?: number;
}

/** Of one wheel: ten times the most that is known (about 20,000 files). */
const WHEEL_ENTRIES_MAX = 200_000;
/** A zip's local header without its name. APPNOTE.TXT 4.3.7. */
const LOCAL_HEADER_BYTES = 30;

/** The files of the zip by name; directories are left out, as pip leaves them. BURROW_BAD_ARCHIVE for what no wheel should have. */
export async function readMembers(
  zip: ZipFile,
  archive: string,
  limits: MemberLimits = {},
): Promise<Map<string, Member>> {
  const { maxEntries = WHEEL_ENTRIES_MAX, maxBytes = ARCHIVE_BYTES_MAX } = limits;
  const members = new Map<string, Member>();
  let count = 0;
  let bytes = 0;
  for await (const entry of entriesOf(zip, archive)) {
    const name = entry.fileName;
    if (++count > maxEntries) throw badArchive(archive, `it has over ${maxEntries} entries`);
    const path = plainPath(nameOf(name));
    if (path instanceof Refusal) throw badArchive(archive, path.why, nameOf(name));
    if (name.endsWith("/")) continue;
    if (path !== nameOf(name)) throw badArchive(archive, "its path is not plain", nameOf(name));
    bytes += entry.uncompressedSize;
    if (bytes > maxBytes) throw badArchive(archive, `it claims over ${maxBytes} bytes`);
    if (entry.isEncrypted()) throw badArchive(archive, "it is encrypted", nameOf(name));
    const mode = entry.externalFileAttributes >>> 16;
    const type = mode & S_IFMT;
    if (type !== 0 && type !== S_IFREG) {
      throw badArchive(archive, "it is no plain file", nameOf(name));
    }
    if (members.has(name)) throw badArchive(archive, "it comes twice", nameOf(name));
    members.set(name, { entry, name, isExecutable: type === S_IFREG && (mode & 0o111) !== 0 });
  }
  refuseOverlaps([...members.values()], archive);
  return members;
}

/** What the zip's directory lists, an error of yauzl as ours. */
async function* entriesOf(zip: ZipFile, archive: string): AsyncIterable<Entry> {
  try {
    yield* zip.eachEntry();
  } catch (error) {
    throw zipError(error, archive);
  }
}

/** Members that share bytes make a bomb out of little: David Fifield, "A better zip bomb" (WOOT 2019). */
function refuseOverlaps(members: readonly Member[], archive: string): void {
  const sorted = members
    .map(({ entry }) => entry)
    .sort((left, right) => left.relativeOffsetOfLocalHeader - right.relativeOffsetOfLocalHeader);
  let end = 0;
  for (const entry of sorted) {
    if (entry.relativeOffsetOfLocalHeader < end) {
      throw badArchive(archive, "it shares bytes with another member", nameOf(entry.fileName));
    }
    end = entry.relativeOffsetOfLocalHeader + LOCAL_HEADER_BYTES + entry.compressedSize;
  }
}
