// Tattach, Tauth, Twalk, Treaddir, Treadlink: finding things. docs/protocol/9p2000l.md. Data plane.

import { Errno } from "../../base/errno.ts";
import { DT_DIR } from "../../base/file-types.ts";
import { SYMLINK_MAX_BYTES } from "../../base/limits.ts";
import { checkName, type Name } from "../../base/name.ts";
import type { Tree } from "../../tree/tree.ts";
import type { Cursor } from "../../wire/cursor.ts";
import type { Request } from "../../wire/ninep/message.ts";
import { putDirentQid, putQid } from "../../wire/ninep/qid.ts";
import {
  NOFID,
  NONUNAME,
  QID_BYTES,
  READ_HEADER_BYTES,
  WALK_NAMES_MAX,
} from "../../wire/ninep/type.ts";
import { type Fid, FidKind, type Place } from "./fid-table.ts";
import { attr, fileFid, type Handler, refusal } from "./handler.ts";
import type { Session } from "./session.ts";

/** Whom a client that gives no number and no name that is one acts as. */
const NOBODY = 65_534;
const UP = "..";
const HERE = ".";
const ROOT_NAME = "" as Name;

/** The number of a user: n_uname before uname. Only "root" and digits are known by name. */
function userOf(request: Request): number {
  if (request.uid !== NONUNAME) return request.uid;
  if (request.name === "root") return 0;
  let number = 0;
  for (let i = 0; i < request.name.length; i++) {
    const digit = request.name.charCodeAt(i) - 0x30;
    if (digit < 0 || digit > 9 || i > 8) return NOBODY;
    number = number * 10 + digit;
  }
  return request.name === "" ? NOBODY : number;
}

export const attach: Handler = (session, request, reply) => {
  if (request.otherFid !== NOFID) return -Errno.EBADF;
  if (session.fids.get(request.fid) !== undefined || request.fid === NOFID) return -Errno.EBADF;
  const view = session.viewOf(request.otherName);
  if (view === undefined) return -Errno.ENOENT;
  const { tree } = view;
  if (!session.fids.hasRoom(tree, 1)) return -Errno.EMFILE;
  const failed = tree.getattr(tree.rootIno, attr);
  if (failed < 0) return failed;
  const acquired = tree.acquire(tree.rootIno);
  if (acquired < 0) return acquired;
  const place = session.fids.makePlace(tree, tree.rootIno, undefined, ROOT_NAME);
  session.fids.insert(request.fid, view, userOf(request), place);
  putQid(reply, attr);
  return 0;
};

/** Nobody has to authenticate: whoever may connect may attach. */
export const auth: Handler = () => -Errno.ENOENT;

/** Refuses a bad name before anything is looked up: 0 or -errno. Only a walk has ".." and, of diod's clients, ".". */
function checkNames(names: readonly string[], count: number): number {
  if (count > WALK_NAMES_MAX) return -Errno.EINVAL;
  for (let i = 0; i < count; i++) {
    const bad = names[i] === UP || names[i] === HERE ? 0 : checkName(names[i]!);
    if (bad < 0) return bad;
  }
  return 0;
}

/** One step of a walk, with one reference of its own: the place, or -errno in `stepErrno`. */
let stepErrno = 0;
function step(session: Session, tree: Tree, from: Place, name: string): Place | undefined {
  if (name === UP || name === HERE) {
    const place = (name === UP ? from.parent : undefined) ?? from;
    place.references++;
    return place;
  }
  const ino = tree.lookup(from.ino, name as Name);
  if (ino >= 0) return session.fids.makePlace(tree, ino as Place["ino"], from, name as Name);
  stepErrno = ino;
  return undefined;
}

export const walk: Handler = (session, request, reply) => {
  const { fids } = session;
  const fid = fileFid(session, request.fid);
  if (fid === undefined) return refusal;
  const isSame = request.otherFid === request.fid;
  if (isSame ? fid.kind !== FidKind.walked : fids.get(request.otherFid) !== undefined)
    return isSame ? -Errno.EINVAL : -Errno.EBADF;
  if (request.otherFid === NOFID) return -Errno.EBADF;
  const count = request.nameCount;
  const bad = checkNames(request.names, count);
  if (bad < 0) return bad;
  const { tree } = fid.view;
  if (!(isSame ? fids.hasPlaces(tree, count) : fids.hasRoom(tree, count))) return -Errno.EMFILE;
  const start = reply.offset;
  reply.skip(2);
  let place = fid.place;
  place.references++;
  let done = 0;
  for (; done < count; done++) {
    const next = step(session, tree, place, request.names[done]!);
    let failed = next === undefined ? stepErrno : tree.getattr(next.ino, attr);
    fids.releasePlace(tree, place);
    if (next !== undefined) place = next;
    if (failed >= 0) {
      putQid(reply, attr);
      continue;
    }
    if (next !== undefined) fids.releasePlace(tree, place);
    // Names before it were found: that is said, and newfid is none. 9P2000 walk(5).
    if (done === 0) return failed;
    failed = 0;
    reply.view.setUint16(start, done, true);
    return failed;
  }
  reply.view.setUint16(start, done, true);
  if (isSame) fids.move(fid, place);
  else fids.insert(request.otherFid, fid.view, fid.uid, place);
  return 0;
};

const target = new Uint8Array(SYMLINK_MAX_BYTES);

export const readlink: Handler = (session, request, reply) => {
  const fid = fileFid(session, request.fid);
  if (fid === undefined) return refusal;
  const length = fid.view.tree.readlink(fid.place.ino, target);
  if (length < 0) return length;
  reply.putU16(length);
  reply.putBytes(target.subarray(0, length));
  return 0;
};

/** A dentry before its name: qid[13] offset[8] type[1] and the name's length. */
const DIRENT_BYTES = QID_BYTES + 11;

/** The reply under way, for the one sink below. */
const listing = { cursor: undefined as Cursor | undefined, end: 0, offset: 0, toSkip: 0 };

function putDirent(ino: number, devMinor: number, type: number, name: string): boolean {
  if (listing.toSkip > 0) {
    listing.toSkip--;
    listing.offset++;
    return true;
  }
  const cursor = listing.cursor!;
  if (cursor.offset + DIRENT_BYTES + name.length > listing.end) return false;
  putDirentQid(cursor, ino, devMinor, type);
  cursor.putU64(++listing.offset);
  cursor.putU8(type);
  cursor.putSizedText(name);
  return true;
}

/** "." and "..", which the tree doesn't list and Linux's client doesn't add: false when there is no room. */
function putDots(fid: Fid): boolean {
  const { tree } = fid.view;
  const { place } = fid;
  for (const [at, one, name] of [
    [0, place, "."],
    [1, place.parent ?? place, UP],
  ] as const) {
    if (listing.offset > at) continue;
    // The inode is held, so this fails for a tree that is broken only: then it has no number.
    const isKnown = tree.getattr(one.ino, attr) >= 0;
    if (!putDirent(isKnown ? attr.ino : 0, isKnown ? attr.devMinor : 0, DT_DIR, name)) return false;
  }
  return true;
}

/**
 * An offset is the number of dentries before it, "." and ".." among them. Going on from the last that was given costs nothing; any
 * other has the directory read from its start.
 */
export const readdir: Handler = (session, request, reply) => {
  const fid = session.fids.get(request.fid);
  if (fid === undefined) return -Errno.EBADF;
  if (fid.kind !== FidKind.directory) return -Errno.ENOTDIR;
  if (request.offset < 0) return -Errno.EINVAL;
  const start = reply.offset;
  reply.skip(READ_HEADER_BYTES - 7);
  const first = reply.offset;
  const isNext = request.offset === fid.offset;
  listing.cursor = reply;
  listing.end = Math.min(reply.end, first + request.count);
  listing.offset = isNext ? fid.offset : 0;
  listing.toSkip = isNext ? 0 : request.offset;
  let cookie = isNext ? fid.cookie : 0;
  let given = cookie;
  if (putDots(fid)) given = fid.view.tree.readdir(fid.place.ino, fid.handle, cookie, putDirent);
  listing.cursor = undefined;
  if (given < 0) return given;
  const isShort = reply.offset === first && listing.toSkip === 0 && request.count < LONGEST_DIRENT;
  // Nothing would say that the directory ends here.
  if (isShort && given === cookie && !isAtEnd(fid, cookie)) return -Errno.EINVAL;
  cookie = given;
  fid.cookie = cookie;
  fid.offset = listing.offset;
  reply.view.setUint32(start, reply.offset - first, true);
  return 0;
};

const LONGEST_DIRENT = DIRENT_BYTES + 255;

/** Whether nothing follows a position. */
function isAtEnd(fid: Fid, cookie: number): boolean {
  let isEnd = listing.offset >= 2;
  if (isEnd)
    fid.view.tree.readdir(fid.place.ino, fid.handle, cookie, () => {
      isEnd = false;
      return false;
    });
  return isEnd;
}
