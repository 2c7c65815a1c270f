// Dispatch: decodes a FUSE request and runs its handler: the only try/catch of the FUSE door. An exception is a bug of ours: logged,
// counted, EREMOTEIO, and the session lives. Data plane.

import { Errno } from "../../base/errno.ts";
import type { Cursor } from "../../wire/cursor.ts";
import { Opcode } from "../../wire/fuse/message.ts";
import { decodeBody, type FuseRequest } from "../../wire/fuse/request.ts";
import { Count, counters } from "../counters.ts";
import * as attr from "./attr.ts";
import * as files from "./files.ts";
import type { Handler } from "./handler.ts";
import * as names from "./names.ts";
import type { FuseSession } from "./session.ts";

const OPCODES_MAX = 64;
const HANDLERS: (Handler | undefined)[] = new Array(OPCODES_MAX).fill(undefined);
HANDLERS[Opcode.init] = (session, _request, reply) => session.init(reply);
HANDLERS[Opcode.interrupt] = (session, request) => session.interrupt(request.other);
HANDLERS[Opcode.batchForget] = (session) => session.forgetMany();
HANDLERS[Opcode.lookup] = names.lookup;
HANDLERS[Opcode.forget] = names.forget;
HANDLERS[Opcode.readlink] = names.readlink;
HANDLERS[Opcode.symlink] = names.symlink;
HANDLERS[Opcode.mknod] = names.mknod;
HANDLERS[Opcode.mkdir] = names.mkdir;
HANDLERS[Opcode.unlink] = names.unlink;
HANDLERS[Opcode.rmdir] = names.rmdir;
HANDLERS[Opcode.rename] = names.rename;
HANDLERS[Opcode.rename2] = names.rename;
HANDLERS[Opcode.link] = names.link;
HANDLERS[Opcode.open] = files.open;
HANDLERS[Opcode.create] = files.create;
HANDLERS[Opcode.read] = files.read;
HANDLERS[Opcode.write] = files.write;
HANDLERS[Opcode.fallocate] = files.fallocate;
HANDLERS[Opcode.fsync] = files.fsync;
HANDLERS[Opcode.fsyncdir] = files.fsync;
HANDLERS[Opcode.release] = files.release;
HANDLERS[Opcode.opendir] = files.opendir;
HANDLERS[Opcode.readdir] = files.readdir;
HANDLERS[Opcode.readdirplus] = files.readdirplus;
HANDLERS[Opcode.releasedir] = files.release;
HANDLERS[Opcode.getattr] = attr.getattr;
HANDLERS[Opcode.setattr] = attr.setattr;
HANDLERS[Opcode.statfs] = attr.statfs;
HANDLERS[Opcode.getxattr] = attr.getxattr;
HANDLERS[Opcode.listxattr] = attr.listxattr;
HANDLERS[Opcode.setxattr] = attr.setxattr;
HANDLERS[Opcode.removexattr] = attr.removexattr;
HANDLERS[Opcode.destroy] = () => 0;

/** Takes what an exception says, once. */
export type LogLine = (line: string) => void;

/**
 * Runs the request whose body the cursor is at, and has its reply's body written at `reply`: 0, MISS when nothing was done since bytes
 * must be fetched first, NO_REPLY, or -errno. ENOSYS, of what has no handler, has the kernel do without from then on: FLUSH, ACCESS,
 * LSEEK and others.
 */
export function dispatch(
  session: FuseSession,
  request: FuseRequest,
  body: Cursor,
  reply: Cursor,
  log: LogLine,
): number {
  try {
    const handler = HANDLERS[request.opcode];
    if (handler === undefined) return -Errno.ENOSYS;
    if (request.node < 0 || !decodeBody(body, request)) return -Errno.EINVAL;
    const outcome = handler(session, request, reply);
    return outcome >= 0 && reply.hasOverrun ? -Errno.EIO : outcome;
  } catch (error) {
    counters[Count.internalErrors]!++;
    const trace = error instanceof Error ? (error.stack ?? error.message) : String(error);
    log(`bug in FUSE request ${request.opcode}: ${trace}`);
    return -Errno.EREMOTEIO;
  }
}
