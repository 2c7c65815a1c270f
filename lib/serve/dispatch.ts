// Dispatch: the one exit of every LISAFS request: decode, run its handler, answer. The only try/catch and the only place
// where an errno becomes a reply. An exception is a bug of ours: logged, counted, EREMOTEIO (as gVisor's recovered panic), and
// the connection lives. LISAFS: connection.go handleMsg. Data plane.

import { Errno, MISS } from "../base/errno.ts";
import { LISAFS_MESSAGE_MAX_BYTES } from "../base/limits.ts";
import type { Communicator } from "../transport/communicator.ts";
import { Cursor } from "../wire/cursor.ts";
import { decodeRequest, Request } from "../wire/lisafs/message.ts";
import { MID_COUNT, Mid, midName } from "../wire/lisafs/mid.ts";
import { Count, counters } from "./counters.ts";
import * as attr from "./lisafs/attr.ts";
import type { Connection } from "./lisafs/connection.ts";
import type { Handler } from "./lisafs/handler.ts";
import * as io from "./lisafs/io.ts";
import * as mutate from "./lisafs/mutate.ts";
import * as socket from "./lisafs/socket.ts";
import * as walk from "./lisafs/walk.ts";
import { TRACED_MISS, trace } from "./trace.ts";

const HANDLERS: (Handler | undefined)[] = new Array(MID_COUNT).fill(undefined);
HANDLERS[Mid.Mount] = walk.mount;
HANDLERS[Mid.Channel] = walk.channel;
HANDLERS[Mid.Walk] = walk.walk;
HANDLERS[Mid.WalkStat] = walk.walkStat;
HANDLERS[Mid.Getdents64] = walk.getdents64;
HANDLERS[Mid.ReadLinkAt] = walk.readLinkAt;
HANDLERS[Mid.FStat] = attr.fStat;
HANDLERS[Mid.SetStat] = attr.setStat;
HANDLERS[Mid.FStatFS] = attr.fStatFs;
HANDLERS[Mid.FGetXattr] = attr.fGetXattr;
HANDLERS[Mid.FSetXattr] = attr.fSetXattr;
HANDLERS[Mid.FListXattr] = attr.fListXattr;
HANDLERS[Mid.FRemoveXattr] = attr.fRemoveXattr;
HANDLERS[Mid.OpenAt] = io.openAt;
HANDLERS[Mid.OpenCreateAt] = io.openCreateAt;
HANDLERS[Mid.Close] = io.close;
HANDLERS[Mid.FSync] = io.fSync;
HANDLERS[Mid.PWrite] = io.pWrite;
HANDLERS[Mid.PRead] = io.pRead;
HANDLERS[Mid.FAllocate] = io.fAllocate;
HANDLERS[Mid.Flush] = io.flush;
HANDLERS[Mid.MkdirAt] = mutate.mkdirAt;
HANDLERS[Mid.MknodAt] = mutate.mknodAt;
HANDLERS[Mid.SymlinkAt] = mutate.symlinkAt;
HANDLERS[Mid.LinkAt] = mutate.linkAt;
HANDLERS[Mid.UnlinkAt] = mutate.unlinkAt;
HANDLERS[Mid.RenameAt] = mutate.renameAt;
HANDLERS[Mid.RenameAt2] = mutate.renameAt;
HANDLERS[Mid.BindAt] = socket.bindAt;
HANDLERS[Mid.Connect] = socket.connect;
HANDLERS[Mid.ConnectWithCreds] = socket.connect;
HANDLERS[Mid.Listen] = socket.listen;
HANDLERS[Mid.Accept] = socket.accept;

/** Takes what an exception says, once; never writes to FDs 0 to 2. */
export type LogLine = (line: string) => void;

const request = new Request();
/** One cursor per communicator's buffer: made on its first request. */
const cursors = new WeakMap<Uint8Array, Cursor>();

function cursorOf(from: Communicator): Cursor {
  let cursor = cursors.get(from.bytes);
  if (cursor === undefined) {
    cursor = new Cursor(from.bytes);
    cursors.set(from.bytes, cursor);
  }
  return cursor;
}

/**
 * Runs the request of `payloadBytes` that stands in the communicator's payload and answers it: 0, or MISS when nothing was
 * done or answered since bytes must be fetched first: park it and run it again.
 */
export function dispatch(
  connection: Connection,
  from: Communicator,
  mid: number,
  payloadBytes: number,
  log: LogLine,
): number {
  if (mid < MID_COUNT) counters[mid]!++;
  const cursor = cursorOf(from);
  const start = from.payloadStart;
  const startMs = trace === undefined ? 0 : performance.now();
  let outcome: number;
  try {
    const handler = HANDLERS[mid];
    if (handler === undefined) {
      outcome = mid === Mid.Error ? -Errno.EINVAL : -Errno.EOPNOTSUPP;
    } else if (
      payloadBytes > LISAFS_MESSAGE_MAX_BYTES ||
      !decodeRequest(mid, cursor.seek(start, start + payloadBytes), request)
    ) {
      outcome = -Errno.EIO;
    } else {
      outcome = handler(
        connection,
        request,
        cursor.seek(start, start + from.payloadCapacity),
        from,
      );
      if (outcome >= 0 && cursor.hasOverrun) outcome = -Errno.EIO;
    }
  } catch (error) {
    counters[Count.internalErrors]!++;
    const trace = error instanceof Error ? (error.stack ?? error.message) : String(error);
    log(`bug in ${midName(mid)}: ${trace}`);
    outcome = -Errno.EREMOTEIO;
  }
  if (outcome === MISS) {
    counters[Count.misses]!++;
    return MISS;
  }
  if (outcome < 0) answerError(from, -outcome);
  else from.reply(mid, cursor.offset - start);
  if (trace !== undefined) noteRequest(connection, mid, outcome, startMs);
  return 0;
}

/** Control FDIDs of a view are its inodes; other trees' inodes tell nobody anything. */
function noteRequest(
  { index, tree, fds }: Connection,
  mid: number,
  outcome: number,
  startMs: number,
): void {
  const isRead = mid === Mid.PRead;
  const hasSubject = tree.isStateless && !WITHOUT_SUBJECT.includes(mid);
  const fdid = request.fd;
  const subject = hasSubject ? (fds.open(fdid)?.ino ?? fdid) : 0;
  const offset = isRead ? Math.max(0, request.offset) / PAGE_BYTES : 0;
  const count = isRead ? request.count : mid === Mid.Walk ? request.nameCount : 0;
  // An id that no message has is the client's to choose.
  const kind = Math.min(mid, TRACED_MISS - 1);
  trace?.note(kind, index, outcome, startMs, subject, offset, count);
}

const PAGE_BYTES = 4096;
const WITHOUT_SUBJECT: readonly number[] = [Mid.Mount, Mid.Channel, Mid.Close, Mid.FSync];

/** Answers with Error and a positive errno. */
export function answerError(to: Communicator, errno: number): void {
  counters[Count.errors]!++;
  const cursor = cursorOf(to).seek(to.payloadStart, to.payloadStart + 4);
  cursor.putU32(errno);
  to.reply(Mid.Error, 4);
}
