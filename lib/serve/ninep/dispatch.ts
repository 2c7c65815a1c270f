// Dispatch: decodes a 9P request and runs its handler: the only try/catch of the 9P door. An exception is a bug of ours: logged,
// counted, EREMOTEIO, and the session lives. Data plane.

import { Errno } from "../../base/errno.ts";
import type { Cursor } from "../../wire/cursor.ts";
import { Decoded, decodeRequest, Request } from "../../wire/ninep/message.ts";
import { Type, typeName } from "../../wire/ninep/type.ts";
import { Count, counters } from "../counters.ts";
import * as attr from "./attr.ts";
import type { Handler } from "./handler.ts";
import * as io from "./io.ts";
import * as mutate from "./mutate.ts";
import type { Session } from "./session.ts";
import * as walk from "./walk.ts";
import * as xattr from "./xattr.ts";

const HANDLERS: (Handler | undefined)[] = new Array(256).fill(undefined);
HANDLERS[Type.version] = (session, request, reply) => session.version(request, reply);
HANDLERS[Type.flush] = (session, request) => session.flush(request.otherTag);
HANDLERS[Type.auth] = walk.auth;
HANDLERS[Type.attach] = walk.attach;
HANDLERS[Type.walk] = walk.walk;
HANDLERS[Type.readdir] = walk.readdir;
HANDLERS[Type.readlink] = walk.readlink;
HANDLERS[Type.lopen] = io.lopen;
HANDLERS[Type.lcreate] = io.lcreate;
HANDLERS[Type.read] = io.read;
HANDLERS[Type.write] = io.write;
HANDLERS[Type.fsync] = io.fsync;
HANDLERS[Type.clunk] = io.clunk;
HANDLERS[Type.remove] = io.remove;
HANDLERS[Type.getattr] = attr.getattr;
HANDLERS[Type.setattr] = attr.setattr;
HANDLERS[Type.statfs] = attr.statfs;
HANDLERS[Type.lock] = attr.lock;
HANDLERS[Type.getlock] = attr.getlock;
HANDLERS[Type.xattrwalk] = xattr.xattrwalk;
HANDLERS[Type.xattrcreate] = xattr.xattrcreate;
HANDLERS[Type.mkdir] = mutate.mkdir;
HANDLERS[Type.mknod] = mutate.mknod;
HANDLERS[Type.symlink] = mutate.symlink;
HANDLERS[Type.link] = mutate.link;
HANDLERS[Type.rename] = mutate.rename;
HANDLERS[Type.renameat] = mutate.renameat;
HANDLERS[Type.unlinkat] = mutate.unlinkat;

/** Takes what an exception or a client's breach says, once. */
export type LogLine = (line: string) => void;

const request = new Request();

/** The fid of the request that was run last: whose view a MISS is of. */
export const lastFid = (): number => request.fid;

/**
 * Runs the request whose body the cursor is at, and has its reply's body written at `reply`: 0, MISS when nothing was done since bytes
 * must be fetched first, or -errno. EPROTO: the body is none of its type; EOPNOTSUPP: the type is none.
 */
export function dispatch(
  session: Session,
  type: number,
  body: Cursor,
  reply: Cursor,
  log: LogLine,
): number {
  try {
    const decoded = decodeRequest(type, body, request);
    if (decoded === Decoded.unknown) return -Errno.EOPNOTSUPP;
    if (decoded === Decoded.malformed) return -Errno.EPROTO;
    if (!session.isVersioned && type !== Type.version) return -Errno.EPROTO;
    const outcome = HANDLERS[type]!(session, request, reply);
    return outcome >= 0 && reply.hasOverrun ? -Errno.ENOBUFS : outcome;
  } catch (error) {
    counters[Count.internalErrors]!++;
    const trace = error instanceof Error ? (error.stack ?? error.message) : String(error);
    log(`bug in ${typeName(type)}: ${trace}`);
    return -Errno.EREMOTEIO;
  }
}
