// ServedView: one tree that 9P clients attach to by its name, and what they share of it. Data plane.

import type { Mailbox } from "../../cache/mailbox.ts";
import type { Tree } from "../../tree/tree.ts";
import type { LockTable } from "./lock-table.ts";

export interface ServedView {
  /** What aname says, in latin1, without a leading "/". */
  readonly name: string;
  readonly tree: Tree;
  readonly isReadOnly: boolean;
  /** Where a miss is asked for; undefined: this tree never misses. */
  readonly mailbox: Mailbox | undefined;
  readonly locks: LockTable;
}
