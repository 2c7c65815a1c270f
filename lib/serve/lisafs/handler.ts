// What every handler is: a plain synchronous function from a decoded request to a reply written at the cursor. First all
// lookups and fetches, then all side effects, so that a handler that returns MISS can be run again. Data plane.

import type { Communicator } from "../../transport/communicator.ts";
import { Attr, OpenResult } from "../../tree/tree.ts";
import type { Cursor } from "../../wire/cursor.ts";
import type { Request } from "../../wire/lisafs/message.ts";
import type { Connection } from "./connection.ts";

/** 0 when the reply stands at the cursor, -errno, or MISS. */
export type Handler = (
  connection: Connection,
  request: Request,
  reply: Cursor,
  from: Communicator,
) => number;

/** Scratch of the one data-plane thread: filled and used within one handler. */
export const attr = new Attr();
export const opened = new OpenResult();
